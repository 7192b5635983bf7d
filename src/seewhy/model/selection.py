"""Layers that are found by themselves: the last with a grid, that and a finer one ahead of it, every convolution's."""

from dataclasses import replace

from torch.autograd.graph import Node

from seewhy.model.cells import Cells, spatial, with_gradient
from seewhy.model.choice import Choice, around, choose
from seewhy.model.graph import kind, producers
from seewhy.model.kinds import ACTIVATIONS
from seewhy.model.trace import Trace
from seewhy.types import LayerError, Selection
from seewhy.wording import by

COARSE = 10
"""A grid of fewer cells than that along an axis is coarse; on finer ones a second layer was measured to add nothing."""


def select(trace: Trace, which: Selection) -> list[Choice]:
    """The layers, shallow to deep.

    `last`: `choose`; of a score about one place, `around`, and nothing but that where it finds several levels. `pair`:
    that, where its grid is coarse after the deepest rectified tensor of twice the grid, of those that every path
    crosses if there is one. `convolutions`: what every convolution puts out.

    Raises:
        LayerError: there is none.
    """
    if which == "convolutions":
        return _convolutions(trace)
    levels = around(trace) if trace.extent else []
    if len(levels) > 1:
        return levels
    last = levels[0] if levels else choose(trace)
    if which == "last":
        return [last]
    if min(last.grid) >= COARSE:
        return [replace(last, reason=f"{last.reason}; alone, since its grid is fine")]
    finer = _finer(trace, last)
    return (
        [replace(last, reason=f"{last.reason}; alone, none of twice its grid was found")]
        if finer is None
        else [finer, last]
    )


def _finer(trace: Trace, last: Choice) -> Choice | None:
    found = [cells for cells in spatial(trace) if _rectified(cells.edge[0]) and _twice(cells, last)]
    alive = with_gradient(trace, found)
    crossed = [cells for cells in alive if cells.edge in trace.cuts]
    if not alive:
        return None
    taken = (crossed or alive)[-1]
    reason = f"the deepest rectified tensor of {by(taken.layout.grid)}, twice the last grid"
    return _choice(taken, reason)


def _twice(cells: Cells, last: Choice) -> bool:
    grid = cells.layout.grid
    pairs = list(zip(grid, last.grid, strict=False))
    return len(grid) == len(last.grid) and all(1.6 * coarse <= fine <= 2.4 * coarse for fine, coarse in pairs)


def _rectified(node: Node) -> bool:
    """Whether an activation function put the tensor out, or each part that it was joined of."""
    if kind(node) == "Cat":
        return all(_rectified(part) for part, _ in producers(node))
    return kind(node) in ACTIVATIONS


def _convolutions(trace: Trace) -> list[Choice]:
    alive = with_gradient(trace, [cells for cells in spatial(trace) if kind(cells.edge[0]) == "Convolution"])
    if not alive:
        raise LayerError(
            "no convolution of this model puts out a grid with a gradient; name the layers with layer=[...]"
        )
    choices = [_choice(cells, "") for cells in alive]
    return [*choices[:-1], replace(choices[-1], reason=f"all {len(choices)} convolutions")]


def _choice(cells: Cells, reason: str) -> Choice:
    return Choice(cells.traced.name, cells.traced.spot, cells.traced.shape, cells.layout, reason)
