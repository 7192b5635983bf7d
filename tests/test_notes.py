"""What questions say of themselves: what was chosen, what is read of probabilities, and where a gradient vanishes."""

import pytest
import torch
from torch import nn

import seewhy
from seewhy import Contrast, Logit, LogProbability, Probability, Rank, Region, ReST, Similarity, Value


def classifier(end=None, numbers=4, scale=1.0):
    torch.manual_seed(2)
    line = nn.Linear(6, numbers)
    with torch.no_grad():
        line.weight *= scale
    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), line)
    return nn.Sequential(*layers, *([end] if end else [])).double()


def segmenter(end=None, sure=1.0):
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 3, 1), *([end] if end else [])).double()
    with torch.no_grad():
        model[2].weight *= sure
    return model


def images(count=2):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()


def told(model, asked, method="hires_cam", **options):
    return seewhy.explain(model, images(), asked, method, rectify=False, **options).notes


def of_probabilities(notes):
    return [note for note in notes if "puts out the probabilities" in note]


@pytest.mark.parametrize("asked", [lambda output: output[:, 1], Similarity([1, 0]), Value(1)])
def test_nothing_is_said_of_probabilities_where_no_class_is_read(asked):
    assert not of_probabilities(told(classifier(nn.Softmax(1)), asked))


@pytest.mark.parametrize(
    ("asked", "logits"),
    [
        (1, False),
        (Probability(1), False),
        (LogProbability(1), False),
        (Logit(1), True),
        (ReST(1), True),
        (Logit(0) - Logit(1), True),
        (Contrast(), True),
        (Contrast(weighting="mean"), True),
        ([Rank(), -Logit(2)], True),
    ],
)
def test_log_p_stands_for_a_logit_only_where_one_is_asked_for(asked, logits):
    said = of_probabilities(told(classifier(nn.Softmax(1)), asked))
    assert said
    assert any("log p stands for the logit behind it" in note for note in said) == logits


@pytest.mark.parametrize("asked", [None, Rank(), -Rank(), Logit(2) - Rank(), 0.5 * Rank() - Rank(2)])
def test_a_class_that_the_model_chose_is_said_to_be(asked):
    assert "target: the class that the model predicts, by its logit" in told(classifier(), asked)


def test_another_alignment_is_in_the_names_of_files():
    usual, analytic = (seewhy.explain(classifier(), images(), 0, align=align) for align in ("measured", "analytic"))
    assert (usual.variant, analytic.variant) == ("", "analytic")


def test_a_class_that_was_chosen_for_one_image_is_said_to_be_of_that():
    notes = told(classifier(), [3, Rank(2)])
    assert "target: the class at place 2 of the model's scores, by its logit (image 1)" in notes
    assert not any("(image 0)" in note for note in notes)


@pytest.mark.parametrize(
    ("asked", "said"),
    [(None, False), (Rank(2), False), (1, True), (Logit(1) - Rank(), True), (lambda output: output[:, 0], True)],
)
def test_a_method_that_ignores_the_question_says_so_where_one_was_asked(asked, said):
    notes = told(classifier(), asked, "eigen_cam")
    assert any("does not look at the question" in note for note in notes) == said


def test_minus_the_predicted_class_of_a_segmentation_is_minus_its_region():
    model, given = segmenter(), {"method": "hires_cam", "rectify": False}
    lower, higher = (seewhy.explain(model, images(), asked, **given) for asked in (-Rank(), Region()))
    torch.testing.assert_close(lower.map, -higher.map)
    assert float(lower.map.abs().max()) > 0
    assert any(note.startswith("target: the class that covers most") for note in lower.notes)


@pytest.mark.parametrize(("sure", "said"), [(1.0, False), (1000.0, True)])
def test_a_region_of_which_the_model_is_sure_fades(sure, said):
    notes = told(segmenter(nn.Softmax(1), sure), Region())
    assert any("log p stands for the logit behind it" in note for note in notes)
    assert any("nearly sure of most pixels of the region" in note for note in notes) == said
    assert not any("probabilit" in note for note in told(segmenter(sure=sure), Region()))


def test_most_of_a_region_is_more_than_half_of_its_own_pixels():
    from seewhy.targets.reading import fading

    p, region = torch.tensor([[0.995, 0.995, 0.6, 0.1, 0.1]]), torch.tensor([[True, True, True, False, False]])
    assert len(list(fading(p, region, "softmax"))) == 2
    assert len(list(fading(p, ~region, "softmax"))) == 1
    assert len(list(fading(p - 0.01, region, "softmax"))) == 1
    assert len(list(fading(p, region, "sigmoid"))) == 1
    assert not list(fading(p, region, None))


@pytest.mark.parametrize(
    ("scale", "end", "said"), [(1, nn.Sigmoid(), False), (1e3, nn.Sigmoid(), True), (1e3, None, False)]
)
def test_a_number_at_the_end_of_its_sigmoid_hardly_has_a_gradient(scale, end, said):
    notes = told(classifier(end, numbers=1, scale=scale), Value())
    assert any("near the end of what the model's last sigmoid can put out" in note for note in notes) == said
