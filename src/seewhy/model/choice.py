"""Which layer to explain where the user names none: found in the graph of a recorded forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.model.cells import Cells, on_every_path, shares, spatial, with_gradient
from seewhy.model.clues import is_bare
from seewhy.model.forward import is_exported
from seewhy.model.graph import Edge, kind, producers, saved, shape_of, weighted
from seewhy.model.kinds import PADS
from seewhy.model.receptive import sees_padding
from seewhy.model.spot import Spot
from seewhy.model.tokens import Grid, Layout, fits
from seewhy.model.trace import Trace
from seewhy.types import RUNS_ONLY, LayerError
from seewhy.wording import by, some

_MOST = 0.75
"""Of a box; the region that a head of two stages pools for it is seldom all of it."""
_THIN = 16
"""An encoder widens as it coarsens: a grid on which convolutions put out so many times fewer channels than the widest
tensor has is looked at aside, as attention does in a pyramid of its own."""


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
    crossed, skipped = on_every_path(trace), list[str]()
    for cells in crossed:
        if shares(trace, [cells])[0] > 0:
            return _ahead_of_pooling(trace, cells, crossed, skipped)
        skipped.append(cells.traced.name)
    return _off_the_cut(trace, skipped)


def around(trace: Trace) -> list[Choice]:
    """The layers to explain a score about places of the image by, such as a box's; none where `choose` decides.

    As `choose`, but for tensors whose gradient spans less of the picture than one of these: in a head, where each cell
    has its own box, they show little more than which cell it was. Where levels of a pyramid are joined as tokens
    ahead of such a tensor, it is each level's.
    """
    at = {edge: position for position, edge in enumerate(trace.cuts)}
    join = next((edge for edge in trace.cuts if _joins_levels(trace, edge)), None)
    crossed = on_every_path(trace, partial(_spans, trace))
    for cells in crossed:
        if join and at[join] < at[cells.edge]:
            return [choice for part in _on_the_way(trace, join) for choice in around(trace.upto(part))]
        found = _ahead_of_pooling(trace, cells, crossed, [])
        grid = by(found.grid)
        reason = f"the last {grid} tensor that everything told of the box crosses and whose gradient spans the box"
        return [replace(found, reason=reason, notes=())]
    return []


def _joins_levels(trace: Trace, edge: Edge) -> bool:
    """Whether tokens of grids of several lengths become one sequence there."""
    parts = _on_the_way(trace, edge) if kind(edge[0]) == "Cat" and len(shape_of(edge)) < trace.image.ndim else []
    several = len({shape_of(part) for part in parts}) > 1
    found = [gradient for gradient in trace.gradients_by_place(edge) if gradient is not None] if several else []
    return any(not _is_single(gradient) for gradient in found)


def _on_the_way(trace: Trace, edge: Edge) -> list[Edge]:
    return [part for part in producers(edge[0]) if part[0] in trace.positions]


def _is_single(gradient: Float[Tensor, "b *axes"]) -> bool:
    """Whether in every image only one index along some axis has a gradient: a candidate among others, no features."""
    reached, axes = gradient != 0, range(1, gradient.ndim)
    counts = [reached.movedim(axis, 1).flatten(2).any(2).sum(1) for axis in axes if gradient.shape[axis] > 1]
    return any(bool((count <= 1).all()) for count in counts)


def _spans(trace: Trace, cells: Cells) -> bool:
    """Whether for every place, the cells with a gradient reach along every axis over most of it."""
    found = trace.gradients_by_place(cells.edge)
    return bool(found) and all(
        gradient is not None and _covers(trace, cells.layout.to_cells(gradient), sizes)
        for gradient, sizes in zip(found, trace.extents, strict=True)
    )


def _covers(trace: Trace, gradient: Float[Tensor, "n c *grid"], sizes: Sequence[Sequence[float]]) -> bool:
    """Whether the cells with a gradient reach in every image over most of a place of this size there."""
    if _is_single(gradient.flatten(2)):  # of one row of cells there are still several
        return False
    reached = (gradient != 0).unflatten(0, (len(sizes), -1)).flatten(1, 2).any(1)
    return all(
        _length(own, axis) * pixels >= _MOST * extent * own.shape[axis]
        for own, extents in zip(reached, sizes, strict=True)
        for axis, (extent, pixels) in enumerate(zip(extents, trace.size, strict=True))
    )


def _length(reached: Bool[Tensor, "*grid"], axis: int) -> int:
    """How many cells along an axis lie from the first to the last that is reached."""
    others = [other for other in range(reached.ndim) if other != axis]
    places = (reached.any(others) if others else reached).nonzero()[:, 0]
    return int(places[-1] - places[0]) + 1 if len(places) else 0


def _is_dense(trace: Trace) -> bool:
    shape = shape_of(trace.score)
    grids = [grid for grid in (shape[2:], shape[1:-1]) if len(grid) == len(trace.size) and prod(grid) > 1]
    return any(fits(grid, trace.size) for grid in grids)


def _ahead_of_pooling(trace: Trace, last: Cells, upstream: Iterator[Cells], skipped: Sequence[str]) -> Choice:
    """The last tensor with the grid of the nearest operation with weights: neither pooled nor replicated since."""
    run = [last]
    for cells in upstream:
        between = trace.nodes[trace.positions[run[-1].edge[0]] : trace.positions[cells.edge[0]]]
        if any(map(weighted, between)):
            break
        run.append(cells)
    taken = next(cells for cells in run if cells.layout.grid == run[-1].layout.grid)
    passed_over = f"; after it, {some(skipped)} have no gradient on their cells" if skipped else ""
    pooled = f"; {last.traced.name} pools it" if taken is not last else ""
    reason = f"the last {by(taken.layout.grid)} tensor that all paths from image to score cross{pooled}{passed_over}"
    unread = some(_unread(trace, skipped[0] if skipped else last.traced.name))
    note = f"after {taken.traced.name}, {unread} hold no grid that could be read (queries, or tokens out of order)"
    few = [f"for images of {by(trace.size)} {too_small}; larger ones show what it sees" for too_small in starved(trace)]
    return _choice(taken, reason, *([note] if unread else []), *few)


def starved(trace: Trace) -> list[str]:
    """What is wrong with an image so small that convolutions of several cells are given a single one; else nothing."""
    names = [
        owner.name
        for edge, owner in sorted(trace.owners.items(), key=lambda item: item[1].order)
        if edge[0] in trace.positions and sees_padding(edge[0])
    ]
    return (
        [f"layer {names[0]} sees one cell and padding around it, and no layer from there on has a grid"]
        if names
        else []
    )


def _unread(trace: Trace, last: str) -> list[str]:
    """Layers after the last one with a grid that have several tokens or places all the same."""
    owners = [owner for edge in trace.cuts if (owner := trace.owners.get(edge))]
    after = owners[: [owner.name for owner in owners].index(last)]
    return [
        owner.name
        for owner in after
        if len(owner.shape) > 2
        and min(prod(owner.shape[1:-1]), prod(owner.shape[2:])) > 1
        and not (owner.edge and PADS.fullmatch(kind(owner.edge[0])))
    ]


def _off_the_cut(trace: Trace, skipped: Sequence[str]) -> Choice:
    found = list(spatial(trace))
    size = by(trace.size)
    if not found and any(map(is_exported, trace.model.modules())):
        raise LayerError(
            "the model was made by torch.export, whose operations are no modules, so that no layer has a grid; pass "
            f"the module that it was exported from, or take 'saliency', or {RUNS_ONLY}"
        )
    if not found:
        raise LayerError(
            f"no layer has a spatial grid of more than one cell for images of {size}, so there is nothing to lay over "
            "them; use larger images, a pixel method, or name a layer and its axes with layer= and layout="
        )
    alive = with_gradient(trace, found)
    kinds = {type(module) for module in trace.modules.values()}
    quantized = next(
        (kind for kind in kinds if ".quantized" in kind.__module__ and "Packed" not in kind.__name__), None
    )
    if not alive and quantized:
        raise LayerError(
            f"the score has no gradient at any layer, as the model holds a quantised {quantized.__name__}; explain the "
            f"model that it was quantised from, or take {RUNS_ONLY}"
        )
    if not alive and trace.end == "squashed":
        raise LayerError(
            f"the score has no gradient at any of the {len(found)} layers with a grid, as the sigmoid or softmax that "
            "the model ends in is sure of noise even; explain the model without it, whose logits keep a gradient"
        )
    if not alive:
        raise LayerError(
            f"the score has no gradient at any of the {len(found)} layers with a grid; is the head of the model all "
            "zero, as some libraries initialise it? Load its weights, or name a layer with layer="
        )
    why = f"no layer with a grid{' and a gradient' if skipped else ''} lies on every path to the score"
    own = f"{alive[-1].traced.name} was the last to run of those with a gradient, and shows its own branch only"
    note = f"{why}; {own}; name one with layer= for another map{_others(alive, alive[-1])}"
    return _choice(alive[-1], "the last layer with a grid and a gradient, though other paths lead around it", note)


def _end_of_encoder(trace: Trace) -> Choice:
    alive = with_gradient(trace, list(spatial(trace)))
    if not alive:
        return _off_the_cut(trace, [])
    all_grids = {cells.layout.grid for cells in alive}
    grids = _convolved(trace, max(cells.channels for cells in alive) / _THIN) & all_grids or all_grids
    coarse = [cells for cells in alive if cells.layout.grid == min(grids, key=prod)]
    coarse = [cells for cells in coarse if not is_bare(trace, cells.edge)] or coarse
    crossed = set(trace.cuts_of(coarse[-1].edge))
    trunk = [cells for cells in coarse if cells.edge in crossed]
    taken = max(reversed(trunk), key=lambda cells: cells.channels)
    grid = by(taken.layout.grid)
    reason = f"the output is dense, so the end of the encoder: the widest tensor of the coarsest grid, {grid}"
    finer = _others([cells for cells in alive if prod(cells.layout.grid) > prod(taken.layout.grid)], taken)
    return _choice(taken, reason, *([f"for a finer map name another layer with layer={finer}"] if finer else []))


def _others(alive: Sequence[Cells], taken: Cells) -> str:
    """The last layers of other grids, by which a user can choose at once."""
    last = {cells.layout.grid: cells.traced.name for cells in alive if cells.layout.grid != taken.layout.grid}
    named = [f"{name} ({by(grid)})" for grid, name in sorted(last.items(), key=lambda item: prod(item[0]))]
    return f", such as {some(named)}" if named else ""


def _convolved(trace: Trace, channels: float) -> set[Grid]:
    """Grids on which convolutions to so many channels look beyond a cell: not those only pooled to, as in a pyramid."""
    maps = [node for node in trace.nodes if kind(node) == "Convolution" and prod(saved(node, "weight").shape[2:]) > 1]
    shapes = [shape_of((node, 0)) for node in maps]
    return {shape[2:] for shape in shapes if shape[1] >= channels}


def _choice(cells: Cells, reason: str, *notes: str) -> Choice:
    return Choice(cells.traced.name, cells.traced.spot, cells.traced.shape, cells.layout, reason, notes)
