"""One recorded forward pass: which module put out which tensor, and which tensors every path to the score crosses.

The record is the autograd graph itself. A tensor is known by its edge, the pair of graph node and output number, so no
activation is held by name, and an in-place operation after a module does not blur whose output was which.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

from seewhy.model.batch import Batch
from seewhy.model.forms import Channels, Form
from seewhy.model.forward import forward
from seewhy.model.functions import Functions
from seewhy.model.graph import (
    Edge,
    between,
    cuts_between,
    displaced_among,
    edge_of,
    kind,
    producers,
    readers_of,
    weighted,
)
from seewhy.model.kinds import (
    ACTIVATIONS,
    AVERAGING,
    COPIES,
    FOLDS,
    LENGTHS_OF_ONE,
    NORMS_OF_CHANNELS,
    SQUASHING,
    UPSAMPLING,
    VIEWS,
)
from seewhy.model.norms import recording
from seewhy.model.observe import outside_inference, passed_back, untouched, watched
from seewhy.model.owners import Seen, Traced, by_name, named, owners_of, rectified_by_function
from seewhy.nested import tensors
from seewhy.types import RUNS_ONLY, LayerError, Path

End = Literal["squashed", "weighted", ""]


@dataclass(frozen=True)
class Trace:
    """A model's forward pass on a probe, recorded as a graph from the score tensor back to the image.

    `gated`: the model ran a part that could have a gradient inside a `no_grad` or `enable_grad` block of its own, which
    the record does not follow. `edited`: the model wrote into its input. `extent`: for scores about places of the
    images, how many pixels along each axis each of them takes up, one after the other.
    """

    model: nn.Module
    image: Float[Tensor, "b c *s"]
    form: Form
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
    extent: tuple[float, ...] | None = None

    @staticmethod
    def of(model: nn.Module, batch: Batch, select: Callable[[Any], Tensor], told: Batch | None = None) -> "Trace":
        """Run the model once on this probe, and keep the graph.

        Args:
            model: left as it was; its hooks are gone afterwards.
            batch: what the model is given; the images are the caller's choice, noise will do.
            select: from the model's output to the tensor that the target reads, of which the score is a function.
            told: what an error shall speak of, where this is noise in place of it.

        Raises:
            ModelError: the model does not run on it.
            LayerError: the score tensor does not depend on the image.
        """
        leaf = outside_inference(batch.inputs).detach().clone().requires_grad_()
        with torch.enable_grad():
            given = leaf.clone()  # an in-place operation on a leaf is refused by autograd
        version = given._version
        found = model.named_modules()
        modules = {name: each for name, each in found if name and not isinstance(each, torch.jit.ScriptModule)}
        seen: list[Seen] = []

        def see(name: str, call: int, output: Any) -> None:
            seen.extend((name, call, path, tuple(tensor.shape), edge_of(tensor)) for path, tensor in tensors(output))

        functions = Functions()
        with untouched(model), recording(), watched(modules, see) as calls, functions:
            scores = select(forward(model, batch.of(given), told))
        root = edge_of(scores)
        source = torch.autograd.graph.get_gradient_edge(leaf).node
        nodes = () if root is None else between(root[0], source)
        if root is None or root[0] not in nodes:
            raise LayerError(
                f"the score tensor of shape {tuple(scores.shape)} does not depend on the image, so no layer explains "
                "it; pass a model whose forward pass is differentiable, without detach, inference_mode or numpy "
                f"inside, or take {RUNS_ONLY}"
            )
        outputs = named(seen, calls)
        owners = owners_of(outputs, _aliases(model, modules))
        owners |= rectified_by_function(functions.rectified, owners)
        generator = torch.Generator().manual_seed(0)
        return Trace(
            model=model,
            image=leaf,
            form=batch.form,
            score=root,
            projection=torch.randn(scores.shape, generator=generator).to(scores),
            modules=modules,
            calls=dict(calls),
            outputs=by_name([*outputs, *(traced for traced in owners.values() if traced.spot.rectifier)]),
            owners=owners,
            nodes=nodes,
            positions={node: position for position, node in enumerate(nodes)},
            readers=readers_of(nodes),
            cuts=cuts_between(nodes, root),
            joined=functions.joined,
            gated=functions.gated,
            edited=given._version != version,
        )

    def about(self, score: Float[Tensor, " n"], extent: tuple[float, ...]) -> "Trace":
        """The same pass with some of its numbers as the score: only what has a gradient of them is on the way.

        Of several levels that a detector joins, a box stands in one; the others get a gradient of zeros.

        Args:
            score: one number for each place and image, all images of a place beside each other.
            extent: how many pixels along each axis each of these takes up, one after the other.

        Raises:
            LayerError: the number does not depend on the image.
        """
        root = edge_of(score)
        reached = between(root[0], self.nodes[-1]) if root else ()
        alive = self._reached(score, reached)
        onward = {self.nodes[-1]}
        for node in reversed(reached):
            if node in alive and any(producer in onward for producer, _ in producers(node)):
                onward.add(node)
        nodes = tuple(node for node in reached if node in onward)
        if root is None or len(nodes) < 2:
            raise LayerError(
                "what is asked about has no gradient with respect to the image, so no layer explains it; does the "
                "model detach it, or round it? Ask for another number, or use a method without gradients and a layer"
            )
        return self.within(nodes, root, score=root, projection=torch.ones_like(score), extent=extent)

    def upto(self, edge: Edge) -> "Trace":
        """What of the way lies ahead of this tensor; the score stays."""
        ahead = set(between(edge[0], self.nodes[-1]))
        return self.within(tuple(node for node in self.nodes if node in ahead), edge)

    def within(self, nodes: tuple[Node, ...], root: Edge, **changes: Any) -> "Trace":
        """With these nodes alone on the way to `root`."""
        return replace(
            self,
            nodes=nodes,
            positions={node: position for position, node in enumerate(nodes)},
            readers=readers_of(nodes),
            cuts=cuts_between(nodes, root),
            **changes,
        )

    def _reached(self, score: Float[Tensor, " b"], nodes: Sequence[Node]) -> set[Node]:
        """The nodes at which the score's gradient is not zero."""
        alive: set[Node] = set()

        def of(node: Node) -> Callable[[Sequence[Tensor | None]], None]:
            def see(gradients: Sequence[Tensor | None]) -> None:
                if any(gradient is not None and bool(gradient.any()) for gradient in gradients):
                    alive.add(node)

            return see

        handles = [node.register_prehook(of(node)) for node in nodes]
        try:
            with passed_back(self.model):
                torch.autograd.grad(score, self.image, torch.ones_like(score), retain_graph=True, allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
        return alive

    @property
    def end(self) -> End:
        """What put out the scores, in any shape: a sigmoid or softmax, also if these are its logarithm; or weights."""
        node = self._behind(FOLDS | COPIES | LENGTHS_OF_ONE)
        if kind(node) in SQUASHING:
            return "squashed"
        return "weighted" if weighted(self._behind(FOLDS | COPIES | LENGTHS_OF_ONE | AVERAGING | UPSAMPLING)) else ""

    def _behind(self, kinds: Collection[str]) -> Node:
        """The last operation ahead of the scores that is of another kind."""
        node = self.score[0]
        while kind(node) in kinds and len(producers(node)) == 1:
            node = producers(node)[0][0]
        return node

    @cached_property
    def displaced(self) -> frozenset[Node]:
        """Nodes whose rows are not the image's places in their order."""
        return displaced_among(self.nodes)

    @property
    def headless(self) -> bool:
        """Whether the score tensor is features: a norm or a sum, pooled or picked, with no weights after it."""
        node, through = self.score[0], VIEWS | AVERAGING | ACTIVATIONS | {"NativeDropout"}
        while kind(node) in through and len(before := self._before(node)) == 1:
            node = before[0]
        summed = kind(node) == "Add" and len(self._before(node)) == 2
        return summed or kind(node) in NORMS_OF_CHANNELS | {"NativeLayerNorm"}

    def _before(self, node: Node) -> list[Node]:
        return [producer for producer, _ in producers(node) if producer in self.positions]

    def cuts_of(self, edge: Edge) -> tuple[Edge, ...]:
        """The tensors that every path from the image to this one crosses, itself first."""
        return cuts_between(between(edge[0], self.nodes[-1]), edge)

    @property
    def size(self) -> tuple[int, ...]:
        """The image's spatial size."""
        return tuple(self.image.shape[2:])

    @property
    def frames(self) -> int:
        """How many pictures of each video a model gets that takes `(b t c h w)`; else 0."""
        return self.size[0] if self.form == Channels(2) else 0

    def is_batch(self, shape: Sequence[int]) -> bool:
        """Whether the first axis of a tensor can be the images, or their frames one video after the other."""
        return len(shape) > 0 and shape[0] in (len(self.image), len(self.image) * self.frames)

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

    @property
    def extents(self) -> list[list[tuple[float, ...]]]:
        """For each place that the score is about, and each image, how many pixels along each axis it takes up."""
        axes = len(self.size)
        each = [(self.extent or ())[start : start + axes] for start in range(0, len(self.extent or ()), axes)]
        return [each[start : start + len(self.image)] for start in range(0, len(each), len(self.image))]

    def gradients_by_place(self, edge: Edge) -> list[Float[Tensor, "..."] | None]:
        """The gradient at an edge of the numbers of each place that the score is about."""
        alone = torch.eye(len(self.extents)).to(self.projection).repeat_interleave(len(self.image), 1)
        return [replace(self, projection=own).gradients([edge])[0] for own in alone]

    def gradients(self, edges: Sequence[Edge]) -> list[Float[Tensor, "..."] | None]:
        """Gradients of a fixed random projection of the score tensor at these edges; None where there are none."""
        if not edges:
            return []
        with passed_back(self.model):
            found = torch.autograd.grad(
                [GradientEdge(*self.score)],
                [GradientEdge(*edge) for edge in edges],
                grad_outputs=[self.projection],
                retain_graph=True,
                allow_unused=True,
            )
        return list(found)


def _aliases(model: nn.Module, modules: Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """All names of each module that goes by one of these."""
    found: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found.setdefault(module, []).append(name)
    return {name: found[module] for name, module in modules.items()}
