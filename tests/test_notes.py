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
    return [note for note in notes if "puts out the probabilities" in note or "puts out log p" in note]


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
@pytest.mark.parametrize("asked", [lambda output: output[:, 1], Similarity([1, 0]), Value(1)])
def test_nothing_is_said_of_probabilities_where_no_class_is_read(asked, end):
    assert not of_probabilities(told(classifier(end), asked))


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


@pytest.mark.parametrize("last", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("sure", "said"), [(1.0, False), (1000.0, True)])
def test_a_region_of_which_the_model_is_sure_fades(sure, said, last):
    notes = told(segmenter(nn.Softmax(1) if last == "softmax" else nn.LogSoftmax(1), sure), Region())
    assert any("log p stands for the logit behind it" in note for note in notes)
    assert any("nearly sure of most pixels of the region" in note for note in notes) == said
    assert any(f"without its last {last}, whose" in note for note in notes) == said
    assert not any("probabilit" in note for note in told(segmenter(sure=sure), Region()))


def test_most_of_a_region_is_more_than_half_of_its_own_pixels():
    from seewhy.targets.reading import fading

    p, region = torch.tensor([[0.995, 0.995, 0.6, 0.1, 0.1]]), torch.tensor([[True, True, True, False, False]])
    assert len(list(fading(p, region, "softmax"))) == 2
    assert len(list(fading(p, ~region, "softmax"))) == 1
    assert len(list(fading(p - 0.01, region, "softmax"))) == 1
    assert len(list(fading(p, region, "sigmoid"))) == 1
    assert len(list(fading(p.log(), region, "log_softmax"))) == 2
    assert len(list(fading(p.log() - 0.01, region, "log_softmax"))) == 1
    assert len(list(fading(p.log(), region, "log_sigmoid"))) == 1
    assert not list(fading(p, region, None))


@pytest.mark.parametrize(
    ("scale", "end", "said"),
    [
        (1, nn.Sigmoid(), False),
        (1e3, nn.Sigmoid(), True),
        (1e3, None, False),
        (1, nn.LogSigmoid(), False),
        (1e3, nn.LogSigmoid(), False),  # the score is far below 0, where log p has the slope of the logit
        (-1e3, nn.LogSigmoid(), True),
    ],
)
def test_a_number_at_the_end_of_its_sigmoid_hardly_has_a_gradient(scale, end, said):
    notes = told(classifier(end, numbers=1, scale=scale), Value())
    assert any("can put out, so its gradient nearly vanishes" in note for note in notes) == said


# Logarithms of probabilities


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("numbers", [4, 1000])
def test_log_p_is_told_whatever_rounds_it(precision, numbers):
    model, x = classifier(nn.LogSoftmax(1), numbers).to(precision), images().to(precision)
    e = seewhy.explain(model, x, 1, "hires_cam", rectify=False)
    assert e.target == ("log p(class 1)",) * 2
    assert seewhy.explain(model, x, Logit(1), "hires_cam", rectify=False).target == ("log p(class 1)",) * 2
    assert e.probabilities == pytest.approx(model(x)[:, 1].float().exp().tolist())


def test_logits_below_0_are_no_log_p():
    model = classifier(numbers=4)
    with torch.no_grad():
        model[4].bias -= 9
    e = seewhy.explain(model, images(), 1, "hires_cam", rectify=False)
    assert e.target == ("class 1",) * 2
    assert e.probabilities == pytest.approx(model(images()).softmax(1)[:, 1].tolist())
    assert not of_probabilities(e.notes)


def test_the_region_of_log_p_is_that_of_the_softmax():
    one, other = (
        seewhy.explain(segmenter(end), images(), Region(1) - Region(0), "hires_cam", rectify=False)
        for end in (nn.LogSoftmax(1), nn.Softmax(1))
    )
    torch.testing.assert_close(one.map, other.map, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(one.scores, other.scores)
    assert float(one.map.abs().max()) > 0


@pytest.mark.parametrize("numbers", [1, 3])
def test_classes_of_log_sigmoids_are_where_p_is_above_a_half(numbers):
    def model(end):
        torch.manual_seed(4)
        made = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, numbers, 1), end).double()
        with torch.no_grad():
            made[2].bias += 0.2  # so that it is predicted in a part of the picture
        return made

    one, other = (
        seewhy.explain(model(end), images(), 0, "hires_cam", rectify=False) for end in (nn.LogSigmoid(), nn.Sigmoid())
    )
    assert one.target == other.target
    torch.testing.assert_close(one.map, other.map, rtol=1e-9, atol=1e-12)


def test_p_of_log_p_has_the_gradient_of_finite_differences():
    model, x = classifier(nn.LogSoftmax(1)), images(1)
    e = seewhy.explain(model, x, Probability(2), lambda inputs, input_gradients: input_gradients.sum(1))
    step = torch.zeros_like(x)
    step[0, :, 5, 7] = 1e-6
    higher, lower = (model(x + sign * step).exp()[0, 2].item() for sign in (1, -1))
    assert e.scores.item() == pytest.approx(model(x).exp()[0, 2].item())
    assert float(e.map[0, 5, 7]) == pytest.approx((higher - lower) / 2e-6, rel=1e-6)
    assert abs(float(e.map[0, 5, 7])) > 1e-5


# Scores that may be probabilities or logits


def by_hand(y):
    return 1 / (1 + (-y).exp())


class Own(nn.Module):
    """A last step that the graph does not tell as a sigmoid or softmax."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, y):
        return self.step(y)


MAYBE = {
    "a sigmoid by hand": by_hand,
    "the other side of a sigmoid": lambda y: 1 - y.sigmoid(),
    "a softmax without its first class": lambda y: y.softmax(1)[:, 1:],
}
SAID = (
    "every score is between 0 and 1, and no sigmoid or softmax is seen to make it: it is read as it is, as a logit; if "
    "these are probabilities, end the model in nn.Sigmoid() or nn.Softmax(1), or ask a function of the output"
)


@pytest.mark.parametrize("asked", [Probability(1), LogProbability(1), ReST(1), [Logit(0), Probability(1)]])
@pytest.mark.parametrize("step", MAYBE)
def test_no_probability_is_made_of_what_may_be_one(step, asked):
    with pytest.raises(seewhy.TargetError) as error:
        told(classifier(Own(MAYBE[step])), asked)
    assert str(error.value) == (
        "a probability was asked for, but every score is between 0 and 1 and those of an image do not sum to 1, so "
        "that they may be probabilities already, or logits; ask Value(1) for the number as it is, or a function such "
        "as lambda output: output.softmax(1)[:, 1] if these are logits"
    )


@pytest.mark.parametrize("asked", [None, 1, Logit(1), -Rank(2), Contrast(), Contrast(weighting="mean")])
@pytest.mark.parametrize("step", MAYBE)
def test_what_may_be_a_probability_is_read_as_it_is_and_said_to_be(step, asked):
    model = classifier(Own(MAYBE[step]))
    e = seewhy.explain(model, images(), asked, "hires_cam", rectify=False)
    assert e.notes.count(SAID) == 1
    assert e.probabilities == (None, None)
    assert not any("by its logit" in note for note in e.notes)
    if isinstance(asked, int):
        torch.testing.assert_close(e.scores, model(images())[:, 1].detach())


def test_a_single_score_that_may_be_a_probability_stays_a_logit_and_is_said_to_be():
    class Between(nn.Module):
        def forward(self, y):
            return by_hand(y) * 0.9

    model = classifier(Between(), numbers=1)
    e = seewhy.explain(model, images(), Probability(0), "hires_cam", rectify=False)
    torch.testing.assert_close(e.scores, model(images())[:, 0].sigmoid().detach())
    assert SAID in e.notes
    assert SAID not in told(classifier(nn.Sigmoid(), numbers=1), Probability(0))
    assert SAID not in told(classifier(Own(lambda y: y + 2), numbers=1), Probability(0))


@pytest.mark.parametrize("end", [nn.Sigmoid(), nn.Softmax(1), nn.Identity(), nn.LogSoftmax(1)])
def test_of_scores_that_are_known_nothing_is_said_to_be_unclear(end):
    assert SAID not in told(classifier(end, scale=3), 1)
    assert SAID not in told(segmenter(end), Region())


@pytest.mark.parametrize("last", [nn.Linear(4, 3), nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 3, 1))])
def test_what_a_layer_with_weights_put_out_are_logits_though_all_lie_between_0_and_1(last):
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last),
        *(nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()) * isinstance(last, nn.Sequential),
    )
    end = last[-1] if isinstance(last, nn.Sequential) else last
    nn.init.normal_(end.weight, std=0.01, generator=torch.Generator().manual_seed(0))
    nn.init.constant_(end.bias, 0.5)
    x = torch.rand(1, 3, 8, 8)
    e = seewhy.explain(model, x, Probability(1), "hires_cam", "1", rectify=False)
    assert SAID not in e.notes
    torch.testing.assert_close(e.scores, model(x).softmax(1)[:, 1].detach())


def test_a_region_of_what_may_be_probabilities_says_so():
    assert SAID in told(segmenter(Own(by_hand)), Region(mask=torch.ones(16, 16, dtype=torch.bool)))


@pytest.mark.parametrize(("asked", "said"), [(Probability(1), True), (ReST([1, 2]), True), (Logit(1), False)])
def test_a_softmax_of_our_own_is_said_to_be(asked, said):
    text = (
        "p is the softmax of the scores, which are read as logits of classes that exclude each other; where each class "
        "has a sigmoid of its own, ask a function: lambda output: output[:, 1].sigmoid()"
    )
    assert (text in told(classifier(scale=3), asked)) == said
    assert text not in told(classifier(nn.Softmax(1)), asked)
    assert text not in told(classifier(numbers=1), Probability(0))
