"""The tensors of a recorded forward pass that have a grid, and how much of the gradient reaches it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from seewhy.model.clues import layouts_of
from seewhy.model.graph import Edge, kind, weighted
from seewhy.model.kinds import PADS
from seewhy.model.owners import Traced
from seewhy.model.tokens import Layout
from seewhy.model.trace import Trace
from seewhy.types import LayerError
from seewhy.wording import by


@dataclass(frozen=True)
class Cells:
    """A tensor on the way to the score that has a grid of more than one cell."""

    traced: Traced
    edge: Edge
    layout: Layout

    @property
    def channels(self) -> int:
        """How many channels it has."""
        return self.traced.shape[1 if self.layout.kind in ("bc*", "bcn", "btc*") else -1]


def _read(trace: Trace, traced: Traced, edge: Edge) -> list[Cells]:
    """The ways to read a tensor on a grid of more than one cell; none if nothing with weights made it of the image.

    Nor of what was padded: cells of padding alone are no cells.
    """
    made = any(weighted(node) for node in trace.nodes[trace.positions[edge[0]] :])
    if not made or PADS.fullmatch(kind(edge[0])):
        return []
    return [Cells(traced, edge, layout) for layout in layouts_of(trace, edge) if prod(layout.grid) > 1]


def on_every_path(trace: Trace, taken: Callable[[Cells], bool] = lambda _cells: True) -> Iterator[Cells]:
    """Layers with a grid on every path, from the score towards the image; those that are taken at all."""
    for edge in trace.cuts:
        traced = trace.owners.get(edge)
        readings = [cells for cells in _read(trace, traced, edge) if taken(cells)] if traced else []
        if traced and len(readings) > 1:
            choices = " or ".join(f'layout="{cells.layout}" (grid {by(cells.layout.grid)})' for cells in readings)
            raise LayerError(
                f"layer {traced.name!r} of shape {traced.shape} would be taken, but can be read in several ways; pass "
                f"layer={traced.name!r} and {choices}"
            )
        yield from readings


def spatial(trace: Trace) -> Iterator[Cells]:
    """Layers with a grid on any path, as they ran; without those that can be read in several ways."""
    for edge, traced in sorted(trace.owners.items(), key=lambda item: item[1].order):
        readings = _read(trace, traced, edge) if edge[0] in trace.positions else []
        if len(readings) == 1:
            yield readings[0]


def shares(trace: Trace, found: Sequence[Cells]) -> list[float]:
    """The part of each gradient's norm that lies on the grid; 0 where there is no gradient."""
    shares: list[float] = []
    for cells, gradient in zip(found, trace.gradients([cells.edge for cells in found]), strict=True):
        whole = gradient.float().norm() if gradient is not None else None
        on_grid = cells.layout.to_cells(gradient).float().norm() if gradient is not None else 0
        shares.append(float(on_grid / whole) if whole else 0.0)
    return shares


def with_gradient(trace: Trace, found: Sequence[Cells]) -> list[Cells]:
    """Those with a gradient on their cells."""
    return [cells for cells, share in zip(found, shares(trace, found), strict=True) if share > 0]
