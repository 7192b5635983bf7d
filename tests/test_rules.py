"""Guided backpropagation and deconvnet: every spelling of a rectifier, against a backward pass written by hand."""

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles_pixel import backward_by_hand
from seewhy.model.rules import ruled
from seewhy.types import MethodError

RULES = ("guided", "deconvnet")
Function = Callable[[Tensor], Tensor]
ZERO = torch.zeros((), dtype=torch.float64)

RELU: dict[str, Function] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda z: F.relu(z, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": Tensor.relu_,
    "clamp(min=0)": lambda z: z.clamp(min=0),
    "clamp_(min=0)": lambda z: z.clamp_(min=0),
    "torch.clamp with a tensor": lambda z: torch.clamp(z, min=ZERO),
    "clip(0)": lambda z: z.clip(0),
    "clamp_min(0)": lambda z: z.clamp_min(0),
    "clamp_min_(0.0)": lambda z: z.clamp_min_(0.0),
    "clamp_min with a tensor": lambda z: z.clamp_min(ZERO),
    "nn.Threshold": nn.Threshold(0, 0),
    "F.threshold in place": lambda z: F.threshold(z, 0, 0, inplace=True),
    "maximum(z, 0)": lambda z: torch.maximum(z, torch.zeros_like(z)),
    "maximum(0, z)": lambda z: torch.maximum(ZERO, z),
    "max(z, 0)": lambda z: torch.max(z, ZERO),
    "fmax(z, 0)": lambda z: torch.fmax(z, ZERO),
    "nn.LeakyReLU(0)": nn.LeakyReLU(0.0),
}
RELU6: dict[str, Function] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.hardtanh(0, 6)": lambda z: F.hardtanh(z, 0, 6),
    "F.hardtanh_(0, 6)": lambda z: F.hardtanh_(z, 0.0, 6.0),
    "clamp(0, 6)": lambda z: z.clamp(0, 6),
    "clamp_ with tensors": lambda z: z.clamp_(ZERO, ZERO + 6),
}
LEAKY: dict[str, Function] = {
    "nn.LeakyReLU": nn.LeakyReLU(0.25),
    "nn.LeakyReLU in place": nn.LeakyReLU(0.25, inplace=True),
    "F.leaky_relu": lambda z: F.leaky_relu(z, 0.25),
    "nn.PReLU": nn.PReLU(init=0.25, dtype=torch.float64),
    "nn.RReLU": nn.RReLU(0.125, 0.375).eval(),
}
SHAPES: dict[str, tuple[dict[str, Function], Callable[[float], float], Callable[[float], float]]] = {
    "relu": (RELU, lambda z: max(z, 0.0), lambda z: float(z > 0)),
    "relu6": (RELU6, lambda z: min(max(z, 0.0), 6.0), lambda z: float(0 < z < 6)),
    "leaky": (LEAKY, lambda z: z if z > 0 else 0.25 * z, lambda z: 1.0 if z > 0 else 0.25),
}
SPELLINGS = [
    pytest.param(shape, function, id=name)
    for shape, (functions, _, _) in SHAPES.items()
    for name, function in functions.items()
]


def weights(seed: int = 0) -> list[Tensor]:
    """Three layers. What comes back to the first two units is positive, so that their gates tell."""
    generator = torch.Generator().manual_seed(seed)
    first, second, last = (torch.randn(*size, generator=generator).double() for size in [(7, 4), (5, 7), (1, 5)])
    first[:2] = torch.tensor([[1.0, -1, 0, 0], [6, 0, 0, 0]])
    second[:, :2] = second[:, :2].abs()
    second[0] = torch.tensor([0.1, 0.1, 0, 0, 0, 0, 0])
    second[2:, 2:] *= 5
    return [first, second, last.abs() * torch.tensor([1, 1, 1, 1, -0.01])]


def inputs() -> Tensor:
    """The first unit of the first image is at 0 exactly, the second at 6; in the next image it is beyond."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    x[:2, :2] = torch.tensor([[1.0, 1.0], [2.0, 0.5]])
    return x


def run(f: Function, layers: list[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    value = leaf
    for number, layer in enumerate(layers):
        value = value @ layer.T
        value = f(value) if number < len(layers) - 1 else value
    return leaf, value[:, 0]


def backward(scores: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(scores.sum(), leaf, retain_graph=True)[0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("shape", "function"), SPELLINGS)
def test_every_spelling_follows_the_rule(rule: str, shape: str, function: Function) -> None:
    _, f, slope = SHAPES[shape]
    layers, x = weights(), inputs()
    leaf, scores = run(function, layers, x)
    with ruled(rule, [scores], leaf) as said:
        got = backward(scores, leaf)
    by_hand = [backward_by_hand(row, [w.tolist() for w in layers], f, slope, rule) for row in x.tolist()]
    torch.testing.assert_close(got, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert (said.rectifiers, dict(said.others)) == (2, {})
    plain = [backward_by_hand(row, [w.tolist() for w in layers], f, slope, "plain") for row in x.tolist()]
    assert (got - torch.tensor(plain, dtype=torch.float64)).abs().max() > 0.1


def test_the_net_of_the_tests_meets_zero_and_the_ceiling_and_both_signs() -> None:
    z = inputs() @ weights()[0].T
    assert z[0, :2].tolist() == [0, 6]
    assert (z > 6).any()
    assert (z < 0).any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("shape", "function"), SPELLINGS)
def test_many_questions_in_one_batched_backward_are_those_one_by_one(rule: str, shape: str, function: Function) -> None:
    leaf, scores = run(function, weights(), inputs())
    seeds = torch.randn(3, len(scores), dtype=torch.float64)
    with ruled(rule, [scores], leaf):
        batched = torch.autograd.grad(scores, leaf, seeds, retain_graph=True, is_grads_batched=True)[0]
        alone = torch.stack([torch.autograd.grad(scores, leaf, seed, retain_graph=True)[0] for seed in seeds])
    torch.testing.assert_close(batched, alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("shape", "function"), SPELLINGS)
def test_nothing_is_left_behind_also_by_an_error(rule: str, shape: str, function: Function) -> None:
    leaf, scores = run(function, weights(), inputs())
    before = backward(scores, leaf)
    with pytest.raises(RuntimeError, match="shape"), ruled(rule, [scores], leaf):
        torch.autograd.grad([scores], leaf, [scores[1:]])
    assert torch.equal(backward(scores, leaf), before)
    with ruled(rule, [scores], leaf):
        assert not torch.equal(backward(scores, leaf), before)
    assert torch.equal(backward(scores, leaf), before)


@pytest.mark.parametrize("rule", RULES)
def test_rules_end_where_they_were_asked_for(rule: str) -> None:
    """Rectifiers before the tensor that the gradient is taken of are neither counted nor ruled."""
    leaf, first = run(F.relu, weights(), inputs())
    then = F.relu(first * 2 - 1).sum()
    with ruled(rule, [then], first) as said:
        torch.autograd.grad(then, first, retain_graph=True)
        assert said.rectifiers == 1
        own = backward(first, leaf)
    assert torch.equal(own, backward(first, leaf))


def test_rectifiers_of_parameters_alone_are_not_counted() -> None:
    parameter = torch.randn(6, dtype=torch.float64, requires_grad=True)
    leaf, scores = run(F.relu, weights(), inputs())
    with ruled("guided", [scores * parameter.relu()], leaf) as said:
        assert said.rectifiers == 2


@pytest.mark.parametrize("rule", RULES)
def test_several_outputs_share_their_rectifiers(rule: str) -> None:
    leaf = inputs().requires_grad_()
    hidden = F.relu(leaf @ weights()[0].T)
    one, other = hidden.sum(1), F.relu(hidden - 0.5).sum(1)
    seeds = [torch.ones_like(one), -torch.ones_like(other)]
    with ruled(rule, [one, other], leaf) as said:
        together = torch.autograd.grad([one, other], leaf, seeds, retain_graph=True)[0]
        summed = torch.autograd.grad(one - other, leaf, torch.ones_like(one), retain_graph=True)[0]
    assert said.rectifiers == 2
    assert torch.equal(together, summed)


# What is no rectifier


def test_other_activation_functions_keep_their_gradient_and_are_counted() -> None:
    leaf = inputs().requires_grad_()
    scores = F.relu(leaf @ weights()[0].T)
    for other in (F.gelu, F.silu, F.hardswish, F.elu, F.selu, F.celu, F.mish, F.softplus, torch.tanh, torch.sigmoid):
        scores = other(scores)
    scores = F.hardtanh(scores.clamp(max=3).clamp_min(1e-6), -1, 1) @ torch.tensor([1.0, -1, 1, -1, 1, -1, 1]).double()
    with ruled("guided", [scores], leaf) as said:
        ruled_gradient = backward(scores, leaf)
    assert str(said) == (
        "1 of 12 activation functions rectified; left as they are: 1 hardtanh, 1 sigmoid, 1 tanh, 1 softplus, 1 mish, "
        "1 celu, 2 elu, 1 hardswish, 1 silu, 1 gelu"
    )
    assert (ruled_gradient - backward(scores, leaf)).abs().max() > 0


def test_a_maximum_of_two_branches_is_no_rectifier() -> None:
    leaf = inputs().requires_grad_()
    scores = torch.maximum(leaf, 1 - leaf).sum(1) + torch.maximum(leaf, torch.ones_like(leaf)).sum(1)
    with pytest.raises(MethodError), ruled("guided", [scores], leaf):
        pass


@pytest.mark.parametrize(
    ("tail", "rule", "text"),
    [
        (
            lambda x: F.gelu(F.gelu(F.silu(x))),
            "guided",
            "guided backpropagation needs rectifiers (ReLU, ReLU6, LeakyReLU, PReLU) between image and score, and this "
            "model has none, its activation functions being 2 gelu, 1 silu; use saliency or integrated_gradients, "
            "which need none",
        ),
        (
            lambda x: x * 2,
            "deconvnet",
            "deconvnet needs rectifiers (ReLU, ReLU6, LeakyReLU, PReLU) between image and score, and this model has "
            "none, its activation functions being none that is known; use saliency or integrated_gradients, which "
            "need none",
        ),
        (F.relu, "guidet", "no rule 'guidet' for rectifiers; choose 'guided' or 'deconvnet'"),
    ],
)
def test_what_cannot_be_ruled_is_said(tail: Function, rule: str, text: str) -> None:
    leaf = inputs().requires_grad_()
    scores = tail(leaf).sum(1)
    with pytest.raises(MethodError) as error, ruled(rule, [scores], leaf):
        pass
    assert str(error.value) == text


# Whole networks


class Positive(torch.autograd.Function):
    """A rectifier whose backward is written out, to be put into a copy of a network by hand."""

    @staticmethod
    def forward(ctx, z, ceiling, rule):
        ctx.save_for_backward(z)
        ctx.ceiling, ctx.rule = ceiling, rule
        return z.clamp(0, ceiling)

    @staticmethod
    def backward(ctx, above):
        (z,) = ctx.saved_tensors
        gate = (z > 0) & (z < ctx.ceiling) if ctx.rule == "guided" else torch.ones_like(z)
        return above.relu() * gate, None, None


class ByHand(nn.Module):
    def __init__(self, ceiling: float, rule: str) -> None:
        super().__init__()
        self.ceiling, self.rule = ceiling, rule

    def forward(self, z: Tensor) -> Tensor:
        return Positive.apply(z, self.ceiling, self.rule)


def exchanged(model: nn.Module, rule: str) -> nn.Module:
    changed = copy.deepcopy(model)
    for module in list(changed.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(module, name, ByHand(6.0 if isinstance(child, nn.ReLU6) else torch.inf, rule))
    return changed


def network(name: str) -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.get_model(name).double().eval()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18", "17 of 17 activation functions rectified"),
        ("mobilenet_v2", "35 of 35 activation functions rectified"),
        (
            "mobilenet_v3_small",
            "14 of 42 activation functions rectified; left as they are: 19 hardswish, 9 hardsigmoid",
        ),
    ],
)
def test_a_network_gives_what_its_copy_with_exchanged_modules_gives(name: str, said: str, rule: str) -> None:
    model, x = network(name), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    scores = model(leaf.clone())[:, 3]
    with ruled(rule, [scores], leaf) as rectified:
        got = backward(scores, leaf)
    wanted = torch.autograd.grad(exchanged(model, rule)(other)[:, 3].sum(), other)[0]
    assert str(rectified) == said
    assert wanted.abs().max() > 0
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12 * float(wanted.abs().max()))
    plain = backward(scores, leaf)
    assert (got - plain).abs().max() > 0.1 * plain.abs().max()


def test_rectifiers_called_as_functions_count_like_modules() -> None:
    """DenseNet's last rectifier is a bare F.relu, which hooks on modules and exchanged modules never see."""
    model, leaf = network("densenet121"), torch.randn(1, 3, 64, 64, dtype=torch.float64).requires_grad_()
    scores = model(leaf)[:, 3]
    with ruled("guided", [scores], leaf) as said:
        got = backward(scores, leaf)
    assert said.rectifiers == 1 + sum(isinstance(module, nn.ReLU) for module in model.modules()) == 121
    other = leaf.detach().clone().requires_grad_()
    wrong = torch.autograd.grad(exchanged(model, "guided")(other)[:, 3].sum(), other)[0]
    assert (got - wrong).abs().max() > 1e-3 * got.abs().max()


def test_a_module_used_twice_counts_twice() -> None:
    relu, leaf = nn.ReLU(inplace=True), inputs().requires_grad_()
    scores = relu(relu(leaf * 2) - 0.5).sum(1)
    with ruled("guided", [scores], leaf) as said:
        assert said.rectifiers == 2


@pytest.mark.parametrize("rule", RULES)
def test_checkpointed_parts_are_ruled_too(rule: str) -> None:
    from torch.utils.checkpoint import checkpoint

    layers = weights()
    leaf, scores = run(lambda z: checkpoint(F.relu, z, use_reentrant=False), layers, inputs())
    plain_leaf, plain = run(F.relu, layers, inputs())
    with ruled(rule, [scores], leaf) as said, ruled(rule, [plain], plain_leaf):
        assert torch.equal(backward(scores, leaf), backward(plain, plain_leaf))
    assert said.rectifiers == 2


def test_the_ruled_gradient_is_differentiable() -> None:
    leaf, scores = run(lambda z: F.leaky_relu(z).square() / 2, weights(), inputs())
    with ruled("guided", [scores], leaf):
        gradient = torch.autograd.grad(scores.sum(), leaf, create_graph=True)[0]
    assert torch.autograd.grad(gradient.square().sum(), leaf)[0].abs().max() > 0


def test_the_graph_is_freed_afterwards() -> None:
    gc.disable()
    leaf, scores = run(lambda z: z.clamp_min(0), weights(), inputs())
    with ruled("guided", [scores], leaf):
        backward(scores, leaf)
    alive = weakref.ref(leaf)
    del leaf, scores
    gc.enable()
    assert alive() is None
