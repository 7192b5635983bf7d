"""One recorded forward pass: which module put out which tensor, and which tensors every path to the score crosses.

The record is the autograd graph itself. A tensor is known by its edge, the pair of graph node and output number, so no
activation is held by name, and an in-place operation after a module does not blur whose output was which.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.overrides import TorchFunctionMode

from seewhy.model.capture import Spot
from seewhy.model.graph import Edge, between, cuts_between, edge_of, kind, producers, readers_of, shape_of
from seewhy.model.observe import outside_inference, sets_grad_mode, untouched, watched
from seewhy.model.outputs import tensors
from seewhy.types import LayerError, ModelError, Path

_Seen = tuple[str, int, Path, tuple[int, ...], Edge | None]

_RECTIFIERS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu"),
    *("silu", "gelu", "mish", "softplus", "hardtanh", "hardswish"),
}
_RESHAPES = {"View", "Reshape", "ReshapeAlias", "UnsafeView", "Squeeze", "Unsqueeze", "Alias", "Clone", "ToCopy"}
_JOINS = {torch.cat, torch.concat, torch.concatenate}


@dataclass(frozen=True)
class Traced:
    """A tensor that a layer put out: `name` is the module, `module@2` its second call, or `module + relu`.

    `spot` is where a capture finds it; `edge` is None where the image has no part in it; `order` counts outputs as they
    came.
    """

    name: str
    spot: Spot
    shape: tuple[int, ...]
    edge: Edge | None
    order: int

    @property
    def path(self) -> Path:
        """Leads to the tensor inside an output that is a tuple or mapping."""
        return self.spot.index


@dataclass(frozen=True)
class Trace:
    """A model's forward pass on a probe, recorded as a graph from the score tensor back to the image.

    `gated`: the model ran a part that could have a gradient inside a `no_grad` or `enable_grad` block of its own, which
    the record does not follow. `edited`: the model wrote into its input.
    """

    model: nn.Module
    image: Float[Tensor, "b c *s"]
    score: Edge
    projection: Float[Tensor, "..."]
    modules: Mapping[str, nn.Module]
    calls: Mapping[str, int]
    outputs: Mapping[str, tuple[Traced, ...]]
    owners: Mapping[Edge, Traced]
    nodes: tuple[Node, ...]
    positions: Mapping[Node, int]
    readers: Mapping[Node, tuple[Node, ...]]
    cuts: tuple[Edge, ...]
    joined: Mapping[Node, tuple[int, ...]]
    gated: bool
    edited: bool

    @staticmethod
    def of(
        model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], select: Callable[[Any], Tensor]
    ) -> "Trace":
        """Run the model once on this probe, of which the first tensor is the image, and keep the graph.

        Args:
            model: left as it was; its hooks are gone afterwards.
            inputs: positional arguments; the values are the caller's choice, a noise image will do.
            kwargs: keyword arguments.
            select: from the model's output to the tensor that the target reads, of which the score is a function.

        Raises:
            LayerError: the score tensor does not depend on the image.
        """
        leaf, given, inputs, kwargs = _with_leaf(inputs, kwargs)
        version = given._version
        modules = {name: module for name, module in model.named_modules() if name}
        seen: list[_Seen] = []

        def see(name: str, call: int, output: Any) -> None:
            seen.extend((name, call, path, tuple(tensor.shape), edge_of(tensor)) for path, tensor in tensors(output))

        functions = _Functions()
        with untouched(model), torch.enable_grad(), watched(modules, see) as calls, functions:
            scores = select(model(*inputs, **kwargs))
        root = edge_of(scores)
        if root is None:
            raise LayerError(
                f"the score tensor of shape {tuple(scores.shape)} does not depend on the image, so no layer explains "
                "it; pass a model whose forward pass is differentiable, without detach, inference_mode or numpy inside"
            )
        outputs = _named(seen, calls)
        nodes = between(root[0], torch.autograd.graph.get_gradient_edge(leaf).node)
        owners = _owners(outputs)
        owners |= _functional(functions.rectified, owners)
        generator = torch.Generator().manual_seed(0)
        return Trace(
            model=model,
            image=leaf,
            score=root,
            projection=torch.randn(scores.shape, generator=generator).to(scores),
            modules=modules,
            calls=dict(calls),
            outputs=_by_name([*outputs, *(traced for traced in owners.values() if traced.spot.rectifier)]),
            owners=owners,
            nodes=nodes,
            positions={node: position for position, node in enumerate(nodes)},
            readers=readers_of(nodes),
            cuts=cuts_between(nodes, root),
            joined=functions.joined,
            gated=functions.gated,
            edited=given._version != version,
        )

    @property
    def squashed(self) -> bool:
        """Whether the score tensor is what a sigmoid or softmax put out, as it is or in another shape."""
        node = self.score[0]
        while kind(node) in _RESHAPES and len(producers(node)) == 1:
            node = producers(node)[0][0]
        return kind(node) in ("Sigmoid", "Softmax")

    def cuts_of(self, edge: Edge) -> tuple[Edge, ...]:
        """The tensors that every path from the image to this one crosses, itself first."""
        return cuts_between(between(edge[0], self.nodes[-1]), edge)

    @property
    def size(self) -> tuple[int, ...]:
        """The image's spatial size."""
        return tuple(self.image.shape[2:])

    def edge(self, name: str, path: Path | None = None) -> tuple[GradientEdge, tuple[int, ...]]:
        """A tensor that layer `name` (or `name@2`, `name + relu`) put out, as autograd knows it, and its shape.

        Of several in a tuple or mapping, the one at `path`, or the first.

        Raises:
            LayerError: no such output on the record, or one that the image has no part in.
        """
        for traced in self.outputs.get(name, ()):
            if traced.edge is not None and path in (None, traced.path):
                return GradientEdge(*traced.edge), traced.shape
        raise LayerError(f"layer {name!r} put out nothing that depends on the image; the record has {self.calls}")

    def gradients(self, edges: Sequence[Edge]) -> list[Float[Tensor, "..."] | None]:
        """Gradients of a fixed random projection of the score tensor at these edges; None where there are none."""
        try:
            with untouched(self.model):  # checkpointing runs parts of the model again in the backward pass
                found = torch.autograd.grad(
                    [GradientEdge(*self.score)],
                    [GradientEdge(*edge) for edge in edges],
                    grad_outputs=[self.projection],
                    retain_graph=True,
                    allow_unused=True,
                )
        except RuntimeError as error:
            if "use_reentrant=True" not in str(error):
                raise
            raise ModelError(
                "the model recomputes activations by reentrant checkpointing, which hides them from the graph; switch "
                "gradient checkpointing off, or use its non-reentrant form (use_reentrant=False)"
            ) from error
        return list(found)


class _Functions(TorchFunctionMode):
    """Notes what the graph does not keep: rectifiers called as functions, the lengths of what was joined, and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.rectified: list[tuple[Edge, str, Edge]] = []
        self.joined: dict[Node, tuple[int, ...]] = {}
        self.gated = False
        self._closed = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if sets_grad_mode(func):
            self.gated = self.gated or bool(args[0] and not self._closed)  # a capture runs the trunk without a graph
            self._closed = not args[0]
            return None if self._closed else func(*args)
        name = getattr(func, "__name__", "").strip("_")
        before = edge_of(args[0]) if name in _RECTIFIERS and args and isinstance(args[0], Tensor) else None
        result = func(*args, **(kwargs or {}))
        self.gated = self.gated or (self._closed and isinstance(result, Tensor) and result.requires_grad)
        after = edge_of(result) if before or func in _JOINS else None
        if before and after:
            self.rectified.append((before, name, after))
        elif after:
            parts, dim = _joined(*args, **(kwargs or {}))
            self.joined[after[0]] = tuple(part.shape[dim] for part in parts)
        return result


def _joined(tensors: Sequence[Tensor], dim: int = 0, **_options: Any) -> tuple[Sequence[Tensor], int]:
    return tensors, dim


def _with_leaf(
    inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Tensor, tuple[Any, ...], Mapping[str, Any]]:
    """The leaf, its copy, and the arguments with that copy in the image's place."""
    # the model gets a copy of the leaf, since an in-place operation on a leaf is refused by autograd
    for place, value in [*enumerate(inputs), *kwargs.items()]:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaf = outside_inference(value).detach().clone().requires_grad_()
            with torch.enable_grad():
                copy = leaf.clone()
            if isinstance(place, int):
                return leaf, copy, (*inputs[:place], copy, *inputs[place + 1 :]), kwargs
            return leaf, copy, inputs, {**kwargs, place: copy}
    raise LayerError("no image among the inputs: got no tensor of floating point numbers; pass the images first")


def _named(seen: Sequence[_Seen], calls: Mapping[str, int]) -> list[Traced]:
    return [
        Traced(name if calls[name] == 1 else f"{name}@{call}", Spot(name, call, path), shape, edge, order)
        for order, (name, call, path, shape, edge) in enumerate(seen)
    ]


def _by_name(outputs: Sequence[Traced]) -> dict[str, tuple[Traced, ...]]:
    found: dict[str, tuple[Traced, ...]] = {}
    for traced in outputs:
        found[traced.name] = (*found.get(traced.name, ()), traced)
    return found


def _owners(outputs: Sequence[Traced]) -> dict[Edge, Traced]:
    """Each tensor's outermost module: hooks fire inside out, so an enclosing one comes later.

    One that merely passes a tensor on (an Identity further down) does not take it over, nor does a tuple around it.
    """
    owners: dict[Edge, Traced] = {}
    for traced in outputs:
        if traced.edge is None:
            continue
        owner = owners.get(traced.edge)
        encloses = owner is not None and owner.spot.module.startswith(traced.spot.module + ".")
        if owner is None or (not traced.path and (owner.path or encloses)):
            owners[traced.edge] = traced
    return owners


def _functional(rectified: Sequence[tuple[Edge, str, Edge]], owners: Mapping[Edge, Traced]) -> dict[Edge, Traced]:
    """Rectifiers applied by function to a module's output, which no module puts out: `features + relu`."""
    found: dict[Edge, Traced] = {}
    for before, name, after in rectified:
        owner = owners.get(before)
        if owner is not None and after not in owners:
            spot = replace(owner.spot, rectifier=name)
            found[after] = Traced(f"{owner.name} + {name}", spot, shape_of(after), after, owner.order)
    return found
