"""Each fact against what it says it is: by autograd on the plain model, by differences, by a full pass."""

import re
from functools import cached_property

import pytest
import torch
from torch import nn

import seewhy
from seewhy.attending import Attending
from seewhy.evidence import Evidence
from seewhy.facts import FACTS
from seewhy.types import MethodError


def model(tail="smooth", dtype=torch.float64):
    torch.manual_seed(0)
    ends = {
        "smooth": nn.Sequential(nn.Flatten(), nn.Linear(5 * 16, 7), nn.Tanh(), nn.Linear(7, 3)),
        "pooled": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)),
    }
    body = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU()]
    made = nn.Sequential(*body, *ends[tail])
    made[1].running_mean += torch.randn(4)
    made[1].bias.data += torch.randn(4)
    return made.to(dtype).eval()


PROPERTY = property | cached_property
X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def seen(asks, net=None, images=X, target=1, layer=None):
    """What a method is given under these names."""
    given = {}

    def spy(**facts):
        given.update(facts)
        return torch.eye(*images.shape[2:], dtype=images.dtype).expand(len(images), -1, -1)

    code = f"lambda {', '.join(asks)}, *, _spy: _spy({', '.join(f'{name}={name}' for name in asks)})"
    function = eval(code)
    function.__kwdefaults__ = {"_spy": spy}
    function.__annotations__ = {"_spy": object}
    try:
        seewhy.explain(net if net is not None else model(), images, target, function, layer)
    except MethodError:
        assert given  # a map of another size: what counts here is what was given
    return given


def test_input_gradients_and_those_of_changed_images():
    net = model()
    given = seen(["input_gradients", "input_gradients_at", "scores", "scores_at"], net)
    leaf = X.clone().requires_grad_()
    score = net(leaf)[:, 1]
    (expected,) = torch.autograd.grad(score.sum(), leaf)
    torch.testing.assert_close(given["input_gradients"], expected)
    torch.testing.assert_close(given["scores"].detach(), score.detach())
    rows = torch.tensor([1, 0, 1])
    torch.testing.assert_close(given["input_gradients_at"](X[rows], rows), expected[rows])
    torch.testing.assert_close(given["scores_at"](2 * X[rows], rows), net(2 * X[rows])[:, 1].detach())


def test_activations_and_gradients_of_changed_images():
    net = model()
    given = seen(["activations", "gradients", "gradients_at"], net, layer="2")
    rows = torch.tensor([1, 1, 0])
    activations, gradients = given["gradients_at"](X[rows], rows)
    torch.testing.assert_close(activations, given["activations"][rows])
    torch.testing.assert_close(gradients, given["gradients"][rows])
    moved, _ = given["gradients_at"](X[rows] + 1, rows)
    torch.testing.assert_close(moved, net[:3](X[rows] + 1).detach())


def test_scores_of_changed_images_with_a_graph():
    given = seen(["differentiable_scores_at", "input_gradients"])
    leaf = X.clone().requires_grad_()
    scores = given["differentiable_scores_at"](leaf, torch.arange(2))
    torch.testing.assert_close(torch.autograd.grad(scores.sum(), leaf)[0], given["input_gradients"])


def test_the_hessian_product_is_a_difference_of_gradients():
    net = model()
    given = seen(["activations", "gradients", "hessian_product"], net, layer="4")

    def gradient(activations):
        leaf = activations.clone().requires_grad_()
        return torch.autograd.grad(net[5:](leaf)[:, 1].sum(), leaf)[0]

    activations, step = given["activations"], 1e-5
    expected = (gradient(activations * (1 + step)) - gradient(activations * (1 - step))) / (2 * step)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(given["hessian_product"], expected, rtol=1e-6, atol=1e-8)
    assert float(seen(["hessian_product"], model("pooled"), layer="4")["hessian_product"].abs().max()) == 0


def test_bias_gradients_and_input_gradients_complete_the_score():
    net = nn.Sequential(*model("pooled")[:5], nn.Flatten(), nn.Linear(80, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    given = seen(["inputs", "input_gradients", "bias_gradients", "scores"], net)
    assert [tuple(products.shape[:2]) for products in given["bias_gradients"]] == [
        (2, 4),
        (2, 4),
        (2, 5),
        (2, 6),
        (2, 3),
    ]
    total = (given["inputs"] * given["input_gradients"]).flatten(1).sum(1)
    total = total + sum(products.flatten(1).sum(1) for products in given["bias_gradients"])
    torch.testing.assert_close(total, given["scores"].detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("target", [1, seewhy.Logit(1) - 2 * seewhy.Logit(0)])
def test_linear_gradients_are_given_exactly_where_the_score_is_linear(target):
    net = model("pooled")
    given = seen(["activations", "linear_gradients", "score_tail", "scores"], net, target=target)
    changed = given["activations"] + torch.randn(2, 5, 4, 4, dtype=torch.float64)
    drop = (given["linear_gradients"] * (changed - given["activations"])).flatten(1).sum(1)
    torch.testing.assert_close(given["score_tail"](changed, torch.arange(2)), given["scores"].detach() + drop.detach())
    for other in (seewhy.Probability(1), lambda output, _rows: output[:, 1] ** 2):
        assert seen(["linear_gradients"], net, target=other)["linear_gradients"] is None
    assert seen(["linear_gradients"], model("smooth"))["linear_gradients"] is None


def test_layers_together_come_shallow_to_deep_with_their_way_to_the_image():
    asks = ["activations_by_layer", "gradients_by_layer", "upsample_by_layer"]
    given = seen(asks, layer=["4", "2"])
    assert [tuple(a.shape) for a in given["activations_by_layer"]] == [(2, 4, 8, 8), (2, 5, 4, 4)]
    for name, place in (("2", 0), ("4", 1)):
        alone = seen(["activations", "gradients", "upsample"], layer=name)
        torch.testing.assert_close(given["activations_by_layer"][place], alone["activations"])
        torch.testing.assert_close(given["gradients_by_layer"][place], alone["gradients"])
        map = alone["activations"][:, 0]
        torch.testing.assert_close(given["upsample_by_layer"][place](map), alone["upsample"](map))
        assert alone["upsample"](map).shape == (2, 8, 8)


@pytest.mark.parametrize("rule", ["guided_gradients", "deconvnet_gradients"])
def test_gradients_by_a_rule_for_every_question_alike(rule):
    net = model()
    maps = [seewhy.explain(net, X, k, by_rule(rule)).map for k in range(3)]
    together = seewhy.compare(net, X, [0, 1, 2], [by_rule(rule)])
    for one, other in zip(maps, together, strict=True):
        torch.testing.assert_close(one, other.map)
    plain = seen(["input_gradients"], net, target=0)["input_gradients"].sum(1)
    assert not torch.allclose(maps[0], plain)
    told = next(note for note in together[0].notes if note.startswith("2 of 3 activation functions rectified; left as"))
    likeness = float(re.search(r"a map that correlates (-?[\d.]+) with it", told)[1])
    assert -1 < likeness < 1


def test_a_guided_map_says_how_little_it_depends_on_the_question():
    head = nn.Linear(5, 3)
    nn.init.constant_(head.weight, 0.5)  # all classes are the same
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()
    notes = seewhy.explain(net, X, 1, "guided_backprop").notes
    assert any(note.endswith("correlates 1.00 with it: it hardly depends on the question") for note in notes)
    single = nn.Sequential(*net[:4], nn.Linear(5, 1)).double()
    nn.init.constant_(single[4].weight, 0.5)
    assert "1 of 1 activation functions rectified" in seewhy.explain(single, X, 0, "guided_backprop").notes


def by_rule(rule):
    return eval(f"lambda {rule}: {rule}.sum(1)")


def test_the_facts_are_the_properties_of_the_records_of_evidence():
    apart = {"questions", "place", "alone", "tokens", "pooled_class_weights"}
    found = {
        name for record in (Evidence, Attending) for name, what in vars(record).items() if isinstance(what, PROPERTY)
    }
    assert {name for name in found if not name.startswith("_")} - apart == FACTS.keys()
