"""What the recorded graph tells about a tensor's axes: the channel axis, the grids before it, and its patch tokens."""

from collections.abc import Iterator, Set

from torch.autograd.graph import Node

from seewhy.model.forms import Patches
from seewhy.model.graph import Edge, kind, producers, saved, shape_of, weighted
from seewhy.model.kinds import CHANNELS_FIRST, ELEMENTWISE, LINEAR, PERMUTATIONS, PRODUCTS, RESHAPES, VIEWS
from seewhy.model.rows import in_rows
from seewhy.model.tokens import Clues, Grid, Layout, Positions, fits, possible
from seewhy.model.trace import Trace


def layouts_of(trace: Trace, edge: Edge) -> list[Layout]:
    """Every layout that the tensor at this edge can have, by its shape and what the graph tells."""
    if kind(edge[0]).endswith("Softmax") or _is_projection(trace, edge):
        return []  # the inside of an attention: weights of tokens by tokens, queries, keys, values
    if len(shape_of(edge)) == 3 and edge[0] in trace.displaced:
        return []  # however many rows there are, or channels, which may be as many as places too
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
        frames=trace.frames,
        channels=channels,
        unshaped=not any(kind(node) in RESHAPES for node in upstream),
        grids=tuple(dict.fromkeys(_grids(trace, upstream))) if sequence else (),
        patches={axis: _patches_of(trace, edge, axis) for axis in (1, 2)} if sequence else {},
        others=_others(trace) if sequence else (0, 0),
        rows=in_rows(trace, edge, trace.form) if isinstance(trace.form, Patches) and len(shape) == 2 else None,
    )


def _grids(trace: Trace, upstream: tuple[Node, ...]) -> Iterator[Grid]:
    """Grids of the tensors of these nodes: what a convolution puts out, or what has the image's aspect."""
    rank = len(trace.size) + 2
    for node in upstream:
        if kind(node) == "Im2Col":
            yield _unfolded(node)
        shape = shape_of((node, 0))
        if trace.frames and len(shape) == rank - 1 and _channels_first(node):
            yield shape[2:]
        if len(shape) != rank or shape[0] != trace.image.shape[0]:
            continue
        if _channels_first(node):
            yield shape[2:]
        else:
            yield from (grid for grid in (shape[1:-1], shape[2:]) if fits(grid, trace.size))


def _unfolded(node: Node) -> Grid:
    """The grid of the blocks that `unfold` cuts from its input."""
    size = shape_of(producers(node)[0])[2:]
    steps = zip(*(saved(node, name) for name in ("kernel_size", "dilation", "padding", "stride")), strict=True)
    return tuple(
        (pixels + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for pixels, (kernel, dilation, padding, stride) in zip(size, steps, strict=True)
    )


def _channels_first(node: Node) -> bool:
    return CHANNELS_FIRST.search(kind(node)) is not None


def _made_with(trace: Trace, edge: Edge) -> int | None:
    """The channel axis by an operation that made the tensor, seen through permutations and pointwise operations."""
    rank = len(shape_of(edge))
    waiting, seen = [(edge, tuple(range(rank)))], {edge}  # axis i of the tensor is axis axes[i] of what waits
    while waiting:
        (node, _), axes = waiting.pop()
        proven = _channel_axis(node, rank)
        if proven is not None:
            return axes.index(proven)
        if kind(node) in ELEMENTWISE | PERMUTATIONS:
            order = _order(node, rank)
            before = [e for e in producers(node) if e[0] in trace.positions and len(shape_of(e)) == rank]
            waiting += [(e, tuple(order[axis] for axis in axes)) for e in before if e not in seen]
            seen.update(before)
    return None


def _read_with(trace: Trace, edge: Edge) -> int | None:
    """The channel axis by an operation that reads the tensor as it is."""
    rank = len(shape_of(edge))
    for node in trace.readers.get(edge[0], ()):
        if _channels_first(node):
            return 1
        if kind(node) == "NativeLayerNorm" and _channel_axis(node, rank) is not None:
            return rank - 1
        rows = kind(node) == "View" and shape_of((node, 0))[-1] == shape_of(edge)[-1]
        if rows and any(kind(reader) in LINEAR for reader in trace.readers.get(node, ())):
            return rank - 1
    return None


def is_bare(trace: Trace, edge: Edge) -> bool:
    """Whether the tensor is what a convolution or linear map puts out: not yet rectified, normalised or added up."""
    return weighted(_source(trace, edge[0], VIEWS))


def _source(trace: Trace, node: Node, through: Set[str]) -> Node:
    """Upstream through such nodes, and through the addition of a bias, to the operation that made the values."""
    while True:
        before = [producer for producer, _ in producers(node) if producer in trace.positions]
        if not (kind(node) in through or (kind(node) == "Add" and len(before) == 1)):
            return node
        node = before[0]


def _is_projection(trace: Trace, edge: Edge) -> bool:
    """Whether the tensor is a query, key or value: a linear map of features, read by products of attention alone."""
    mapped = weighted(_source(trace, edge[0], VIEWS | {"NativeBatchNorm", "NativeLayerNorm"}))
    ends = _ends(trace, edge[0], VIEWS | {"Mul", "Div", "NativeLayerNorm"})
    return mapped and bool(ends) and all(_is_attention(trace, node) for node in ends)


def _ends(trace: Trace, start: Node, through: Set[str]) -> list[Node]:
    """The operations that read what a node put out, through such nodes."""
    readers, ends = list(trace.readers.get(start, ())), list[Node]()
    while readers:
        node = readers.pop()
        if kind(node) in through:
            readers += trace.readers.get(node, ())
        else:
            ends.append(node)
    return ends


def _is_attention(trace: Trace, node: Node) -> bool:
    """A product that is no linear map, which may be one with its weight: of two things made of the image, or ranked."""
    if kind(node) not in PRODUCTS:
        return "Attention" in kind(node)
    made = [producer for producer, _ in producers(node) if producer in trace.positions]
    ranked = any(kind(end).endswith("Softmax") for end in _ends(trace, node, VIEWS | {"Mul", "Div", "Add"}))
    return len(made) > 1 or ranked


def _is_unrolled(trace: Trace, first: Node, last: Node) -> bool:
    """Whether tokens were put into another order on every path in between, by an axis for each part of a window."""
    between = trace.nodes[trace.positions[last] : trace.positions[first]]
    crossed = {node for node, _ in trace.cuts}
    axes = len(trace.size) + 2
    return any(kind(node) == "Permute" and node in crossed and len(saved(node, "dims")) > axes for node in between)


def _channel_axis(node: Node, rank: int) -> int | None:
    """The channel axis of what this node puts out, if its operation has a fixed one."""
    if _channels_first(node):
        return 1
    if kind(node) == "NativeLayerNorm" and len(saved(node, "normalized_shape")) == 1:
        return rank - 1
    if kind(node) in ("View", "UnsafeView"):  # a Linear of more than two axes: (b*n, c) seen as (b, n, c)
        before = [e for e in producers(node) if kind(e[0]) in LINEAR]
        if before and shape_of(before[0])[-1] == shape_of((node, 0))[-1]:
            return rank - 1
    return None


def _order(node: Node, rank: int) -> list[int]:
    """Which axis of its input each axis of a node's output is."""
    order = list(range(rank))
    if kind(node) == "Permute":
        return [dim % rank for dim in saved(node, "dims")]
    if kind(node) == "Transpose":
        one, other = saved(node, "dim0") % rank, saved(node, "dim1") % rank
        order[one], order[other] = order[other], order[one]
    return order


def _patches_of(trace: Trace, edge: Edge, axis: int) -> Positions:
    """The tokens that the image had a part in, in the first tensor with so many: later ones are mixed by attention.

    None at all where they were put into an unknown order since.
    """
    count = shape_of(edge)[axis]
    for node in reversed(trace.nodes[trace.positions.get(edge[0], 0) :]):
        shape = shape_of((node, 0))
        if len(shape) == 3 and trace.is_batch(shape) and shape[axis] == count:
            return range(0) if _is_unrolled(trace, node, edge[0]) else _compact(_from_image(trace, (node, 0), axis))
    return range(count)


def _others(trace: Trace) -> tuple[int, int]:
    """How many tokens stand ahead of the patches and behind them, where such were first joined to them."""
    for node in reversed(trace.nodes):
        shape, sizes = shape_of((node, 0)), trace.joined.get(node, ())
        if len(shape) == 3 and trace.is_batch(shape) and sum(sizes) == shape[1]:
            patches = _compact(_from_image(trace, (node, 0), 1))
            if isinstance(patches, range) and len(patches) < shape[1]:
                return patches.start, shape[1] - patches.stop
    return 0, 0


def _compact(mask: tuple[bool, ...]) -> Positions:
    where = tuple(index for index, patch in enumerate(mask) if patch)
    row = range(where[0], where[0] + len(where)) if where else range(0)
    return row if tuple(row) == where else where


def _from_image(trace: Trace, edge: Edge, axis: int) -> tuple[bool, ...]:
    """For each index along an axis, whether the image has a part in it: followed through joins, slices and sums."""
    node, shape = edge[0], shape_of(edge)
    if node not in trace.positions:
        return (False,) * shape[axis]
    along = kind(node) in ("Cat", "Slice") and saved(node, "dim") % len(shape) == axis
    if along and node in trace.joined:
        parts = zip(node.next_functions, trace.joined[node], strict=True)  # a part without gradient has no node
        return tuple(
            patch
            for (part, number), length in parts
            for patch in (_from_image(trace, (part, number), axis) if part else (False,) * length)
        )
    inputs = [(e, _axis_before(node, e, shape, axis)) for e in producers(node) if e[0] in trace.positions]
    known = [(e, before) for e, before in inputs if before is not None]
    if along and kind(node) == "Slice":
        taken = slice(*(saved(node, name) for name in ("start", "end", "step")))
        return _from_image(trace, inputs[0][0], axis)[taken]
    if weighted(node) or len(known) < len(inputs):
        return (True,) * shape[axis]
    return tuple(map(any, zip(*(_from_image(trace, *source) for source in known), strict=True)))


def _axis_before(node: Node, source: Edge, shape: tuple[int, ...], axis: int) -> int | None:
    """Which axis of a node's input became this one, where it neither changed its length nor was folded."""
    before = shape_of(source)
    if kind(node) in PERMUTATIONS:
        return _order(node, len(shape))[axis]
    if len(before) == len(shape):
        return axis if before[axis] == shape[axis] else None
    long, long_before = ([index for index, length in enumerate(s) if length > 1] for s in (shape, before))
    if axis not in long or [shape[i] for i in long] != [before[i] for i in long_before]:
        return None
    return long_before[long.index(axis)]
