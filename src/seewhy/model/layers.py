"""Which layer to explain: found in the model's graph, or named by the user and checked."""

import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from seewhy.model.capture import Spot
from seewhy.model.clues import clues_of, layouts_of
from seewhy.model.graph import Edge, shape_of, weighted
from seewhy.model.naming import WAY_OUT, name_of, recorded, spot_of
from seewhy.model.tokens import Grid, Layout, fits, infer, stated
from seewhy.model.trace import Trace, Traced
from seewhy.types import LayerError

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """A layer to explain: where its tensor is, how it is laid out, and why it was taken."""

    name: str
    spot: Spot
    shape: tuple[int, ...]
    layout: Layout
    reason: str
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """The layer's spatial grid."""
        return self.layout.grid


@dataclass(frozen=True)
class Candidate:
    """A layer that could be explained.

    `gradient_share` is the part of its gradient's norm that lies on cells of the grid, 0..1: 0 where only a class token
    is read. `on_every_path`: nothing gets from the image to the score around it.
    """

    name: str
    shape: tuple[int, ...]
    grid: Grid
    layout: Layout
    gradient_share: float
    on_every_path: bool
    chosen: bool


class Memory(Generic[T]):
    """Remembers a value for each model and key for as long as the model lives."""

    def __init__(self) -> None:
        self._values: WeakKeyDictionary[nn.Module, dict[Hashable, T]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self, model: nn.Module, key: Hashable) -> T | None:
        """What was put there, or None."""
        with self._lock:
            return self._values.get(model, {}).get(key)

    def put(self, model: nn.Module, key: Hashable, value: T) -> None:
        """Remember a value, in place of any earlier one."""
        with self._lock:
            self._values.setdefault(model, {})[key] = value


@dataclass(frozen=True)
class _Cells:
    """A tensor on the way to the score that has a grid of more than one cell."""

    traced: Traced
    edge: Edge
    layout: Layout

    @property
    def channels(self) -> int:
        return self.traced.shape[1 if self.layout.kind in ("bc*", "bcn") else -1]


def choose(trace: Trace) -> Choice:
    """The layer to explain where the user names none.

    The last tensor with a grid of more than one cell that every path from the image to the score crosses and whose
    cells have a gradient. Of the tensors from there up to the nearest operation with weights, the last one with the
    grid of that operation: the rectified feature map ahead of the pooling. `notes` say where no tensor is like that,
    and for a dense output, where it is the end of the encoder: the widest tensor of the coarsest grid.

    Raises:
        LayerError: no layer has a spatial grid, or none with one influences the score.
    """
    if _is_dense(trace):
        return _end_of_encoder(trace)
    crossed, skipped = _crossed(trace), list[str]()
    for cells in crossed:
        if _shares(trace, [cells])[0] > 0:
            return _ahead_of_pooling(trace, cells, crossed, skipped)
        skipped.append(cells.traced.name)
    return _off_the_cut(trace, skipped)


def candidates(trace: Trace) -> list[Candidate]:
    """All layers with a spatial grid on the way to the score, as they ran, with the one that `choose` takes."""
    found = list(_spatial(trace))
    chosen = choose(trace).name
    return [
        Candidate(
            name=cells.traced.name,
            shape=cells.traced.shape,
            grid=cells.layout.grid,
            layout=cells.layout,
            gradient_share=share,
            on_every_path=cells.edge in trace.cuts,
            chosen=cells.traced.name == chosen,
        )
        for cells, share in zip(found, _shares(trace, found), strict=True)
    ]


def resolve(trace: Trace, layer: str | nn.Module, layout: str | None = None) -> Choice:
    """The layer that the user names: `layer4`, `relu@2`, `features + relu`, or the module itself.

    Args:
        trace: the model's record.
        layer: name or module.
        layout: its axes, where they cannot be told: `b c h w`, `b h w c`, `b n c`, `b 1+n c`.

    Raises:
        LayerError: no such layer, several calls of it, no grid in its output, or no influence on the score.
    """
    name = recorded(trace, name_of(trace.modules, layer))
    found = trace.outputs.get(name, ())
    alive = [(traced, traced.edge) for traced in found if traced.edge and traced.edge[0] in trace.positions]
    if not alive:
        got = _shapes(found) if found else "no floating tensor"
        raise LayerError(f"layer {name!r} put out {got}, which carries nothing from the image to the score; {WAY_OUT}")
    several = [pair for pair in alive if len(layouts_of(trace, pair[1])) == 1] if len(alive) > 1 else alive
    if not several:
        raise LayerError(f"layer {name!r} put out {_shapes(found)}, none with a grid of the image; {WAY_OUT}")
    traced, edge = several[0]
    clues = clues_of(trace, edge)
    try:
        told = stated(layout, traced.shape, trace.size, clues) if layout else infer(traced.shape, trace.size, clues)
    except LayerError as error:
        raise LayerError(f"layer {name!r}: {error}") from error
    return Choice(traced.name, spot_of(traced), traced.shape, told, f"layer {name!r} was named")


def _shapes(found: Sequence[Traced]) -> str:
    return ", ".join(str(traced.shape) for traced in found)


def _is_dense(trace: Trace) -> bool:
    shape = shape_of(trace.score)
    grids = [grid for grid in (shape[2:], shape[1:-1]) if len(grid) == len(trace.size) and prod(grid) > 1]
    return any(fits(grid, trace.size) for grid in grids)


def _cells(trace: Trace, traced: Traced, edge: Edge) -> _Cells | None:
    """The tensor with its layout, if it has a grid of more than one cell and weights between it and the image."""
    start = trace.positions[edge[0]]
    found = [layout for layout in layouts_of(trace, edge) if prod(layout.grid) > 1]
    if not found or not any(weighted(node) for node in trace.nodes[start:]):
        return None
    if len(found) == 1:
        return _Cells(traced, edge, found[0])
    choices = " or ".join(f"{traced.name} as {layout} (grid {_by(layout.grid)})" for layout in found)
    raise LayerError(
        f"the axes of layer {traced.name!r} of shape {traced.shape} can be read in several ways, {choices}; say which "
        f'with layer={traced.name!r} and layout="{found[0]}"'
    )


def _crossed(trace: Trace) -> Iterator[_Cells]:
    """Layers with a grid on every path, from the score towards the image."""
    for edge in trace.cuts:
        traced = trace.owners.get(edge)
        cells = _cells(trace, traced, edge) if traced else None
        if cells:
            yield cells


def _spatial(trace: Trace) -> Iterator[_Cells]:
    """Layers with a grid on any path, as they ran."""
    for edge, traced in sorted(trace.owners.items(), key=lambda item: item[1].order):
        cells = _cells(trace, traced, edge) if edge[0] in trace.positions else None
        if cells:
            yield cells


def _shares(trace: Trace, found: Sequence[_Cells]) -> list[float]:
    """The part of each gradient's norm that lies on the grid; 0 where there is no gradient."""
    shares: list[float] = []
    for cells, gradient in zip(found, trace.gradients([cells.edge for cells in found]), strict=True):
        whole = gradient.float().norm() if gradient is not None else None
        on_grid = cells.layout.to_cells(gradient).float().norm() if gradient is not None else 0
        shares.append(float(on_grid / whole) if whole else 0.0)
    return shares


def _ahead_of_pooling(trace: Trace, last: _Cells, upstream: Iterator[_Cells], skipped: Sequence[str]) -> Choice:
    """The last tensor with the grid of the nearest operation with weights: neither pooled nor replicated since."""
    run = [last]
    for cells in upstream:
        between = trace.nodes[trace.positions[run[-1].edge[0]] : trace.positions[cells.edge[0]]]
        if any(map(weighted, between)):
            break
        run.append(cells)
    taken = next(cells for cells in run if cells.layout.grid == run[-1].layout.grid)
    passed_over = f"; after it, {_some(skipped)} have no gradient on their cells" if skipped else ""
    pooled = f"; {last.traced.name} pools it" if taken is not last else ""
    reason = f"the last {_by(taken.layout.grid)} tensor that all paths from image to score cross{pooled}{passed_over}"
    return _choice(taken, reason)


def _off_the_cut(trace: Trace, skipped: Sequence[str]) -> Choice:
    found = list(_spatial(trace))
    size = _by(trace.size)
    if not found:
        raise LayerError(
            f"no layer has a spatial grid of more than one cell for images of {size}, so there is nothing to lay over "
            "them; use larger images, a pixel method, or name a layer and its axes with layer= and layout="
        )
    alive = [cells for cells, share in zip(found, _shares(trace, found), strict=True) if share > 0]
    if not alive:
        raise LayerError(
            f"the score has no gradient at any of the {len(found)} layers with a grid; is the head of the model all "
            "zero, as some libraries initialise it? Load its weights, or name a layer with layer="
        )
    why = f"no layer with a grid{' and a gradient' if skipped else ''} lies on every path to the score"
    note = f"{why}; {alive[-1].traced.name} was the last to run of those with a gradient, and shows its own branch only"
    return _choice(alive[-1], "the last layer with a grid and a gradient, though other paths lead around it", note)


def _end_of_encoder(trace: Trace) -> Choice:
    found = list(_spatial(trace))
    alive = [cells for cells, share in zip(found, _shares(trace, found), strict=True) if share > 0]
    if not alive:
        return _off_the_cut(trace, [])
    cell_count = min(prod(cells.layout.grid) for cells in alive)
    coarse = [cells for cells in alive if prod(cells.layout.grid) == cell_count]
    crossed = set(trace.cuts_of(coarse[-1].edge))
    trunk = [cells for cells in coarse if cells.edge in crossed]
    taken = max(reversed(trunk), key=lambda cells: cells.channels)
    grid = _by(taken.layout.grid)
    reason = f"the output is dense, so the end of the encoder: the widest tensor of the coarsest grid, {grid}"
    return _choice(taken, reason, f"{reason}; name a layer of the decoder with layer= for a finer map")


def _choice(cells: _Cells, reason: str, *notes: str) -> Choice:
    return Choice(cells.traced.name, spot_of(cells.traced), cells.traced.shape, cells.layout, reason, notes)


def _by(grid: Sequence[int]) -> str:
    return "x".join(map(str, grid))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
