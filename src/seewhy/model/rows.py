"""Where the rows of a layer stand in the image, in models that take rows of patches: followed through the graph."""

from collections.abc import Sequence
from itertools import chain
from math import prod

from torch import Tensor
from torch.autograd.graph import Node

from seewhy.model.forms import Patches
from seewhy.model.graph import Edge, kind, saved, shape_of, weighted
from seewhy.model.kinds import FOLDS, LENGTHS_OF_ONE, PERMUTATIONS, PICKS
from seewhy.model.tokens import Layout
from seewhy.model.trace import Trace

_Part = tuple[int, ...]
_Row = tuple[_Part, ...]
"""What stands at one place of a tensor's first axis: parts that can be told apart, each of one patch or of several."""


def in_rows(trace: Trace, edge: Edge, form: Patches) -> Layout | None:
    """The layout of a tensor of rows `((b n) c)`; None where these are not known to be places of the images.

    The patches are followed from where the model gets them, through the tensors that every path to this one crosses.
    What joins, parts or picks rows there moves the patches with them; all else keeps rows where they are.
    """
    count, places = trace.image.shape[0], form.places(trace.size).tolist()
    found = _followed(trace, edge, count * len(places))
    if found is None or len(found) % count:
        return None
    rows = [tuple(chain.from_iterable(row)) for row in found]
    first, each = rows[: len(rows) // count], len(rows) // count
    alike = all(
        rows[image * each + n] == tuple(patch + image * len(places) for patch in first[n])
        for image in range(count)
        for n in range(each)
    )
    grid = tuple(pixels // form.size for pixels in trace.size)
    return _laid([[divmod(places[patch], grid[1]) for patch in row] for row in first], grid) if alike else None


def _laid(rows: Sequence[Sequence[tuple[int, int]]], grid: Sequence[int]) -> Layout | None:
    """The layout of rows that hold the patches at these places: of blocks of one size that cover the grid."""
    blocks = [tuple((min(axis), max(axis) + 1) for axis in zip(*row, strict=True)) for row in rows]
    sides = {tuple(stop - start for start, stop in block) for block in blocks}
    if len(sides) > 1 or any(len(set(row)) < prod(next(iter(sides))) for row in rows):
        return None
    (side,) = sides
    coarse = tuple(length // step for length, step in zip(grid, side, strict=True))
    cells = [tuple(start // step for (start, _), step in zip(block, side, strict=True)) for block in blocks]
    order = sorted(range(len(cells)), key=cells.__getitem__)
    every = [(row, column) for row in range(coarse[0]) for column in range(coarse[1])]
    return Layout("nc", coarse, tuple(order)) if [cells[n] for n in order] == every else None


def _followed(trace: Trace, edge: Edge, count: int) -> list[_Row] | None:
    """What stands in the rows of this tensor, of so many patches; None where that is lost."""
    rows: list[_Row] | None = None
    for node, number in reversed(trace.cuts_of(edge)):
        shape = shape_of((node, number))
        if rows is not None:
            rows = _moved(rows, node, shape)
            if rows is None:
                return None
        elif len(shape) == 2 and shape[0] == count:
            rows = [((patch,),) for patch in range(count)]
    return rows


def _moved(rows: list[_Row], node: Node, shape: Sequence[int]) -> list[_Row] | None:
    """What stands in the rows after an operation; what was mixed stays together."""
    if kind(node) in PICKS:
        return _picked(rows, node)
    if kind(node) in PERMUTATIONS and shape[0] != 1 and not _keeps_first(node, len(shape)):
        return None
    if shape[0] == len(rows):
        mixed = weighted(node) or kind(node) in PERMUTATIONS
        return [(tuple(chain.from_iterable(row)),) if len(row) > 1 else row for row in rows] if mixed else rows
    if kind(node) not in FOLDS | LENGTHS_OF_ONE or not shape[0]:
        return None
    joined = list(chain.from_iterable(rows))
    if len(joined) % shape[0]:
        return None
    each = len(joined) // shape[0]
    return [tuple(joined[start : start + each]) for start in range(0, len(joined), each)]


def _keeps_first(node: Node, rank: int) -> bool:
    if kind(node) == "Permute":
        return saved(node, "dims")[0] % rank == 0
    return kind(node) == "Transpose" and 0 not in (saved(node, "dim0") % rank, saved(node, "dim1") % rank)


def _picked(rows: list[_Row], node: Node) -> list[_Row] | None:
    """The rows that an index takes, where it takes whole rows."""
    if kind(node) == "IndexSelect" and saved(node, "dim") == 0:
        index = saved(node, "index")
    elif kind(node) == "Index":
        index, *others = saved(node, "indices")
        index = index if all(other is None for other in others) else None
    else:
        return None
    return [rows[n] for n in index.tolist()] if isinstance(index, Tensor) and index.ndim == 1 else None
