"""Rectifiers that let something else back than the gradient: guided backpropagation and deconvnet.

The rules are laid on the autograd graph of a recorded forward pass, not on the model and not on its calls: whatever the
spelling of a rectifier (module, function, method, in-place, clamp, maximum), the graph has one node for it. Nothing
runs again, and neither the model nor its activations are touched.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from seewhy.model.graph import between, kind, saved
from seewhy.model.kinds import FLOORS, LARGEST, LEAKY, NO_RECTIFIERS
from seewhy.types import MethodError

Gradients = tuple[Tensor | None, ...]

_NAMES = {"guided": "guided backpropagation", "deconvnet": "deconvnet"}


@dataclass(frozen=True)
class Rectified:
    """How many rectifiers stand between image and scores, and which other activation functions, left as they are."""

    rectifiers: int
    others: Mapping[str, int]

    def __str__(self) -> str:
        """For the notes: "16 of 18 activation functions rectified; left as they are: 2 sigmoid"."""
        left = ", ".join(f"{number} {name}" for name, number in self.others.items())
        whole = self.rectifiers + sum(self.others.values())
        return f"{self.rectifiers} of {whole} activation functions rectified" + (left and f"; left as they are: {left}")


@contextmanager
def ruled(rule: str, scores: Sequence[Tensor], inputs: Tensor) -> Iterator[Rectified]:
    """Inside, a backward pass from `scores` to `inputs` follows the rule at every rectifier; on leaving none is left.

    For a rectifier f of z, with R what comes back from above:
    guided: f'(z) ReLU(R);  deconvnet: ReLU(R)

    f' is 1 where z > 0, and 0 elsewhere, at z = 0 too, where the library has 1 for clamp and 1/2 for maximum. Above a
    ceiling (ReLU6) it is 0, below zero a leaky rectifier's slope; deconvnet, which does not ask for z, knows neither.
    GELU, SiLU and their like are no rectifiers: they keep their gradient and are counted. A gate that is spelled with a
    rectifier, relu6(z + 3) / 6, cannot be told from one.

    Args:
        rule: "guided" or "deconvnet".
        scores: tensors that the backward pass starts from; one batched pass may ask many questions of them.
        inputs: what the gradients are taken with respect to: a leaf, or a tensor on the graph.

    Raises:
        MethodError: an unknown rule, or no rectifier between the inputs and the scores.
    """
    if rule not in _NAMES:
        raise MethodError(f"no rule {rule!r} for rectifiers; choose 'guided' or 'deconvnet'")
    leaf = torch.autograd.graph.get_gradient_edge(inputs).node
    roots = [score.grad_fn for score in scores if score.grad_fn is not None]
    nodes = dict.fromkeys(node for root in roots for node in between(root, leaf))
    rectifiers = [node for node in nodes if _rectifies(node)]
    others = Counter(kind(node).lower() for node in nodes if kind(node) in NO_RECTIFIERS and not _rectifies(node))
    if not rectifiers:
        raise MethodError(_without_rectifier(rule, others))
    with ExitStack() as stack:
        for node in rectifiers:
            for handle in _guided(node) if rule == "guided" else [node.register_hook(_open(node))]:
                stack.callback(handle.remove)
        yield Rectified(len(rectifiers), dict(others))


def _rectifies(node: Node) -> bool:
    """Whether the operation is max(z, 0), perhaps with a ceiling or a leak."""
    name = kind(node)
    if name == "Relu" or name in LEAKY:
        return True
    if name in FLOORS:
        return _is_zero(saved(node, FLOORS[name]))
    return name in LARGEST and _constant(node) is not None


def _is_zero(value: Any) -> bool:
    return value is not None and not torch.as_tensor(value).any()


def _constant(node: Node) -> Tensor | None:
    """The operand of a maximum that is no part of the graph, if it is zero."""
    sides = [
        saved(node, name)
        for (producer, _), name in zip(node.next_functions, ("self", "other"), strict=True)
        if producer is None
    ]
    return sides[0] if len(sides) == 1 and _is_zero(sides[0]) else None


def _guided(node: Node) -> list[Any]:
    """Hooks that let the positive part in, and where the library counts z = 0 as open, close it."""
    loose = kind(node) in LARGEST or kind(node) in ("Clamp", "ClampMin")
    return [node.register_prehook(_positive), *([node.register_hook(_strict(node))] if loose else [])]


def _positive(above: Gradients) -> Gradients:
    return tuple(None if gradient is None else gradient.clamp_min(0) for gradient in above)


def _strict(node: Node) -> Callable[[Gradients, Gradients], Gradients]:
    def close(below: Gradients, _above: Gradients) -> Gradients:
        z = saved(node, ("self", "other")[_place(node)])
        ceiling = saved(node, "max") if kind(node) == "Clamp" else None
        within = z > 0 if ceiling is None else (z > 0) & (z < ceiling)
        return tuple(None if gradient is None else gradient.where(within, 0) for gradient in below)

    return close


def _open(node: Node) -> Callable[[Gradients, Gradients], Gradients]:
    def let_through(below: Gradients, above: Gradients) -> Gradients:
        return tuple(_positive(above)[0] if place == _place(node) else each for place, each in enumerate(below))

    return let_through


def _place(node: Node) -> int:
    """Which operand is z: the first that is on the graph."""
    return 0 if node.next_functions[0][0] is not None else 1


def _without_rectifier(rule: str, others: Mapping[str, int]) -> str:
    listed = ", ".join(f"{number} {name}" for name, number in others.items()) or "none that is known"
    return (
        f"{_NAMES[rule]} needs rectifiers (ReLU, ReLU6, LeakyReLU, PReLU) between image and score, and this model has "
        f"none, its activation functions being {listed}; use saliency or integrated_gradients, which need none"
    )
