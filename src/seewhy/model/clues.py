"""What the recorded graph tells about a tensor's axes: the channel axis, the grids before it, and its patch tokens."""

from collections.abc import Iterator

from torch.autograd.graph import Node

from seewhy.model.graph import Edge, kind, producers, saved, shape_of, weighted
from seewhy.model.tokens import Clues, Grid, Layout, Positions, fits, possible
from seewhy.model.trace import Trace

_CHANNELS_FIRST = ("Convolution", "BatchNorm", "GroupNorm", "MaxPool", "AvgPool", "Upsample", "InstanceNorm")
_POINTWISE = {"Add", "Sub", "Mul", "Div", "Clone", "NativeDropout", "ToCopy", "Relu", "Hardtanh", "Silu", "Gelu"} | {
    "Hardswish", "Elu", "LeakyRelu", "Sigmoid", "Tanh", "Clamp", "ClampMin", "PreluKernel", "Alias"
}  # fmt: skip
_RESHAPES = {"View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "Flatten", "Unfold", "Im2Col"}


def layouts_of(trace: Trace, edge: Edge) -> list[Layout]:
    """Every layout that the tensor at this edge can have, by its shape and what the graph tells."""
    if kind(edge[0]) == "Softmax":  # attention weights: a square of tokens by tokens is no grid of the image
        return []
    return possible(shape_of(edge), trace.size, clues_of(trace, edge))


def clues_of(trace: Trace, edge: Edge) -> Clues:
    """What the graph tells about the tensor at this edge."""
    shape, start = shape_of(edge), trace.positions.get(edge[0], 0)
    upstream = trace.nodes[start:]
    channels = _made_with(trace, edge)
    if channels is None:
        channels = _read_with(trace, edge)
    sequence = len(shape) == 3
    return Clues(
        batch=trace.image.shape[0],
        channels=channels,
        unshaped=not any(kind(node) in _RESHAPES for node in upstream),
        grids=tuple(dict.fromkeys(_grids(trace, upstream))) if sequence else (),
        patches={axis: _patches_of(trace, edge, axis) for axis in (1, 2)} if sequence else {},
    )


def _grids(trace: Trace, upstream: tuple[Node, ...]) -> Iterator[Grid]:
    """Grids of the tensors of these nodes: what a convolution puts out, or what has the image's aspect."""
    rank = len(trace.size) + 2
    for node in upstream:
        shape = shape_of((node, 0))
        if len(shape) != rank or shape[0] != trace.image.shape[0]:
            continue
        if _channels_first(node):
            yield shape[2:]
        else:
            yield from (grid for grid in (shape[1:-1], shape[2:]) if fits(grid, trace.size))


def _channels_first(node: Node) -> bool:
    return kind(node).startswith(_CHANNELS_FIRST) or any(name in kind(node) for name in _CHANNELS_FIRST)


def _made_with(trace: Trace, edge: Edge) -> int | None:
    """The channel axis by the operation that made the tensor, seen through permutations and pointwise operations."""
    node, rank = edge[0], len(shape_of(edge))
    axes = list(range(rank))  # axis i of the tensor is axis axes[i] of the tensor of `node`
    while True:
        proven = _channel_axis(node, rank)
        if proven is not None:
            return axes.index(proven)
        axes = [_order(node, rank)[axis] for axis in axes]
        before = [e for e in producers(node) if e[0] in trace.positions and len(shape_of(e)) == rank]
        if not before or kind(node) not in _POINTWISE | {"Permute", "Transpose"}:
            return None
        node = before[0][0]


def _read_with(trace: Trace, edge: Edge) -> int | None:
    """The channel axis by an operation that reads the tensor as it is."""
    rank = len(shape_of(edge))
    for node in trace.nodes[: trace.positions.get(edge[0], 0)]:
        if edge in producers(node):
            if _channels_first(node):
                return 1
            if kind(node) == "NativeLayerNorm" and _channel_axis(node, rank) is not None:
                return rank - 1
            if kind(node) == "View" and any(
                reader.name().startswith(("Addmm", "Mm")) and (node, 0) in producers(reader) for reader in trace.nodes
            ):
                return rank - 1
    return None


def _channel_axis(node: Node, rank: int) -> int | None:
    """The channel axis of what this node puts out, if its operation has a fixed one."""
    if _channels_first(node):
        return 1
    if kind(node) == "NativeLayerNorm" and len(saved(node, "normalized_shape")) == 1:
        return rank - 1
    if kind(node) in ("View", "UnsafeView"):  # a Linear of more than two axes: (b*n, c) seen as (b, n, c)
        before = [e for e in producers(node) if kind(e[0]) in ("Addmm", "Mm")]
        if before and shape_of(before[0])[-1] == shape_of((node, 0))[-1]:
            return rank - 1
    return None


def _order(node: Node, rank: int) -> list[int]:
    """Which axis of its input each axis of a node's output is."""
    order = list(range(rank))
    if kind(node) == "Permute":
        return [_signed(dim) % rank for dim in saved(node, "dims")]
    if kind(node) == "Transpose":
        one, other = _signed(saved(node, "dim0")) % rank, _signed(saved(node, "dim1")) % rank
        order[one], order[other] = order[other], order[one]
    return order


def _signed(dim: int) -> int:
    return dim - 2**64 if dim >= 2**63 else dim  # autograd saves negative axes as unsigned numbers


def _patches_of(trace: Trace, edge: Edge, axis: int) -> Positions:
    """The tokens that the image had a part in, in the first tensor with so many: later ones are mixed by attention."""
    count = shape_of(edge)[axis]
    for node in reversed(trace.nodes[trace.positions.get(edge[0], 0) :]):
        shape = shape_of((node, 0))
        if len(shape) == 3 and shape[0] == trace.image.shape[0] and shape[axis] == count:
            return _compact(_from_image(trace, (node, 0), axis))
    return range(count)


def _compact(mask: tuple[bool, ...]) -> Positions:
    where = tuple(index for index, patch in enumerate(mask) if patch)
    row = range(where[0], where[0] + len(where)) if where else range(0)
    return row if tuple(row) == where else where


def _from_image(trace: Trace, edge: Edge, axis: int) -> tuple[bool, ...]:
    """For each index along an axis, whether the image has a part in it: followed through joins, slices and sums."""
    node, count = edge[0], shape_of(edge)[axis]
    if node not in trace.positions:
        return (False,) * count
    if node in trace.joined and _signed(saved(node, "dim")) in (axis, axis - 3):
        parts = zip(node.next_functions, trace.joined[node], strict=True)  # a part without gradient has no node
        return tuple(
            patch
            for (part, number), length in parts
            for patch in (_from_image(trace, (part, number), axis) if part else (False,) * length)
        )
    inputs = [e for e in producers(node) if e[0] in trace.positions]
    if kind(node) == "Slice" and _signed(saved(node, "dim")) in (axis, axis - 3):
        taken = slice(saved(node, "start"), saved(node, "end"), saved(node, "step"))
        return _from_image(trace, inputs[0], axis)[taken]
    alike = [e for e in inputs if len(shape_of(e)) == 3 and shape_of(e)[axis] == count]
    if weighted(node) or len(alike) < len(inputs):
        return (True,) * count
    return tuple(map(any, zip(*(_from_image(trace, e, axis) for e in alike), strict=True)))
