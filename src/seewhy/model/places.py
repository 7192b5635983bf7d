"""A layer that maps are made of: which it is, how it is laid out, and where its cells look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from seewhy.model import alignment
from seewhy.model.alignment import Placement
from seewhy.model.blocks import Block
from seewhy.model.layers import Choice, resolve
from seewhy.model.observe import passed_back
from seewhy.model.order import look
from seewhy.model.selection import select
from seewhy.model.spot import Spot
from seewhy.model.tokens import Layout
from seewhy.model.trace import Trace
from seewhy.types import Selection

LayerName = str | nn.Module

_ELSEWHERE = (
    "(a flip, a crop, padding or another order inside the model), so its map lies over the wrong places; name a layer "
    "ahead of that, or a pixel method"
)


@dataclass(frozen=True)
class Auto:
    """Layers that shall be found by themselves."""

    which: Selection = "last"


@dataclass(frozen=True)
class Place:
    """A layer that maps are made of: its tensor, how that is laid out, and where its cells look.

    `why` says why it was taken, `laid` how its cells are laid where that is not as tiles, and `doubt` what makes that
    meaningless.
    """

    name: str
    spot: Spot
    shape: tuple[int, ...]
    layout: Layout
    placement: Placement
    why: tuple[str, ...]
    laid: tuple[str, ...]
    doubt: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """All that is to be said of it."""
        return (*self.why, *self.laid)


def places_of(
    trace: Trace, layer: LayerName | Auto, found: Mapping[int, Block] | None, align: str, layout: str | None
) -> tuple[Place, ...]:
    """The places that a layer by its name, or one that shall be found, stands for.

    Args:
        trace: the model's record.
        layer: which.
        found: the blocks around the model's attentions, where these were looked for.
        align: how cells are laid: `measured`, `analytic` or `tile`.
        layout: how a named layer is laid out, where that cannot be told.

    Raises:
        LayerError: as `resolve`, `select`.
    """
    if layer == Auto("tokens") and found is not None:
        chosen = [_last_block(trace, found)]
    else:
        chosen = select(trace, layer.which) if isinstance(layer, Auto) else [resolve(trace, layer, layout)]
    return tuple(_place(trace, choice, align, told=isinstance(layer, Auto)) for choice in chosen)


def laid(trace: Trace, place: Place, align: str) -> Place:
    """The same layer, its cells laid in another way."""
    choice = Choice(place.name, place.spot, place.shape, place.layout, "")
    return replace(_place(trace, choice, align, told=False), why=place.why)


def of_images(trace: Trace, found: Mapping[int, Block]) -> Mapping[int, Block]:
    """The blocks that the image has a part in: those of a text beside it, where there are as many texts, are none."""
    return {
        number: block
        for number, block in found.items()
        if any(each.edge and each.edge[0] in trace.positions for each in trace.outputs.get(_name(trace, block), ()))
    } or found


def _name(trace: Trace, block: Block) -> str:
    spot = block.spot
    return spot.module if trace.calls[spot.module] == 1 else f"{spot.module}@{spot.call}"


def _last_block(trace: Trace, found: Mapping[int, Block]) -> Choice:
    name = _name(trace, found[max(found)])
    return replace(resolve(trace, name), reason=f"the last of {len(found)} blocks with attention")


def _place(trace: Trace, choice: Choice, align: str, *, told: bool) -> Place:
    placement, notes, doubt = _placement(trace, choice, align)
    reason = (f"layer {choice.name}: {choice.reason}",) if told and choice.reason else ()
    why = (*reason, *choice.notes)
    return Place(choice.name, choice.spot, choice.shape, choice.layout, placement, why, notes, doubt)


def _placement(trace: Trace, choice: Choice, align: str) -> tuple[Placement, tuple[str, ...], str]:
    """Where the cells are laid, what is said of that, and what speaks against it."""
    tiles = alignment.tile(choice.grid, trace.size)
    if align == "tile":
        return tiles, (), ""
    edge, shape = trace.edge(choice.name, choice.spot.index)
    reckoned = alignment.analytic(edge, trace.image, choice.grid)
    if reckoned and align == "analytic":
        return reckoned, (), ""
    with passed_back(trace.model):
        if reckoned:
            placement = alignment.place(edge, shape, trace.image, choice.grid, reckoned, choice.layout.to_cells)
            return placement, _moved(choice.name, placement, tiles, trace.size, choice.grid), ""
        placement, doubt = look(edge, shape, trace.image, choice.layout.to_cells)
    moved = _moved(choice.name, placement, tiles, trace.size, choice.grid)
    said = "receptive fields cannot be reckoned through this model; cells are laid as "
    said += "measured" if moved else "tiles"
    notes = (f"layer {choice.name}: {said}", *moved) if align == "analytic" else moved
    return placement, notes, doubt and f"layer {choice.name}: {doubt} {_ELSEWHERE}"


def _moved(
    name: str, placement: Placement, tiles: Placement, size: Sequence[int], grid: Sequence[int]
) -> tuple[str, ...]:
    if placement.kind == "tile":
        return ()
    moved = placement.shift(size, grid)
    said: list[str] = []
    if any(abs(pixels) > 0.05 for pixels in moved):
        shift = ", ".join(f"{pixels:+.1f}" for pixels in moved)
        said.append(f"look ({shift}) pixels off their tiles, as measured")
    if placement.stride != tiles.stride:
        said.append(f"lie {_pixels(placement.stride)} pixels apart instead of {_pixels(tiles.stride)}")
    return (f"layer {name}: its cells {' and '.join(said)}; the map is laid accordingly",)


def _pixels(lengths: Sequence[float]) -> str:
    return ", ".join(dict.fromkeys(f"{length:.3g}" for length in lengths))
