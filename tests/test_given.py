"""What users give and what models return: squashed scores, labels, inputs that the model cannot take."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import seewhy
from seewhy.subject import check_given
from seewhy.types import MethodError, ModelError, ShapeError, TargetError

# What a model that squashes its scores says


def squashing(last, classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes), last
    )


@pytest.mark.parametrize(("last", "classes"), [(nn.Sigmoid(), 1), (nn.Sigmoid(), 4), (nn.Softmax(1), 4)])
def test_scores_that_are_probabilities_are_not_squashed_again(last, classes):
    model, images = squashing(last, classes), torch.randn(2, 3, 9, 9)
    own = model(images).detach()
    assert seewhy.explain(model, images, 0).probabilities == pytest.approx(own[:, 0].tolist())
    for target, expected in (
        (seewhy.Probability(0), own[:, 0]),
        (seewhy.LogProbability(0), own[:, 0].log()),
        (2 * seewhy.Probability(0), 2 * own[:, 0]),
    ):
        torch.testing.assert_close(seewhy.explain(model, images, target).scores, expected)


def test_a_squashed_score_is_known_by_the_graph_behind_a_reshape():
    model, images = squashing(nn.Sequential(nn.Sigmoid(), nn.Flatten(0)), 1), torch.randn(2, 3, 9, 9)
    assert seewhy.explain(model, images).probabilities == pytest.approx(model(images).tolist())
    logits = squashing(nn.Identity(), 1)
    assert seewhy.explain(logits, images).probabilities == pytest.approx(logits(images).sigmoid()[:, 0].tolist())


# Labels


def test_one_score_of_two_labelled_classes_speaks_for_the_second():
    model, images = squashing(nn.Identity(), 1), torch.randn(2, 3, 9, 9)
    assert seewhy.explain(model, images, labels=["healthy", "ill"]).target == ("ill", "ill")
    assert seewhy.explain(model, images, "ill", labels=["healthy", "ill"]).class_indices == (0, 0)
    with pytest.raises(TargetError) as told:
        seewhy.explain(model, images, "healthy", labels=["healthy", "ill"])
    assert str(told.value) == (
        "the model's only score speaks for 'ill'; what speaks for 'healthy' is what speaks against it: -Logit(0)"
    )


def test_labels_that_are_not_as_many_as_the_classes_are_refused():
    model, images = squashing(nn.Identity(), 4), torch.randn(2, 3, 9, 9)
    with pytest.raises(TargetError) as told:
        seewhy.explain(model, images, labels=["a", "b"])
    assert str(told.value) == "got 2 labels for a model of 4 classes; give one for each"


# What the model cannot take


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (torch.zeros(2, 9, 9, 3), "; its channels seem to be last: images.permute(0, 3, 1, 2)"),
        (torch.zeros(2, 1, 9, 9), "expected input[1, 1, 9, 9] to have 3 channels"),
        (torch.zeros(2, 3, 9, 9, dtype=torch.float64), "and type float64"),
    ],
)
def test_what_the_model_refuses_is_told_with_what_it_got(given, text):
    with pytest.raises(ModelError) as told:
        seewhy.explain(squashing(nn.Identity(), 4), given)
    assert str(told.value).startswith(f"the model does not run on images of shape {tuple(given.shape)}")
    assert text in str(told.value)


def test_images_that_are_no_batch_are_told_by_what_they_are():
    model = squashing(nn.Identity(), 4)
    for images, text in (
        (torch.zeros(9, 9, 3), "(b c h w): give images.permute(2, 0, 1)[None]"),
        (torch.zeros(3, 9, 9), "(b c h w): give images[None]"),
        ([torch.zeros(3, 9, 9)], "got a list of 1 tensors as images; make one batch of images, as by torch.stack"),
        ({"pixel_values": torch.zeros(1, 3, 9, 9)}, "got a dictionary as images"),
    ):
        with pytest.raises((ShapeError, ModelError)) as told:
            seewhy.explain(model, images)
        assert text in str(told.value)
    with pytest.raises(ModelError) as told:
        check_given(torch.zeros(1, 3, 9, 9), torch.zeros(2), None)
    assert str(told.value) == "got Tensor as args; they are a tuple of the model's further inputs: args=(x,)"
    with pytest.raises(ModelError) as told:
        check_given(torch.zeros(1, 3, 9, 9), (), lambda photo: photo)
    assert "got function as preprocess, which does not tell where on the photo its pixels come from" in str(told.value)
    # in a process of its own, where types are not checked
    ran = subprocess.run(
        [sys.executable, "-c", "import seewhy; seewhy.Preprocess(224)"], capture_output=True, text=True
    )
    assert "ModelError: got size=224; it is the height and width of the input; give (224, 224)" in ran.stderr


def test_a_function_that_returns_no_map_is_told_what_one_is():
    model, images = squashing(nn.Identity(), 4), torch.randn(2, 3, 9, 9)
    for returned, got in ((lambda activations: activations, "(2, 4, 7, 7)"), (lambda activations: None, "NoneType")):
        with pytest.raises(MethodError) as told:
            seewhy.explain(model, images, 0, returned)
        assert str(told.value) == (
            f"the method returned {got}; it returns one map for each image, without channels, here (2, 7, 7)"
        )
    with pytest.raises(MethodError) as told:
        seewhy.explain(model, images, 0, lambda acts: acts)
    assert "asks for 'acts', which is no fact; positional parameters of a method name facts: activations, activ" in str(
        told.value
    )


# Options


@pytest.mark.parametrize(
    ("method", "options", "text"),
    [
        ("score_cam", {"channels": "x"}, "the option channels of score_cam is 'x'; it takes int | None"),
        ("rise", {"masks": 2.5}, "the option masks of rise is 2.5; it takes int"),
        ("grad_cam", {"rectify": 1}, "the option rectify of grad_cam is 1; it takes bool"),
        ("rise", {"masks": True}, "the option masks of rise is True; it takes int"),
    ],
)
def test_an_option_of_another_type_is_told(method, options, text):
    with pytest.raises(MethodError) as told:
        seewhy.explain(squashing(nn.Identity(), 4), torch.randn(2, 3, 9, 9), 0, method, options=options)
    assert str(told.value) == text


def test_options_of_several_methods_are_each_its_own():
    model, images = squashing(nn.Identity(), 4), torch.randn(2, 3, 9, 9)
    options = {"occlusion": {"patch": 3, "fill": 1}, "score_cam": {"channels": 2}}
    found = seewhy.compare(model, images, [1], ["score_cam", "occlusion", "grad_cam"], options=options)
    for method, each in zip(("score_cam", "occlusion", "grad_cam"), found, strict=True):
        alone = seewhy.explain(model, images, 1, method, options=options.get(method))
        torch.testing.assert_close(each.map, alone.map)
        assert each.options == alone.options
    with pytest.raises(MethodError) as told:
        seewhy.compare(model, images, [1], ["grad_cam"], options={"rise": {}})
    assert str(told.value) == "got options of 'rise', which is none of the methods; name them as in methods="


# Single values where several may stand


def test_a_single_value_is_a_list_of_one():
    model, images = squashing(nn.Identity(), 4), torch.randn(2, 3, 9, 9)
    labels = ["cat", "dog", "cow", "hen"]
    one = seewhy.compare(model, images, "cat", "hires_cam", "1", labels=labels)
    assert [(each.target, each.method, each.layers) for each in one] == [(("cat", "cat"), "hires_cam", ("1",))]


# What is said of a map


def test_a_contrast_of_a_model_that_puts_out_probabilities_weighs_by_these():
    model, images = squashing(nn.Softmax(1), 4), torch.randn(2, 3, 9, 9)
    e = seewhy.explain(model, images, seewhy.Contrast(1, references=[0, 2], gamma=0.5))
    p = model(images).detach()
    weights = p[:, [0, 2]] / p[:, [0, 2]].sum(1, keepdim=True)
    torch.testing.assert_close(e.scores, (weights * (p[:, [1]] - 0.5 * p[:, [0, 2]])).sum(1))
    assert "the model puts out probabilities: what is asked of logits is asked of these" in e.notes
    with pytest.raises(TargetError) as told:
        seewhy.explain(model, images, seewhy.Contrast(1, references=[0, 1]))
    assert str(told.value) == "got 'class 1' as a reference of itself; name other classes to contrast it with"


@pytest.mark.parametrize(
    ("target", "said"),
    [(seewhy.Probability(1), True), (seewhy.LogProbability(0), False), (seewhy.ReST(1), True), (seewhy.ReST(0), False)],
)
def test_saturation_is_said_only_where_the_gradient_vanishes(target, said):
    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.conv(x).mean((2, 3)) + torch.tensor([0.0, 30.0])

    notes = seewhy.explain(Sure(), torch.randn(2, 3, 9, 9), target, "hires_cam", "conv").notes
    assert any("nearly sure" in note for note in notes) == said


@pytest.mark.parametrize(
    ("method", "options"),
    [("saliency", {}), ("saliency", {"channels": "sum"}), ("input_x_gradient", {"channels": "max_abs"})],
)
def test_whether_a_map_is_signed_follows_its_options(method, options):
    e = seewhy.explain(squashing(nn.Identity(), 4), torch.randn(2, 3, 9, 9), 0, method, options=options)
    assert e.signed == bool((e.map < 0).any()) == (options == {"channels": "sum"})


def test_the_spread_of_an_ensemble_has_no_sign():
    model, images = squashing(nn.Identity(), 4), torch.randn(2, 3, 9, 9)
    e = seewhy.explain(model, images, 0, "hires_cam", ensemble=seewhy.Flips(), combine="variance")
    assert (e.signed, e.units) == (False, "squared")


def test_full_grad_says_what_it_misses_and_remarks_stay_with_their_method():
    plain = squashing(nn.Identity(), 4)
    plain[1] = nn.ReLU()
    images = torch.randn(2, 3, 9, 9)
    assert not any("miss the score" in note for note in seewhy.explain(plain, images, 0, "full_grad").notes)
    normed = nn.Sequential(plain[0], nn.GroupNorm(2, 4), *plain[1:])
    nn.init.normal_(normed[1].bias)
    found = seewhy.compare(normed, images, [0], ["full_grad", "guided_backprop", "saliency"])
    assert [any("miss the score" in note for note in each.notes) for each in found] == [True, False, False]
    assert [any("rectified" in note for note in each.notes) for each in found] == [False, True, False]
