"""The verbs end to end on small networks: right maps in every setting, and one sentence each on bad input."""

import copy
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seewhy
from seewhy.types import LayerError, MapWarning, MethodError, ModelError, ShapeError, TargetError

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZE = {1: (24,), 2: (18, 14), 3: (10, 12, 8)}


class Net(nn.Module):
    """conv - ReLU - conv - ReLU - mean - linear, of any spatial rank."""

    def __init__(self, rank=2, wrap=lambda scores: scores, inplace=False):
        super().__init__()
        self.first, self.second = CONV[rank](3, 6, 3, padding=1, stride=2), CONV[rank](6, 8, 3, padding=1)
        self.act, self.head = nn.ReLU(inplace), nn.Linear(8, 5)
        self.wrap = wrap

    def forward(self, x, gain=None, *, shift=None):
        x = self.act(self.second(self.act(self.first(x))))
        x = x.flatten(2).mean(-1)
        x = x * gain if gain is not None else x
        scores = self.head(x)
        return self.wrap(scores + shift if shift is not None else scores)


def net(rank=2, seed=0, **kwargs):
    torch.manual_seed(seed)
    return Net(rank, **kwargs).double()


def images(rank=2, count=3):
    return torch.randn(count, 3, *SIZE[rank], generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def plain_grad_cam(model, x, classes):
    """Grad-CAM of the last rectified tensor, written out."""
    with torch.no_grad():
        a = F.relu(model.second(F.relu(model.first(x))))
    a.requires_grad_()
    scores = model.head(a.flatten(2).mean(-1))
    scores[range(len(x)), classes].sum().backward()
    weights = a.grad.flatten(2).mean(-1)
    return torch.einsum("bc,bc...->b...", weights, a.detach()).relu(), scores.detach()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_papers_map_of_the_predicted_class_at_the_last_layer(rank):
    model, x = net(rank), images(rank)
    e = seewhy.explain(model, x)
    classes = model(x).argmax(1).tolist()
    expected, scores = plain_grad_cam(model, x, classes)
    assert list(e.raw) == ["act@2"]
    torch.testing.assert_close(e.raw["act@2"], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(e.scores, scores[range(3), classes], rtol=1e-12, atol=0)
    assert e.class_indices == tuple(classes)
    assert e.map.shape == (3, *SIZE[rank])
    assert any("predicts" in note for note in e.notes)
    assert any("layer act@2" in note for note in e.notes)


def test_the_map_is_laid_as_asked():
    x = images()
    e = seewhy.explain(net(), x, target=1, align="tile")
    expected = F.interpolate(e.raw["act@2"][:, None], x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(e.map, expected, rtol=1e-10, atol=1e-12)
    assert e.placements == {"act@2": "tile"}


@pytest.mark.parametrize("method", [n for n, m in seewhy.METHODS.items() if not m.batchwise and m.layers != "tokens"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.filterwarnings("ignore::seewhy.MapWarning")  # on random weights some maps are zero
def test_a_batch_equals_singles_with_every_method(method, rank):
    model, x = net(rank), images(rank)
    together = seewhy.explain(model, x, [0, 1, 2], method)
    for n in range(3):
        alone = seewhy.explain(model, x[n : n + 1], n, method)
        torch.testing.assert_close(together.map[n], alone.map[0], rtol=1e-10, atol=1e-12)


def variants():
    bf16 = lambda model: model.bfloat16()  # noqa: E731
    return {
        "frozen": lambda m: m.requires_grad_(False),
        "training": lambda m: m.train(),
        "bf16": bf16,
        "compiled": lambda m: _warm(m),
        "wrapped": lambda m: torch.compile(m, backend="eager"),
    }


def _warm(model):
    model.compile(backend="eager")
    model(images())
    return model


@pytest.mark.parametrize("variant", list(variants()))
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_setting_does_not_matter(variant, mode):
    expected = seewhy.explain(net(), images(), 2)
    model = variants()[variant](net())
    x = images().bfloat16() if variant == "bf16" else images()
    with mode():
        e = seewhy.explain(model, x, 2)
    assert e.map.dtype == (torch.float32 if variant == "bf16" else torch.float64)
    close = (
        {"rtol": 0.1, "atol": 0.05 * float(expected.map.max())} if variant == "bf16" else {"rtol": 1e-9, "atol": 1e-12}
    )
    torch.testing.assert_close(e.map.double(), expected.map, **close)


def test_inputs_made_in_inference_mode():
    model = net()
    with torch.inference_mode():
        x = images() + 0
        e = seewhy.explain(model, x, 2)
    torch.testing.assert_close(e.map.clone(), seewhy.explain(net(), images(), 2).map)


@pytest.mark.parametrize("inplace", [True, False])
def test_inplace_rectifiers(inplace):
    expected, _ = plain_grad_cam(net(), images(), [2] * 3)
    e = seewhy.explain(net(inplace=inplace), images(), 2)
    torch.testing.assert_close(e.raw["act@2"], expected, rtol=1e-10, atol=1e-12)


class Output(dict):
    """As transformers' outputs: a mapping with attributes."""


class Pair(NamedTuple):
    """Two matrices, of which one is called what scores are called."""

    features: torch.Tensor
    logits: torch.Tensor


@dataclass
class Record:
    features: torch.Tensor
    logits: torch.Tensor


WRAPS = {
    "tuple": (lambda s: (s, s.new_zeros(7)), "scores read from output[0]"),
    "list": (lambda s: [s], None),
    "dict": (lambda s: {"features": s * 2, "logits": s}, "scores read from output['logits']"),
    "mapping": (lambda s: Output(logits=s), None),
    "a named tuple": (lambda s: Pair(s * 2, s), "scores read from output[1]"),
    "a dataclass": (lambda s: Record(s * 2, s), "scores read from output['logits']"),
    "loss first": (lambda s: (s.sum(), s), "scores read from output[1]"),
}


@pytest.mark.parametrize("kind", list(WRAPS))
def test_structured_outputs(kind):
    wrap, note = WRAPS[kind]
    e = seewhy.explain(net(wrap=wrap), images(), 2)
    expected, _ = plain_grad_cam(net(), images(), [2] * 3)
    torch.testing.assert_close(e.raw["act@2"], expected, rtol=1e-10, atol=1e-12)
    assert note is None or any(note in said for said in e.notes)


def test_a_function_of_several_tensors_needs_no_scores_but_a_class_does():
    model = net(wrap=lambda s: {"age": s * 2, "kind": s})
    found = seewhy.explain(model, images(), lambda output: output["kind"][:, 2] + output["age"][:, 0])
    both = seewhy.explain(net(), images(), lambda output: output[:, 2] + 2 * output[:, 0])
    torch.testing.assert_close(found.map, both.map, rtol=1e-10, atol=1e-12)
    for target in (None, 2, seewhy.Contrast(2)):
        kind, said = message(model=model, target=target)
        assert kind is ModelError
        assert "holds several tensors (['age'] (3, 5), ['kind'] (3, 5)); say which are the scores: output=" in said


def test_two_matrices_of_which_none_is_called_scores_are_not_guessed_at():
    model = net(wrap=lambda s: (s * 2, s))
    kind, said = message(model=model)
    assert kind is ModelError
    assert "several tensors ([0] (3, 5), [1] (3, 5)); say which are the scores: output=" in said
    torch.testing.assert_close(seewhy.explain(model, images(), 2, output=1).scores, net()(images())[:, 2].detach())
    assert message(output="logits")[1] == "the model returns one tensor, which has no ['logits']; leave output= out"


def test_an_output_can_be_named():
    model = net(wrap=lambda s: {"features": s * 2, "logits": s})
    e = seewhy.explain(model, images(), 2, output="features")
    torch.testing.assert_close(e.scores, 2 * seewhy.explain(model, images(), 2).scores)


def test_further_arguments_reach_the_model():
    x, gain, shift = images(), torch.full((3, 8), 0.5, dtype=torch.float64), torch.ones(3, 5, dtype=torch.float64)
    e = seewhy.explain(net(), x, 2, args=(gain,), kwargs={"shift": shift}, align="tile")
    torch.testing.assert_close(e.scores, net()(x, gain, shift=shift)[:, 2])
    plain = seewhy.explain(net(), x, 2, align="tile")
    torch.testing.assert_close(e.map, plain.map / 2, rtol=1e-9, atol=1e-12)


class ByName(nn.Module):
    """As transformers' models: everything by keyword, the images not first; with an answer for each text."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, input_ids=None, pixel_values=None, gain=None):
        return {"logits": self.net(pixel_values, gain) + input_ids.sum()}


@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "ablation_cam", "saliency", "guided_backprop", "rise"])
def test_a_dictionary_of_inputs_finds_the_images_by_itself(method):
    x, gain = images(), torch.rand(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    inputs = {"input_ids": torch.tensor([1, 2]), "pixel_values": x, "gain": gain}
    options = {"masks": 8} if method == "rise" else {}
    named = seewhy.explain(ByName(), inputs, [0, 1, 2], method, options=options)
    plain = seewhy.explain(net(wrap=lambda s: s + 3), x, [0, 1, 2], method, args=(gain,), options=options)
    torch.testing.assert_close(named.map, plain.map, rtol=1e-10, atol=1e-12)
    assert list(inputs) == ["input_ids", "pixel_values", "gain"]


def test_a_comparison_equals_single_explanations():
    model, x = net(), images()
    methods, layers = ["grad_cam", "layer_cam", "eigen_cam", "cam"], [None, "first", ["first", "second"]]
    grid = iter(seewhy.compare(model, x, [0, seewhy.Logit(1) - seewhy.Logit(2)], methods[:3], layers))
    for target in (0, seewhy.Logit(1) - seewhy.Logit(2)):
        for method in methods[:3]:
            for layer in layers:
                one, other = next(grid), seewhy.explain(model, x, target, method, layer)
                torch.testing.assert_close(one.map, other.map, rtol=1e-10, atol=1e-12)
                assert (one.target, one.method, one.layers) == (other.target, other.method, other.layers)


def test_many_questions_are_chunked_without_a_change(monkeypatch):
    model, x = net(), images()
    together = seewhy.compare(model, x, list(range(5)), ["grad_cam", "eigen_cam"])
    monkeypatch.setattr("seewhy.observation._GRADIENT_BYTES", 1)
    apart = seewhy.compare(model, x, list(range(5)), ["grad_cam", "eigen_cam"])
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one.map, other.map)


@pytest.mark.parametrize("target", [seewhy.Logit(1), seewhy.Probability(1), seewhy.Logit(1) - 0.5 * seewhy.Logit(2)])
def test_the_closed_form_of_a_linear_head_is_the_gradient(target):
    model, x = net(), images()
    for method in ("grad_cam", "grad_cam_pp", "hires_cam", "layer_cam"):
        known = seewhy.explain(model, x, target, method)
        found = seewhy.explain(net(wrap=lambda scores: scores + 0), x, target, method)  # hides the linear head
        torch.testing.assert_close(known.map, found.map, rtol=1e-9, atol=1e-12)


def test_a_linear_head_that_does_not_read_the_means_is_not_taken_for_one():
    class Twisted(Net):
        def forward(self, x):
            a = self.act(self.second(self.act(self.first(x))))
            return self.head(a.flatten(2).mean(-1) + 0.1 * a.flatten(2).amax(-1))

    torch.manual_seed(0)
    model, x = Twisted().double(), images()
    with pytest.raises(MethodError, match="CAM needs a model that ends in global average pooling"):
        seewhy.explain(model, x, 1, "cam")
    a = F.relu(model.second(F.relu(model.first(x)))).detach().requires_grad_()
    g = torch.autograd.grad(model.head(a.flatten(2).mean(-1) + 0.1 * a.flatten(2).amax(-1))[:, 1].sum(), a)[0]
    torch.testing.assert_close(seewhy.explain(model, x, 1, "hires_cam").raw["act@2"], (g * a).sum(1).detach())


def by_autograd(tail, x, score):
    """Gradient times activation of the last rectified tensor of `net()`, summed over channels, written out."""
    model = net()
    a = F.relu(model.second(F.relu(model.first(x)))).detach().requires_grad_()
    return (torch.autograd.grad(score(tail(a)).sum(), a)[0] * a.detach()).sum(1)


class Cosine(nn.Linear):
    def forward(self, x):
        return super().forward(x / x.norm(dim=1, keepdim=True))


def hooked():
    head = nn.Linear(8, 5)
    head.register_forward_hook(lambda m, i, o: -o)
    return head


@pytest.mark.parametrize("head", [lambda: Cosine(8, 5), hooked])
def test_a_head_that_is_more_than_linear_is_not_taken_for_linear(head):
    model, x = net(), images()
    model.head = head().double()
    expected = by_autograd(lambda a: model.head(a.mean((2, 3))), x, lambda s: s[:, 1])
    torch.testing.assert_close(seewhy.explain(model, x, 1, "hires_cam").raw["act@2"], expected)


def test_equal_values_are_no_proof_of_a_linear_head():
    class Residual(Net):
        def forward(self, x):
            a = self.act(self.second(self.act(self.first(x))))
            return self.head((a + 0.0 * a.square()).mean((2, 3)))

    torch.manual_seed(0)
    with pytest.raises(MethodError, match="CAM needs"):
        seewhy.explain(Residual().double(), images(), 1, "cam", layer="act@2")


READ = {
    "a contrast": (seewhy.Logit(1) - seewhy.Logit(2), lambda s: s[:, 1] - s[:, 2]),
    "a probability": (seewhy.Probability(1), lambda s: s.softmax(1)[:, 1]),
    "a function": (lambda output: output["logits"].square().sum(1), lambda s: s.square().sum(1)),
}


@pytest.mark.parametrize("what", list(READ))
def test_outputs_that_are_made_of_one_another_count_once(what):
    model = net(wrap=lambda s: {"logits": s, "again": s, "more": s * 2})
    target, read = READ[what]
    expected = by_autograd(lambda a: model.head(a.mean((2, 3))), images(), read)
    torch.testing.assert_close(seewhy.explain(model, images(), target, "hires_cam").raw["act@2"], expected)


def test_many_questions_that_only_autograd_can_answer():
    model, x = net(), images()
    asked = [seewhy.Probability(k) for k in range(5)]
    for one, k in zip(seewhy.compare(model, x, asked), range(5), strict=True):
        torch.testing.assert_close(one.map, seewhy.explain(model, x, seewhy.Probability(k)).map)


def test_a_tensor_that_the_model_holds_elsewhere_too():
    class Stashing(Net):
        def forward(self, x):
            self.kept = self.act(self.second(self.act(self.first(x))))
            y = self.act(self.kept)
            return self.head((y + self.kept.square()).mean((2, 3)))

    torch.manual_seed(0)
    model = Stashing().double()
    expected = by_autograd(lambda a: model.head((a.relu() + a.square()).mean((2, 3))), images(), lambda s: s[:, 1])
    found = seewhy.explain(model, images(), 1, "hires_cam", layer="act@2").raw["act@2"]
    torch.testing.assert_close(found, expected)


def test_layers_are_fused_from_shallow_to_deep_however_they_are_named():
    orders = (["first", "second"], ["second", "first"])
    one, other = (seewhy.explain(net(), images(), 1, "layer_cam", layer=names) for names in orders)
    assert one.layers == other.layers == ("first", "second")
    assert torch.equal(one.map, other.map)
    twice = seewhy.explain(net(), images(), 1, layer=["second", "second"])
    assert torch.equal(twice.map, seewhy.explain(net(), images(), 1, layer="second").map)


def test_layer_cam_fuses_as_its_paper_does():
    alone = [seewhy.explain(net(), images(), 1, "layer_cam", layer=name).unit() for name in ("first", "second")]
    fused = seewhy.explain(net(), images(), 1, "layer_cam", layer=["first", "second"])
    torch.testing.assert_close(fused.map, torch.maximum(torch.tanh(2 * alone[0]), alone[1]))
    assert fused.units == "relative"


def test_a_model_that_puts_out_probabilities():
    model, x = net(wrap=lambda s: s.softmax(1)), images()
    e = seewhy.explain(model, x, seewhy.Probability(2))
    torch.testing.assert_close(e.scores, model(x)[:, 2].detach())
    assert any("by its probability" in note for note in seewhy.explain(model, x).notes)
    with torch.no_grad():
        model.head.bias[2] = 30.0
    assert any("nearly vanishes" in note for note in seewhy.explain(model, x).notes)


def test_a_single_score_says_what_its_map_shows():
    model = net()
    model.head = nn.Linear(8, 1).double()
    assert any("what speaks for it" in note for note in seewhy.explain(model, images()).notes)


def test_cam_on_a_network_that_pools_class_maps():
    """1x1 convolution to class maps, then their mean: the map of CAM is the class map itself."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    x = images()
    e = seewhy.explain(model, x, 3, "cam")
    torch.testing.assert_close(e.raw["2"], model[:3](x)[:, 3].detach())


BEHIND = {
    "a probability": (seewhy.Probability(1), lambda s: s.softmax(1)[:, 1]),
    "a logarithm for each": (
        [seewhy.LogProbability(n) for n in (0, 2, 4)],
        lambda s: s.log_softmax(1)[range(3), [0, 2, 4]],
    ),
    "a contrast": (seewhy.Contrast(1, references=[2], gamma=0.5), lambda s: s[:, 1] - 0.5 * s[:, 2]),
    "a residual less a class": (seewhy.ReST(1) - seewhy.Logit(0), lambda s: s[:, 1] + s.log_softmax(1)[:, 1] - s[:, 0]),
}


@pytest.mark.parametrize("what", list(BEHIND))
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"logits": s, "again": s}, lambda s: Pair(s * 2, s)])
def test_cam_of_any_question_weighs_by_what_the_score_gains_by_each_mean(what, wrap):
    """sum_k (dS / d mean A_k) A_k, wherever in the output the scores are: Z times Grad-CAM before its ReLU."""
    asked, score = BEHIND[what]
    model, x = net(), images()
    a = F.relu(model.second(F.relu(model.first(x)))).detach()
    means = a.mean((2, 3)).requires_grad_()
    (weights,) = torch.autograd.grad(score(model.head(means)).sum(), means)
    found = seewhy.explain(net(wrap=wrap), x, asked, "cam").raw["act@2"]
    torch.testing.assert_close(found, torch.einsum("bc,bchw->bhw", weights, a))


def test_cam_of_a_function_of_a_structured_output_says_what_is_missing():
    read = lambda output: output["logits"].softmax(1)[:, 1] + output["more"][:, 0]  # noqa: E731
    kind, said = message(model=net(wrap=lambda s: {"logits": s, "more": s * 2}), target=read, method="cam")
    assert kind is MethodError
    assert said == (
        "CAM needs the gradient of the question with respect to the class scores, which a function of an output of "
        "several tensors does not tell; ask by a class, a target such as Probability(3), or sums of these, or use "
        "grad_cam"
    )


def test_options_and_the_signed_form():
    model, x = net(), images()
    signed = seewhy.explain(model, x, 1, rectify=False, align="tile")
    torch.testing.assert_close(signed.raw["act@2"].relu(), seewhy.explain(model, x, 1).raw["act@2"])
    assert signed.signed
    assert (signed.raw["act@2"] < 0).any()
    assert signed.options == {"rectify": False}
    one, other = (seewhy.explain(model, x, 1, "grad_cam_pp", options={"alpha_normalize": n}) for n in (True, False))
    assert not torch.allclose(one.map, other.map)


def test_a_method_can_be_compared_with_itself_under_other_options():
    model, x = net(), images()
    concepts = [("dff", {"concepts": 3, "concept": r}) for r in range(3)]
    grid = seewhy.compare(model, x, [1], ["grad_cam", *concepts, ("dff", {"concepts": 3})], rectify=False)
    whole, parts = grid[4].raw["act@2"], [each.raw["act@2"] for each in grid.explanations[1:4]]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole, rtol=1e-9, atol=1e-12)
    assert [each.title for each in grid][:2] == ["Grad-CAM", "Deep feature factorization (concepts=3, concept=0)"]
    assert grid[0].options == {"rectify": False}


def test_a_function_of_ones_own_has_its_options_by_key_and_by_pair():
    def mine(activations, gradients, *, power: float = 2.0):
        return (activations * gradients.abs() ** power).sum(1)

    model, x = net(), images()
    alone = seewhy.explain(model, x, 1, mine, options={"power": 1.0})
    for way in ({"methods": [mine], "options": {mine: {"power": 1.0}}}, {"methods": [(mine, {"power": 1.0})]}):
        (other,) = seewhy.compare(model, x, [1], **way)
        assert other.options == alone.options == {"power": 1.0}
        torch.testing.assert_close(other.map, alone.map, rtol=0, atol=0)


def test_a_counterfactual_is_the_negated_question():
    model, x = net(), images()
    against = seewhy.explain(model, x, -seewhy.Logit(1), rectify=False)
    torch.testing.assert_close(against.map, -seewhy.explain(model, x, 1, rectify=False).map, rtol=1e-10, atol=1e-12)


def test_any_function_of_facts_is_a_method():
    def mine(activations, gradients, *, power: float = 2.0):
        return (activations * gradients.abs() ** power).sum(1)

    e = seewhy.explain(net(), images(), 1, mine, options={"power": 1.0})
    assert (e.method, e.options) == ("mine", {"power": 1.0})
    assert seewhy.explain(net(), images(), 1, seewhy.grad_cam).title == "Grad-CAM"


def test_a_differentiable_map_can_be_part_of_a_loss():
    model, x = net(), images()
    e = seewhy.explain(model, x, 1, "layer_cam", layer="second", differentiable=True)
    e.map.square().sum().backward()
    assert model.first.weight.grad.abs().sum() > 0
    torch.testing.assert_close(e.map.detach(), seewhy.explain(model, x, 1, "layer_cam", layer="second").map)
    assert not seewhy.explain(model, x, 1).map.requires_grad


def lopsided(seed=0):
    """A network whose cells look far off their tiles, so that their places are measured."""
    torch.manual_seed(seed)
    pad = lambda: nn.ZeroPad2d((2, 0, 2, 0))  # noqa: E731
    steps = [layer for width in (3, 6, 6) for layer in (pad(), nn.Conv2d(width, 6, 3, stride=2), nn.ReLU())]
    return nn.Sequential(*steps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).double()


def large(seed=3):
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_is_found_does_not_depend_on_which_image_came_first():
    one, other = lopsided(), lopsided()
    seewhy.explain(other, large(9).cumsum(-1) - 3, 1)
    e = seewhy.explain(one, large(), 1)
    assert e.placements == {"8": "measured"}
    assert torch.equal(e.map, seewhy.explain(other, large(), 1).map)


def test_new_weights_are_looked_at_anew():
    model = lopsided()
    first = seewhy.explain(model, large(), 1)
    model.load_state_dict(lopsided(seed=1).state_dict())
    e, fresh = seewhy.explain(model, large(), 1), seewhy.explain(lopsided(seed=1), large(), 1)
    assert e.notes == fresh.notes != first.notes
    assert torch.equal(e.map, fresh.map)


def test_a_changed_structure_is_looked_at_anew():
    model, fresh = lopsided(), lopsided()
    seewhy.explain(model, large(), 1)
    for each in (model, fresh):
        each[1].stride = (1, 1)
    e = seewhy.explain(model, large(), 1)
    assert torch.equal(e.map, seewhy.explain(fresh, large(), 1).map)
    assert any("16x16" in note for note in e.notes)


def test_arguments_may_choose_other_layers():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 5), nn.Linear(8, 5)

        def forward(self, x, which):
            return self.head(getattr(self, which)(x).relu().mean((2, 3)))

    model = Either().double()
    assert seewhy.explain(model, images(), 1, kwargs={"which": "a"}).layers == ("a + relu",)
    assert seewhy.explain(model, images(), 1, kwargs={"which": "b"}).layers == ("b + relu",)


@pytest.mark.filterwarnings("ignore:image .. the map is positive nowhere")  # of a method without a signed form
def test_methods_may_run_the_model_again_for_each_question():
    def ablation(activations, scores, score_tail):
        rows = torch.arange(len(activations)).repeat_interleave(activations.shape[1])
        without = activations.repeat_interleave(activations.shape[1], 0) * (
            1 - torch.eye(8, dtype=torch.float64)
        ).repeat(len(activations), 1).reshape(-1, 8, 1, 1)
        drops = scores[:, None] - score_tail(without, rows).reshape(len(activations), -1)
        return torch.einsum("bc,bchw->bhw", drops, activations)

    model, x = net(), images()
    for k, e in enumerate(seewhy.compare(model, x, [0, 3], [ablation])):
        a = seewhy.explain(model, x, 0, "eigen_cam").raw  # only for the layer's name
        kept = F.relu(model.second(F.relu(model.first(x)))).detach()
        weights = model.head.weight[(0, 3)[k]].detach() * kept.mean((2, 3))
        torch.testing.assert_close(e.raw[next(iter(a))], torch.einsum("bc,bchw->bhw", weights, kept))


def test_an_overlay_shows_what_was_explained_although_the_tensor_was_written_to():
    x = images()
    e, before = seewhy.explain(net(), x, 1), seewhy.explain(net(), images(), 1)
    x.zero_()
    assert e[0].overlay().tobytes() == before[0].overlay().tobytes()


def test_one_of_many_explanations_holds_its_own_map_alone():
    grid = seewhy.compare(net(), images(), list(range(5)))
    for e in grid:
        assert e.map.untyped_storage().nbytes() == e.map.numel() * e.map.element_size()
        assert e.raw["act@2"].untyped_storage().nbytes() == e.raw["act@2"].numel() * 8


def test_a_zero_map_is_said_so():
    model = net()
    with torch.no_grad():
        model.head.weight[2] = -1.0
    with pytest.warns(MapWarning, match="zero everywhere"):
        e = seewhy.explain(model, images(), 2)
    assert any("zero everywhere; it says nothing about places" in note for note in e.notes)
    assert (e.unit() == 0).all()


def test_the_warning_points_at_the_users_own_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import seewhy, torch\n"
        "n = torch.nn\n"
        "model = n.Sequential(n.Conv2d(3, 4, 3), n.ReLU(), n.AdaptiveAvgPool2d(1), n.Flatten(), n.Linear(4, 3))\n"
        "n.init.constant_(model[4].weight, -1)\n"
        "seewhy.explain(model, torch.randn(1, 3, 16, 16), 1)\n"
    )
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stderr
    assert said.startswith(f"{script}:5: MapWarning")


def test_a_class_agnostic_method_says_that_the_class_has_no_influence():
    one, other = (seewhy.explain(net(), images(), c, "eigen_cam") for c in (0, 1))
    assert torch.equal(one.map, other.map)
    assert any("does not look at the question" in note for note in one.notes)
    assert not any("does not look" in note for note in seewhy.explain(net(), images(), 1).notes)


def test_a_sure_model_and_its_probability():
    model = net()
    with torch.no_grad():
        model.head.bias[2] = 50.0
    e = seewhy.explain(model, images(), seewhy.Probability(2))
    assert any("nearly vanishes" in note for note in e.notes)
    contrast = seewhy.explain(model, images(), seewhy.Probability(2) - seewhy.Probability(1))
    assert any("nearly vanishes" in note for note in contrast.notes)


def test_one_item():
    e = seewhy.explain(net(), images().float().double(), [0, 1, 2])
    item = e[1]
    assert (item.class_index, item.target, len(e), len(list(e))) == (1, "class 1", 3, 3)
    torch.testing.assert_close(item.on_photo(), e.map[1])
    assert item.overlay().size == (14, 18)
    assert e[-1].class_index == 2
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"^no image {index}: 3 were explained, counted from 0$"):
            e[index]


def message(**changed):
    """What is said of a call with one thing wrong."""
    asked = {"model": net(), "images": images(), "target": 1, **changed}
    with pytest.raises(seewhy.SeewhyError) as caught:
        seewhy.explain(asked.pop("model"), asked.pop("images"), **asked)
    text = str(caught.value)
    assert "\n" not in text
    return type(caught.value), text


def broken(value):
    model = copy.deepcopy(net())
    with torch.no_grad():
        model.head.weight[0, 0] = value
    return model


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 18 * 14, 5).double()

    def forward(self, x):
        return self.head(x.flatten(1))


BAD = {
    "a class out of range": ({"target": 5}, TargetError, "class 5 is out of range; the model has 5 classes: 0 to 4"),
    "an unknown label": ({"target": "boxxer", "labels": [*"abcd", "boxer"]}, TargetError, "boxer"),
    "too many targets": ({"target": [1, 2]}, TargetError, "got 2 targets for 3 images"),
    "a typo in a layer": ({"layer": "secnd"}, LayerError, "no layer 'secnd'.*'second'.*seewhy.layers"),
    "a layer of several calls": ({"layer": "act"}, LayerError, "act@1.*act@2"),
    "a call that does not happen": ({"layer": "act@3"}, LayerError, "act@3"),
    "a model without a grid": ({"model": Flat()}, LayerError, "no layer"),
    "scores that are not numbers": ({"model": broken(float("nan"))}, ShapeError, "scores hold NaN or infinite"),
    "infinite weights": ({"model": broken(float("inf"))}, ShapeError, "scores hold NaN or infinite"),
    "images that are not numbers": ({"images": images() * float("nan")}, ShapeError, "images hold NaN"),
    "an empty batch": ({"images": images()[:0]}, ShapeError, r"empty batch of shape \(0, 3, 18, 14\)"),
    "an empty list": ({"images": []}, ShapeError, "empty list"),
    "integers": ({"images": images().long()}, ShapeError, "torch.int64; give floating numbers"),
    "a path for a bare model": ({"images": "cat.jpg"}, ModelError, "it is not known how this model wants its photos"),
    "an unknown method": ({"method": "gradcamm"}, MethodError, "no method 'gradcamm'.*grad_cam"),
    "an unknown option": (
        {"options": {"gama": 1}},
        MethodError,
        "grad_cam has no option 'gama'; its options are: rectify",
    ),
    "an unknown fact": ({"method": lambda colors: colors}, MethodError, "'colors', which is no fact"),
    "an unknown alignment": ({"align": "exact"}, MethodError, "align is 'exact'; choose one of 'measured'"),
    "an output of a tensor": ({"output": "logits"}, ModelError, r"one tensor, which has no \['logits'\]; leave"),
    "an output that is not there": (
        {"model": net(wrap=lambda s: {"a": s}), "output": "logits"},
        ModelError,
        "nothing at",
    ),
    "a single image": ({"images": images()[0]}, ShapeError, "give images.None."),
    "rows that are no images": ({"model": net(wrap=lambda s: s.repeat(2, 1))}, ShapeError, r"\(6, 5\) for 3 images"),
    "a layout of no layer": ({"layout": "b h w c"}, LayerError, "name the layer too"),
    "no layers": ({"layer": []}, LayerError, "as the layer"),
    "a fraction for a class": ({"target": torch.tensor(1.5)}, TargetError, "got float as a target"),
    "a wrapper of replicas": ({"model": nn.DataParallel(net())}, ModelError, "model.module"),
    "a target of the wrong shape": ({"target": lambda output, rows: output}, TargetError, "one score per image"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_input_gets_one_sentence(what):
    changed, kind, text = BAD[what]
    got, said = message(**changed)
    assert got is kind
    assert re.search(text, said), said


def test_nan_inside_the_network_names_the_layer():
    class Hidden(Net):
        def forward(self, x):
            return torch.nan_to_num(super().forward(x))

    torch.manual_seed(0)
    model = Hidden().double()
    with torch.no_grad():
        model.second.weight[0, 0, 0, 0] = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        kind, said = message(model=model, layer="second")
    assert kind is ShapeError
    assert "'second' put out NaN" in said


def test_a_layer_without_influence_is_named():
    class Side(Net):
        def forward(self, x):
            self.second(self.first(x))
            return self.head(F.pad(x.flatten(2).mean(-1), (0, 5)))

    torch.manual_seed(0)
    kind, said = message(model=Side().double(), layer="second")
    assert kind is LayerError
    assert "'second'" in said


def test_a_model_built_in_inference_mode_is_refused():
    with torch.inference_mode():
        model = net()
    kind, said = message(model=model)
    assert kind is ModelError
    assert "inference_mode" in said
