"""Evidence: everything that can be known of one forward pass, by name, computed when first asked for.

This is the one place where models and methods meet. A method names the facts it needs as its positional parameters;
`call` looks them up here. The vocabulary is the properties of `Evidence`, and closed.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.model.capture import Capture, averaged
from seewhy.model.replay import Replay
from seewhy.model.tokens import Layout
from seewhy.tensor import spatial_mean
from seewhy.types import MethodError, Path, Target, TargetError, follow

PER_QUESTION = frozenset({"scores", "gradients", "class_weights", "scores_at", "score_tail"})
"""The facts that there are one of for each question; a method sees those of one question at a time."""

FACTS = PER_QUESTION | {"inputs", "activations"}
"""All facts: the names that a method's positional parameters may have."""


@cache
def needs(function: Callable[..., Any]) -> tuple[str, ...]:
    """The facts a method needs: the names of its positional parameters."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)


@dataclass(frozen=True)
class Option:
    """A keyword-only parameter of a method: its type and its default, which is the paper's choice."""

    type: Any
    default: Any


@cache
def options(function: Callable[..., Any]) -> dict[str, Option]:
    """A method's options: its keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: Option(p.annotation, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def call(
    function: Callable[..., Tensor], evidence: "Evidence", chosen: Mapping[str, Any]
) -> Float[Tensor, "q b *grid"] | Float[Tensor, "1 b *grid"]:
    """A method's maps for every question; of a method that depends on no question, one map that is true for all."""
    facts = {name: getattr(evidence, name) for name in needs(function)}
    asked = PER_QUESTION & facts.keys()
    shared = {name: fact for name, fact in facts.items() if name not in asked}
    each = range(len(evidence.questions) if asked else 1)
    maps = [function(**shared, **{name: facts[name][q] for name in asked}, **chosen) for q in each]
    for map in cast(list[Any], maps):  # a user's function may return anything
        if not isinstance(map, Tensor) or map.ndim != evidence.inputs.ndim - 1 or len(map) != len(evidence.inputs):
            got = tuple(map.shape) if isinstance(map, Tensor) else type(map).__name__
            raise MethodError(
                f"the method returned {got}; it returns one map for each image, without channels, here "
                f"{(len(evidence.inputs), *evidence.layout.grid)}"
            )
    return torch.stack(maps)


@dataclass(frozen=True)
class Backward:
    """The backward pass of some questions, run once, when the first layer asks for its gradients."""

    capture: Capture
    questions: tuple[Target, ...]
    rows: Tensor

    @cached_property
    def answers(self) -> list[Float[Tensor, " b"]]:
        """The scores, one vector for each question, with their graph back to the output."""
        with torch.enable_grad():
            given = [target(self.capture.output, self.rows) for target in self.questions]
        for score in cast(list[Any], given):  # a user's function may return anything
            if not isinstance(score, Tensor) or score.shape != self.rows.shape:
                got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
                raise TargetError(f"the target returned {got}; return one score per image, here ({len(self.rows)},)")
        return given

    @cached_property
    def told(self) -> tuple[Path, Tensor] | None:
        """Where the scores are read and their gradients with respect to it `(q ...)`, where the targets can tell.

        Never by autograd with respect to several outputs: one may be computed from another, and would count twice.
        """
        known = [_known_gradient(target, self.capture.output, self.rows) for target in self.questions]
        places = {gradient[0] for gradient in known if gradient}
        if len(places) == 1 and all(known):
            return next(iter(places)), torch.stack([gradient[1] for gradient in known if gradient])
        return None

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """The scores' gradients `(q ...)` with respect to every captured layer, as the layer's tensor is laid out."""
        layers = tuple(self.capture.activations)
        if self.told is not None:
            return self.capture.gradients([(follow(self.capture.output, self.told[0]), self.told[1])], layers)
        with torch.enable_grad():
            scores = torch.stack(self.answers)
        each = torch.eye(len(scores), dtype=scores.dtype, device=scores.device)[:, :, None].expand(
            -1, -1, len(self.rows)
        )
        return self.capture.gradients([(scores, each)], layers)

    def of_scores(self, path: Path) -> Tensor | None:
        """The scores' gradients `(q ...)` with respect to the score tensor, if nothing else of the output is read."""
        if self.told is not None:
            return self.told[1] if self.told[0] == path else None
        read = self.capture.output
        if not isinstance(read, Tensor) or not all(score.requires_grad for score in self.answers):
            return None
        create = self.capture.differentiable
        alone = [
            torch.autograd.grad(score, read, torch.ones_like(score), retain_graph=True, create_graph=create)[0]
            for score in self.answers
        ]
        return torch.stack(alone)


@dataclass(frozen=True)
class Head:
    """The last linear layer of a model that ends in pooling and one linear layer, with where its output is."""

    linear: nn.Linear | None
    path: Path


@dataclass(frozen=True)
class Evidence:
    """The facts about one layer and some questions. Each property is a fact, computed on first use.

    Args:
        capture: the forward pass.
        backward: the questions' backward pass, shared by all layers of the capture.
        layer: which captured layer `activations` and `gradients` are about.
        layout: how that layer's tensor becomes `(b c *grid)`.
        head: the model's last linear layer, where it has one; used only if this capture proves that it reads the means.
        replay: runs the model again on changed inputs or activations.
    """

    capture: Capture
    backward: Backward
    layer: str
    layout: Layout
    head: Head | None
    replay: Replay

    @property
    def questions(self) -> tuple[Target, ...]:
        """What is asked."""
        return self.backward.questions

    @cached_property
    def inputs(self) -> Float[Tensor, "b c *s"]:
        """The images as the model got them."""
        return self.replay.inputs

    @cached_property
    def scores(self) -> Float[Tensor, "q b"]:
        """The score of every question, of every image."""
        return _full(torch.stack(self.backward.answers))

    @cached_property
    def activations(self) -> Float[Tensor, "b c *grid"]:
        """What the layer put out, in float32 at least."""
        raw = self.capture.activations[self.layer]
        return _full(self.layout.to_cells(raw if self.capture.differentiable else raw.detach()))

    @cached_property
    def gradients(self) -> Float[Tensor, "q b c *grid"]:
        """d score / d activations.

        Where the model ends in global average pooling and one linear layer, and the graph of this very pass proves it,
        they are known without a backward pass: class weight / number of cells, the same at every cell.
        """
        known = self.pooled_class_weights
        if known is not None:
            cells = self.activations[0, 0].numel()
            ones = (1,) * (self.activations.ndim - 2)
            return (known / cells).reshape(*known.shape, *ones).expand(-1, *self.activations.shape)
        return _full(self.layout.to_cells(self.backward.gradients[self.layer]))

    @cached_property
    def class_weights(self) -> Float[Tensor, "q b c"]:
        """The weight of each channel's mean in the score.

        Raises:
            MethodError: the model does not end in global average pooling of this layer and one linear layer.
        """
        if self.pooled_class_weights is None:
            raise MethodError(
                f"CAM needs a model that ends in global average pooling of the layer and one linear layer, which "
                f"{self.layer!r} of this model is not followed by; use grad_cam, which generalizes it, or another layer"
            )
        return self.pooled_class_weights

    @cached_property
    def pooled_class_weights(self) -> Float[Tensor, "q b c"] | None:
        """The class weights; None unless the head reads the mean of these activations and puts out the scores."""
        if self.head is None:
            return None
        read, linear = follow(self.capture.output, self.head.path), self.head.linear
        pooled, scores = self.capture.head or (None, None) if linear is not None else (read, read)
        layer = self.capture.activations[self.layer]
        if pooled is None or scores is not read or (linear is not None and not _is_plain(linear)):
            return None
        means = spatial_mean(self.activations)
        if pooled.dtype != means.dtype or pooled.shape != means.shape or not averaged(pooled, layer):
            return None
        known = self.backward.of_scores(self.head.path)
        if known is None or not _same(pooled, means):
            return None
        return known if linear is None else _times(known, linear.weight)

    @property
    def scores_at(self) -> Sequence[Callable[[Tensor, Tensor], Tensor]]:
        """For each question its scores of changed images `(m c *s)`, the j-th made from image `rows[j]`."""

        def of(question: Target) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda inputs, rows: self.replay.scores_at((question,), inputs, rows)[0]

        return [of(question) for question in self.questions]

    @property
    def score_tail(self) -> Sequence[Callable[[Tensor, Tensor], Tensor]]:
        """For each question its scores if the layer had put out these `(m c *grid)`, the j-th for image `rows[j]`."""

        def of(question: Target) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda cells, rows: self.replay.score_tail((question,), self.layer, self.layout, cells, rows)[0]

        return [of(question) for question in self.questions]


def _known_gradient(target: Target, output: Any, rows: Tensor) -> tuple[Path, Tensor] | None:
    """The gradient that a target can tell without autograd; a hundred logits are asked for in one go by it."""
    tell = getattr(target, "gradient", None)
    return tell(output, rows) if tell is not None else None


def _times(cotangents: Float[Tensor, "q b k"], weight: Float[Tensor, "k c"]) -> Float[Tensor, "q b c"]:
    rows = cotangents.flatten(0, 1)
    if int(rows.count_nonzero()) * 8 > rows.numel():
        return cotangents @ weight
    return (rows.to_sparse() @ weight).unflatten(0, cotangents.shape[:2])  # of logits, one weight in a row is not zero


def _full(x: Tensor) -> Tensor:
    """At least float32: half-precision activations stay half in the capture, evidence and maps do not."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of a mean in a's precision."""
    tolerance = 64 * torch.finfo(a.dtype).eps
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.detach().abs().amax()))


def _is_plain(linear: nn.Linear) -> bool:
    """Whether the module computes W x + b and nothing else: no subclass (cosine heads, adapters), nobody's hooks."""
    hooks = (vars(linear)[name] for name in ("_forward_hooks", "_forward_pre_hooks"))
    return type(linear) is nn.Linear and not any(hooks)
