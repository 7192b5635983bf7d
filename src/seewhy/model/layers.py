"""Layers by name: those that can be explained, and the one that the user names."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from seewhy.model.cells import shares, spatial
from seewhy.model.choice import Choice as Choice
from seewhy.model.choice import choose as choose
from seewhy.model.clues import clues_of, layouts_of
from seewhy.model.naming import WAY_OUT, name_of, recorded
from seewhy.model.owners import Traced
from seewhy.model.tokens import Grid, Layout, infer, is_guessed, stated
from seewhy.model.trace import Trace
from seewhy.types import LayerError
from seewhy.wording import by


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


def candidates(trace: Trace) -> list[Candidate]:
    """All layers with a spatial grid on the way to the score, as they ran, with the one that `choose` takes."""
    found = list(spatial(trace))
    try:
        chosen = choose(trace).name
    except LayerError:  # the list is what its text points to
        chosen = None
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
        for cells, share in zip(found, shares(trace, found), strict=True)
    ]


def resolve(trace: Trace, layer: str | nn.Module, layout: str | None = None) -> Choice:
    """The layer that the user names: `layer4`, `relu@2`, `features + relu`, or the module itself.

    Args:
        trace: the model's record.
        layer: name or module.
        layout: its axes, where they cannot be told: `b c h w`, `b h w c`, `b n c`, `b 1+n c`.

    Raises:
        LayerError: no such layer, several calls of it, no grid or one cell in its output, or no influence on the score.
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
    traced, edge = min(several, key=lambda pair: trace.positions[pair[1][0]])  # the nearest to the score
    clues = clues_of(trace, edge)
    try:
        told = stated(layout, traced.shape, trace.size, clues) if layout else infer(traced.shape, trace.size, clues)
    except LayerError as error:
        raise LayerError(f"layer {name!r}: {error}") from error
    if prod(told.grid) == 1:
        raise LayerError(f"layer {name!r} put out {traced.shape}, which is one cell for all of the image; {WAY_OUT}")
    notes: tuple[str, ...] = ()
    if layout and is_guessed(layout, told, trace.size, clues):
        notes = (
            f"layer {name!r}: {prod(told.grid)} tokens are read as {by(told.grid)}, by the image's proportions, as no "
            'tensor shows their grid; layout="b 16x4 c" would say 16 rows of 4',
        )
    return Choice(traced.name, traced.spot, traced.shape, told, f"layer {name!r} was named", notes)


def _shapes(found: Sequence[Traced]) -> str:
    return ", ".join(str(traced.shape) for traced in found)
