"""Receptive fields by arithmetic: which input pixels a cell of a layer's grid can see, read off the autograd graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from seewhy.model.graph import Edge, between, kind, producers, saved, shape_of
from seewhy.model.kinds import OF_PLACES, PADS, POOLS


@dataclass(frozen=True)
class Field:
    """What cell i can see along one axis: the positions `stride * i + low` to `stride * i + high`, both included."""

    stride: int = 1
    low: int = 0
    high: int = 0

    @property
    def center(self) -> float:
        """The middle of what cell 0 sees."""
        return (self.low + self.high) / 2

    def through(self, stride: int, before: int, reach: int) -> "Field":
        """The same cells seen one operation earlier: its place j reads `stride * j - before` and `reach` beyond."""
        return Field(self.stride * stride, self.low * stride - before, self.high * stride - before + reach)

    def hull(self, other: "Field") -> "Field":
        """The smallest field that covers both."""
        return Field(self.stride, min(self.low, other.low), max(self.high, other.high))


Fields = tuple[Field, ...]


def receptive_fields(edge: GradientEdge, leaf: Tensor, rank: int) -> Fields | None:
    """The field in `leaf` of each of the `rank` spatial axes of the `(b c *grid)` tensor at `edge`.

    The hull over all paths. A value without a grid (a pooled vector that rescales channels) has no place and counts for
    none. None where an operation on the way is no convolution, pooling, padding, slice or pointwise one, or where
    paths have different strides: then no arithmetic says where a cell looks.
    """
    source = get_gradient_edge(leaf).node
    order = between(edge.node, source)
    on_path = set(order)
    fields: dict[Node, Fields] = {edge.node: (Field(),) * rank}
    for node in order:
        for producer, number in _read(node, rank) if node in fields else ():
            if producer not in on_path:
                continue
            seen = _earlier(node, fields[node], shape_of((producer, number)))
            if seen is None or not _joinable(seen, fields.get(producer)):
                return None
            fields[producer] = tuple(map(Field.hull, seen, fields.get(producer, seen)))
    return fields.get(source)


def sees_padding(node: Node) -> bool:
    """Whether a convolution is given a single cell and padding around it."""
    if kind(node) != "Convolution" or saved(node, "transposed"):
        return False
    read, padded = producers(node)[0], any(saved(node, "padding"))  # not its weight: checkpoints would run again
    while PADS.fullmatch(kind(read[0])):
        read, padded = producers(read[0])[0], True
    return padded and prod(shape_of(read)[2:]) == 1


def _read(node: Node, rank: int) -> list[Edge]:
    """The tensors with a grid that the operation read; a convolution's weights are none of them."""
    read = producers(node)[:1] if kind(node) == "Convolution" else producers(node)
    read = [_unturned(edge) for edge in read]
    shapes = [shape_of(edge) for edge in read]
    return [
        edge
        for edge, shape in zip(read, shapes, strict=True)
        if len(shape) > rank and any(length > 1 for length in shape[-rank:])
    ]


def _unturned(edge: Edge) -> Edge:
    """Past permutations of the axes that the next one undoes, as where channels that come last are put first again."""
    while kind(edge[0]) == "Permute" and kind((earlier := producers(edge[0])[0])[0]) == "Permute":
        first, second = (saved(node, "dims") for node in (earlier[0], edge[0]))
        rank = len(first)
        if [first[dim % rank] % rank for dim in second] != list(range(rank)):
            break
        edge = producers(earlier[0])[0]
    return edge


def _joinable(one: Fields, other: Fields | None) -> bool:
    return other is None or all(a.stride == b.stride for a, b in zip(one, other, strict=True))


def _earlier(node: Node, fields: Fields, before: tuple[int, ...]) -> Fields | None:
    """The fields in a tensor of shape `before` that the node's operation read; None for an unknown operation."""
    rank = len(fields)
    windows = _windows(node, rank, before)
    if windows is not None:
        return tuple(field.through(*window) for field, window in zip(fields, windows, strict=True))
    kept = shape_of((node, 0))[-rank:] == before[-rank:]
    return fields if kept and kind(node) in OF_PLACES and not _turned(node, rank, len(before)) else None


def _windows(node: Node, rank: int, before: tuple[int, ...]) -> list[tuple[int, int, int]] | None:
    """Stride, padding ahead and reach of an operation that reads a window, one triple for each axis."""
    name = kind(node)
    if name == "Convolution" and not saved(node, "transposed"):
        return _windowed(node, saved(node, "weight").shape, rank)
    if POOLS.fullmatch(name):
        return _windowed(node, saved(node, "kernel_size"), rank)
    if PADS.fullmatch(name):
        pads = saved(node, "pad" if name == "ConstantPadNd" else "padding")
        ahead = [*pads[::2], *[0] * rank]
        return [(1, ahead[axis], 0) for axis in reversed(range(rank))]
    if name == "Slice" and (axis := saved(node, "dim") % len(before) - len(before) + rank) >= 0:
        start = saved(node, "start")
        start += before[axis - rank] if start < 0 else 0
        return [(saved(node, "step"), -start, 0) if axis == other else (1, 0, 0) for other in range(rank)]
    return None


def _windowed(node: Node, kernel: Sequence[int], rank: int) -> list[tuple[int, int, int]]:
    stride = saved(node, "stride") or kernel  # a pooling without a stride strides by its kernel
    dilation = (1,) * rank if kind(node).startswith("Avg") else saved(node, "dilation")
    own = (kernel, stride, saved(node, "padding"), dilation)  # padding="valid" is saved as a single 0 for all axes
    rows = zip(*((each * rank if len(each) == 1 else each)[-rank:] for each in map(tuple, own)), strict=True)
    return [(step, pad, spread * (width - 1)) for width, step, pad, spread in rows]


def _turned(node: Node, rank: int, dims: int) -> bool:
    """Whether a transposition moves a spatial axis: a square grid's shape would not tell."""
    if kind(node) == "T":
        return True
    if kind(node) == "Transpose":
        return any(saved(node, name) % dims >= dims - rank for name in ("dim0", "dim1"))
    if kind(node) == "Permute":
        return [dim % dims for dim in saved(node, "dims")][-rank:] != list(range(dims - rank, dims))
    return False
