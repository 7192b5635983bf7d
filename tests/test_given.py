"""What users give and what models return: squashed scores, labels, inputs that the model cannot take."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy
from seewhy.subject import check_given
from seewhy.types import MethodError, ModelError, ShapeError, TargetError

# What a model that squashes its scores says


def squashing(last, classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes), last
    )


SQUASHED = [(nn.Sigmoid(), 1), (nn.Sigmoid(), 4), (nn.Softmax(1), 4)]
SQUASHED += [(nn.LogSigmoid(), 1), (nn.LogSigmoid(), 4), (nn.LogSoftmax(1), 4)]


@pytest.mark.parametrize(("last", "classes"), SQUASHED)
def test_scores_that_are_probabilities_are_not_squashed_again(last, classes):
    model, images = squashing(last, classes), torch.randn(2, 3, 9, 9)
    own = model(images).detach()
    own = own.exp() if "Log" in type(last).__name__ else own
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


# Arguments of another kind

WRONG = {
    "target": {
        "object()": "TargetError: got object as a target; give a class index, a label, a target or a function",
        "{'a': 1}": "TargetError: got dict as a target; give a class index, a label, a target or a function",
        "seewhy.Logit(3.5)": "TargetError: got 3.5 as a class; give its index or its label, or a list with one",
        "seewhy.Logit([True, 1])": "TargetError: got True as a class; give its index or its label",
        "seewhy.Rank(1.5)": "TargetError: got 1.5 as a place; give a whole number, where 1 is the predicted class",
        "seewhy.Contrast(gamma='x')": "TargetError: gamma is 'x'; it is a number, such as 1: how much the references",
        "seewhy.Contrast(references=2.5)": "TargetError: got 2.5 as a class; give its index or its label",
        "seewhy.Contrast(weighting=numpy.zeros(2))": "TargetError: weighting is array([0., 0.]); it is 'mean' or",
        "torch.sum": "TargetError: sum does not tell which arguments it takes; wrap it in a function of the output",
        "nn.ReLU()": "TargetError: the target returned (2, 4); return one score per image, here (2,)",
    },
    "method": {
        "3": "MethodError: got 3 as the method; give a method's name, such as 'grad_cam' (seewhy.METHODS lists them), "
        "or a function whose positional parameters name facts",
        "seewhy.METHODS['grad_cam']": "as the method; give a method's name",
        "max": "MethodError: got <built-in function max> as the method; give a method's name",
        "['grad_cam', 'cam']": "MethodError: got 2 methods; give one, or did you mean compare, which takes several?",
    },
    "layer": {
        "3.5": "LayerError: got 3.5 as the layer; give a layer's name, the module itself, or several of them",
        "['1', None]": "LayerError: got ['1', None] as the layer; give a layer's name",
    },
    "args": {"3": "ModelError: got int as args; they are a tuple of the model's further inputs: args=(x,)"},
    "kwargs": {
        "5": "ModelError: got int as kwargs; they are a dictionary of the model's keyword arguments: "
        "kwargs={'mask': x}",
        "{1: 2}": "ModelError: got dict as kwargs; they are a dictionary of the model's keyword arguments",
    },
    "options": {
        "5": "MethodError: got 5 as options; give a dictionary from names to values, such as {'rectify': False}",
        "{3: 4}": "MethodError: grad_cam has no option 3; its options are: rectify",
    },
    "rectify": {"'no'": "MethodError: the option rectify of grad_cam is 'no'; it takes bool"},
    "align": {"[]": "MethodError: align is []; it is 'measured', 'analytic' or 'tile': choose one of them"},
    "layout": {"3": "LayerError: got 3 as the layout; write one letter for each axis, such as layout='b h w c'"},
    "ensemble": {
        "'flips'": "MethodError: got 'flips' as the ensemble; give seewhy.Noise(), seewhy.Flips(), seewhy.Scales(), or "
        "several of them",
        "3": "MethodError: got 3 as the ensemble; give seewhy.Noise()",
        "seewhy.Flips": "as the ensemble; give seewhy.Noise(), seewhy.Flips(), seewhy.Scales(), or several of them",
        "[seewhy.Flips(), 2]": "MethodError: got [Flips(axes=(-1,)), 2] as the ensemble; give seewhy.Noise()",
    },
    "combine": {
        "3": "MethodError: no way 3 of combining; choose 'mean' or 'mean_squares' or 'variance'",
        "'median'": "MethodError: no way 'median' of combining; choose 'mean' or 'mean_squares' or 'variance'",
    },
    "output": {
        "3.5": "ModelError: got 3.5 as output; give the key or index of the scores in the model's output, or a tuple "
        "of these where they are nested",
        "True": "ModelError: got True as output; give the key or index",
    },
    "labels": {
        "3": "TargetError: got 3 as labels; give a list with the name of each class, in the order of the scores",
        "'cats'": "TargetError: got 'cats' as labels; give a list with the name of each class",
        "[1, 2, 3, 4]": "TargetError: got [1, 2, 3, 4] as labels; give a list with the name of each class",
    },
    "preprocess": {"numpy.zeros(2)": "ModelError: got ndarray as preprocess, which does not tell where on the photo"},
    "differentiable": {"'yes'": "MethodError: differentiable is 'yes'; it is True or False: choose one of them"},
    "images": {
        "None": "ModelError: got NoneType for images, but it is not known how this model wants its photos",
        "3": "ModelError: got int for images, but it is not known how this model wants its photos",
    },
    "model": {"3": "ModelError: got int as the model; pass a torch.nn.Module, or load one by name: seewhy.load(...)"},
}
TRIED = """
import json, sys
import numpy, torch, seewhy
from torch import nn

model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
for verb, name, given in json.load(sys.stdin):
    try:
        asked = {"model": model, "images": torch.randn(2, 3, 9, 9), name: eval(given)}
        getattr(seewhy, verb)(asked.pop("model"), asked.pop("images"), **asked)
        print(json.dumps("nothing"))
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def test_an_argument_of_another_kind_gets_one_sentence():
    """In a process of its own, where types are not checked."""
    several = {"target": "targets", "method": "methods", "layer": "layers"}
    asked = [("explain", name, given) for name, known in WRONG.items() for given in known]
    asked += [
        ("compare", several.get(name, name), f"[{given}]" if name in several else given)
        for _, name, given in asked
        if name != "differentiable"
    ]
    of_layers = {"model", "images", "args", "kwargs", "output", "preprocess"}
    asked += [("layers", name, given) for verb, name, given in asked if verb == "explain" and name in of_layers]
    ran = subprocess.run([sys.executable, "-c", TRIED], input=json.dumps(asked), capture_output=True, text=True)
    for (verb, name, given), said in zip(asked, map(json.loads, ran.stdout.splitlines()), strict=True):
        kind = said.partition(": ")[0]
        assert issubclass(getattr(seewhy, kind, type(None)), seewhy.SeewhyError), (verb, name, given, said)
        assert "\n" not in said
        assert verb != "explain" or WRONG[name][given] in said, (name, given, said)


# Labels


def test_one_score_of_two_labelled_classes_speaks_for_the_second():
    model, images = squashing(nn.Identity(), 1), torch.randn(2, 3, 9, 9)
    assert seewhy.explain(model, images, labels=["healthy", "ill"]).target == ("ill", "ill")
    assert seewhy.explain(model, images, "ill", labels=["healthy", "ill"]).class_indices == (0, 0)
    told = "two labels for one score, whose index is 0: it speaks for 'ill'; -Logit(0) is what speaks for 'healthy'"
    assert told in seewhy.explain(model, images, 0, labels=["healthy", "ill"]).notes
    assert told not in seewhy.explain(model, images, 0).notes
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
        ({"input_ids": torch.zeros(1, 9)}, "with input_ids as images, in which no floating tensor (b c h w) of images"),
        (
            {"left": torch.zeros(1, 3, 9, 9), "right": torch.zeros(1, 3, 9, 9)},
            "got a dictionary with left, right as images, in which the tensors left, right may be images; give the",
        ),
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


OF_LOGITS = {
    "a contrast": (seewhy.Contrast(), seewhy.Contrast()),
    "the mean contrast": (seewhy.Contrast(weighting="mean"), seewhy.Contrast(weighting="mean")),
    "a difference": (seewhy.Logit(1) - seewhy.Logit(2), seewhy.Logit(1) - seewhy.Logit(2)),
    "the logarithm": (seewhy.LogProbability(1), seewhy.LogProbability(1)),
    "a residual": (seewhy.ReST(1), 2 * seewhy.LogProbability(1)),  # a softmax does not tell y alone
}
OF_SIGMOIDS = {
    "a contrast": (seewhy.Contrast(gamma=0.6), seewhy.Contrast(gamma=0.6)),
    "the mean contrast": (seewhy.Contrast(gamma=0.6, weighting="mean"), seewhy.Contrast(gamma=0.6, weighting="mean")),
    "a logit": (seewhy.Logit(1), seewhy.Logit(1)),
    "a residual": (seewhy.ReST(1), lambda output: output[:, 1] + nn.functional.logsigmoid(output[:, 1])),
}


ENDS = {
    "Softmax": nn.Softmax(1),
    "LogSoftmax": nn.LogSoftmax(1),
    "Sigmoid": nn.Sigmoid(),
    "LogSigmoid": nn.LogSigmoid(),
}


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "shapley_cam", "score_cam"])
@pytest.mark.parametrize(
    ("last", "what"),
    [
        *((last, what) for what in OF_LOGITS for last in ("Softmax", "LogSoftmax")),
        *((last, what) for what in OF_SIGMOIDS for last in ("Sigmoid", "LogSigmoid")),
    ],
)
@pytest.mark.filterwarnings("ignore::seewhy.MapWarning")  # on random weights some maps are zero
def test_what_needs_logits_is_the_same_with_and_without_a_last_softmax_or_sigmoid(last, what, method):
    of_probabilities, of_logits = (OF_LOGITS if "Softmax" in last else OF_SIGMOIDS)[what]
    plain, images = squashing(nn.Identity(), 4).double(), torch.randn(2, 3, 9, 9).double()
    nn.init.normal_(plain[4].weight)
    squashed = nn.Sequential(*plain[:5], ENDS[last])
    one = seewhy.explain(squashed, images, of_probabilities, method, layer="1")
    other = seewhy.explain(plain, images, of_logits, method, layer="1")
    torch.testing.assert_close(one.raw["1"], other.raw["1"])
    torch.testing.assert_close(one.scores, other.scores)
    assert other.raw["1"].any() or method == "grad_cam"


@pytest.mark.parametrize(
    ("last", "note", "titles"),
    [
        (
            nn.Softmax(1),
            "log p stands for the logit behind it: in a difference of two classes exactly, alone for the class against "
            "all others, and such a map fades where the model is sure",
            ("p(cat)", "log p(cat)"),
        ),
        (
            nn.Sigmoid(),
            "log p - log(1 - p) is read where logits are asked for, and is these",
            ("p(cat)", "logit(cat)"),
        ),
        (
            nn.LogSoftmax(1),
            "log p stands for the logit behind it: in a difference of two classes exactly, alone for the class against "
            "all others, and such a map fades where the model is sure",
            ("log p(cat)", "log p(cat)"),
        ),
        (
            nn.LogSigmoid(),
            "log p - log(1 - p) is read where logits are asked for, and is these",
            ("log p(cat)", "logit(cat)"),
        ),
    ],
)
def test_a_title_names_the_number_that_was_differentiated(last, note, titles):
    model, images = squashing(last, 4), torch.randn(2, 3, 9, 9)
    labels = ["cat", "dog", "cow", "hen"]
    logs, kind = isinstance(last, nn.LogSoftmax | nn.LogSigmoid), type(last).__name__.lower().removeprefix("log")
    p = model(images).detach()[:, 0]
    p = p.exp() if logs else p
    for target, title in (("cat", titles[0]), (seewhy.Probability("cat"), "p(cat)"), (seewhy.Logit("cat"), titles[1])):
        e = seewhy.explain(model, images, target, labels=labels)
        assert e.target == (title, title)
        assert e[0].caption()[0] == f"{title}  {100 * float(p[0]):.1f} %"
        assert e.probabilities == pytest.approx(p.tolist())
        read = "it is read, as it is or as p" if logs else "these are read, as they are or as log p"
        said = note if isinstance(target, seewhy.targets.classes.ClassScore) and target.kind == "logit" else read
        assert f"the model puts out {'log p' if logs else 'the probabilities p'} of a {kind}: {said}" in e.notes
        read = {"p(cat)": p, "log p(cat)": p.log(), "logit(cat)": p.logit()}[title]
        torch.testing.assert_close(e.scores, read)
    chosen = seewhy.explain(model, images, labels=labels)
    assert chosen.target[0].startswith(titles[0][:-5])
    by = "log p" if logs else "probability"
    assert f"target: the class that the model predicts, by its {by}, which the model puts out" in chosen.notes
    plain = seewhy.explain(squashing(nn.Identity(), 4), images, "cat", labels=labels)
    assert plain.target == ("cat", "cat")
    assert not any("puts out" in note for note in plain.notes)


def test_a_reference_of_itself_is_told():
    with pytest.raises(TargetError) as told:
        seewhy.explain(squashing(nn.Identity(), 4), torch.randn(2, 3, 9, 9), seewhy.Contrast(1, references=[0, 1]))
    assert str(told.value) == "got 'class 1' as a reference of itself; name other classes to contrast it with"


@pytest.mark.parametrize("last", ["softmax", "log_softmax"])
def test_a_sure_model_of_probabilities_is_told_the_way_out(last):
    model = squashing(nn.Softmax(1) if last == "softmax" else nn.LogSoftmax(1), 4)
    with torch.no_grad():
        model[4].bias[2] = 20.0
    asked = (1, -seewhy.Rank(2)) if last == "softmax" else (2, -seewhy.Rank(1), seewhy.Probability(1))
    for target in (None, *asked, [seewhy.Rank(1), seewhy.Logit(2)]):
        notes = seewhy.explain(model, torch.randn(2, 3, 9, 9), target, "hires_cam", rectify=False).notes
        assert (
            "the model is nearly sure, so the gradient of a probability nearly vanishes; explain the model without its "
            f"last {last}, whose logits keep it"
        ) in notes


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
    assert not any(
        "FullGrad is not complete here" in note for note in seewhy.explain(plain, images, 0, "full_grad").notes
    )
    normed = nn.Sequential(plain[0], nn.GroupNorm(2, 4), *plain[1:])
    nn.init.normal_(normed[1].bias)
    found = seewhy.compare(normed, images, [0], ["full_grad", "guided_backprop", "saliency"])
    assert [any("FullGrad is not complete here" in note for note in each.notes) for each in found] == [
        True,
        False,
        False,
    ]
    assert [any("rectified" in note for note in each.notes) for each in found] == [False, True, False]


def test_a_model_in_train_mode_is_explained_in_eval_mode_and_says_so():
    class Own(nn.Module):
        def forward(self, x):
            return functional.dropout(x, 0.5, self.training)

    plain = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    x = torch.rand(2, 3, 32, 32)
    for part in (nn.BatchNorm2d(8), nn.Dropout(0.5), Own()):
        model = nn.Sequential(plain[0], part, *plain[1:]).train()
        trained, used = seewhy.explain(model, x, 1), seewhy.explain(model.eval(), x, 1)
        assert torch.equal(trained.map, used.map)
        assert set(trained.notes) - set(used.notes) == {
            "the model is in train mode and explained in eval mode: batch norm by its running statistics, no dropout"
        }
    assert not [note for note in seewhy.explain(nn.Sequential(*plain).train(), x, 1).notes if "train mode" in note]
