"""Questions that do not fit what the model puts out point to those that do."""

import pytest
import torch
from torch import nn

import seewhy
from seewhy import Contrast, Logit, Rank, Region, TargetError, Value


class Net(nn.Module):
    """A convolution and what is made of its maps."""

    def __init__(self, made):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.made = nn.Conv2d(3, 5, 3, 2, 1), made

    def forward(self, x):
        return self.made(self.conv(x).relu())


def boxes(maps):
    n = maps.shape[0]
    made = maps.flatten(1)[:, :12].reshape(n, 3, 4)
    return [{"boxes": b, "scores": b.sum(1).sigmoid(), "labels": torch.arange(3)} for b in made]


def queries(maps):
    logits = maps.flatten(2).transpose(1, 2)[:, :6, :4]
    return {"logits": logits, "pred_boxes": logits.sigmoid(), "last_hidden_state": logits}


def words(maps):
    return maps.flatten(2).transpose(1, 2)


X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
BOX = (
    "this model is a detector, whose scores are of boxes; ask about one of them: Box() is the best, Box(label='dog') "
    "the best of a class, Box(point=(y, x)) the one at a place"
)


def refused(made, asked, x=X, **given):
    with pytest.raises(TargetError) as told:
        seewhy.explain(Net(made), x, asked, **given)
    return str(told.value)


@pytest.mark.parametrize("asked", [None, 2, Rank(2), Logit(2), "dog", Contrast(1), Region(2), Region(), Value()])
@pytest.mark.parametrize("made", [boxes, queries])
def test_a_detector_is_asked_about_its_boxes(made, asked):
    assert refused(made, asked, labels=["cat", "dog", "cow", "hen"]) == BOX


@pytest.mark.parametrize("asked", [None, 2, "dog", -Rank(), Contrast(1)])
def test_a_captioner_is_asked_about_its_words(asked):
    text = refused(words, asked, labels=["cat", "dog", "cow", "hen", "ant"])
    assert "ask Sentence(ids, tokenizer) if these are logits of words, Box(decode=...) if they are of boxes" in text
    assert "(2, 64, 5)" in text


@pytest.mark.parametrize("asked", [Rank(2), Contrast(1), Logit(1) - Logit(2)])
def test_a_segmenter_is_asked_about_regions(asked):
    text = refused(lambda maps: maps, asked)
    assert (
        "ask Region(class) for where it is predicted, Region(a) - Region(b) for one class rather than another" in text
    )


def test_what_such_sentences_ask_for_is_answered():
    assert seewhy.explain(Net(lambda maps: maps), X, Region() - Region(2), "hires_cam").map.any()
    assert seewhy.explain(Net(queries), X, seewhy.Box(threshold=0.0), "hires_cam").map.any()


@pytest.mark.parametrize(
    "asked",
    [
        lambda output: output[:, 0].detach(),
        lambda output: torch.ones(len(output)),
        lambda output: output.argmax(1).float(),
    ],
)
@pytest.mark.parametrize("method", ["grad_cam", "saliency"])
def test_a_function_without_a_gradient_is_told_from_a_layer_without_one(asked, method):
    assert refused(lambda maps: maps.mean((2, 3)), asked, method=method) == (
        "the target <lambda> returns what has no gradient with respect to the model's output, by detach, argmax, numpy "
        "or a constant; make it of differentiable steps, or take a method that only runs the model: 'rise' or "
        "'occlusion'"
    )


def test_a_function_without_a_gradient_can_be_asked_by_runs():
    made = Net(lambda maps: maps.mean((2, 3)))
    own = seewhy.explain(made, X, lambda output: output[:, 0].detach(), "occlusion")
    torch.testing.assert_close(own.map, seewhy.explain(made, X, 0, "occlusion").map)


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_a_function_that_returns_numpy_returns_a_tensor_instead(method):
    text = refused(lambda maps: maps.mean((2, 3)), lambda output: output.detach().numpy()[:, 0], method=method)
    assert text == "the target returned ndarray; return a tensor with one score per image, here (2,)"


def test_the_axes_of_a_point_are_those_of_the_images():
    volumes = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv3d(2, 2, 1))
    with pytest.raises(TargetError, match=r"from \(0, 0, 0\) to \(5, 6, 7\): \(z, y, x\), from the top left"):
        seewhy.explain(volumes, torch.rand(1, 1, 6, 7, 8), Region(point=(1, 2)))
