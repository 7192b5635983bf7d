"""Where the cells of a layer's grid look, where no arithmetic of receptive fields can tell.

A flip, a roll, a scan in another order, a crop or a padding inside the model leaves the shape of a grid as it was, and
a map of it would be laid over the wrong places. So five cells are asked: what one of them reads of the picture and the
others do not says where it looks.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.functional import interpolate

from seewhy.model.alignment import NOTABLE, Placement, tile

_CELLS = ((0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.2, 0.15, 0.7), (0.85, 0.7, 0.1), (0.5, 0.4, 0.3))
"""Where along each axis they stand: at both ends, where a roll by one is seen, and within, at no other's mirror."""

_PARTS, _REACH = 4, 5
"""Along each axis a tile is read in so many parts; so many on each side of the greatest tell where a cell looks."""

_TELLING = 3.0
"""An excess of so many times the mean tells of a place; where attention is all over the picture, none does."""

_STRAIGHT = 0.5
"""Up to so many tiles off a line, cells are on it."""

_SURE = 5.0
"""A line counts if it leaves the tiles by so many times what cells leave it; what a border draws inwards bends it."""

_DRAWN = 0.7
"""A step from here to 1 about the picture's middle is what borders make of tiles, in MobileViTv2, HRNet and RT-DETR."""

_FINEST = 16
"""Tiles along an axis, at most: a cell of a finer grid reads several of its own."""

_ASTRAY = 2.0
"""From so many tiles on a cell looks elsewhere; with MobileNetV2's trained weights, one is 1.9 off its tile."""

_OWN = 0.2
"""A cell that reads its own place by over this part of the greatest reads several, and tells of none."""

_ALONE = 0.7
"""Who is away reads so much of the picture alone: cells in another order 1.0, behind convolutions .77; attention that
picks a far place up to .65, in 31 of 32 random Visformers."""

Grid = tuple[int, ...]
Center = tuple[float, ...]
Line = tuple[float, float]
Ends = tuple[float, float]

_TILES: Line = (0.0, 1.0)


def look(
    edge: GradientEdge, shape: Sequence[int], leaf: Float[Tensor, "b c *s"], to_cells: Callable[[Tensor], Tensor]
) -> tuple[Placement, str]:
    """Where to lay the cells, and what speaks against a map of them; five backward passes.

    With r_k the share of |d cell_k / d picture|^2 in each part of a tile, times their number, and random signs for the
    cell's channels: e_k = max(0, r_k - mean of the others' r) says where cell k looks, the centroid of e_k next to its
    greatest. It tells nothing if that is below 3, if over half of e_k is found elsewhere, or
    if that is over two tiles away and a fifth of it is found at the cell's own, or the mean of e_k is below .7. Along
    each axis

        look_k = offset + step k    with the medians of all pairs' steps, and of the offsets

    lays the cells if they leave that line by less than half a tile, and if it leaves the tiles by over five times that
    and a quarter of one, but not for being drawn towards the middle; else tiles do. A cell that then looks over two
    tiles away, as some do with all flips, transpositions, rolls and other scans, is told, and one that reads nothing of
    the picture while others do; but what the line has beyond the border may do so, or read the border.

    Args:
        edge: the layer's raw tensor on the graph of a forward pass on noise; the graph is kept.
        shape: the raw tensor's shape.
        leaf: that pass's input, which requires grad.
        to_cells: from the raw tensor to `(b c *grid)`.

    Returns:
        The placement, of kind "measured" where it is not that of tiles; and a doubt, or nothing.
    """
    seeds = [_signs(leaf, shape, to_cells, where) for where in _CELLS]
    grid, size = seeds[0][1], tuple(leaf.shape[2:])
    tiles = tuple(min(cells, _FINEST) for cells in grid)
    ratios = [fine / cells for fine, cells in zip(tiles, grid, strict=True)]
    stands = [tuple((at + 0.5) * ratio - 0.5 for at, ratio in zip(cell, ratios, strict=True)) for _, _, cell in seeds]
    reads = torch.stack([_read(edge, leaf, raw, tiles) for raw, _, _ in seeds])
    excess = (reads - (reads.sum(0) - reads) / (len(reads) - 1)).clamp_min(0)
    found = [(stand, center) for stand, more in zip(stands, excess, strict=True) if (center := _center(more, stand))]
    ends = [(ratio / 2 - 0.5, fine - ratio / 2 - 0.5) for ratio, fine in zip(ratios, tiles, strict=True)]
    lines = [_line([(stand[axis], at[axis]) for stand, at in found], end) for axis, end in enumerate(ends)]
    blind = [stand for stand, read in zip(stands, reads, strict=True) if not read.any()]
    lengths = tile(tiles, size).stride
    doubt = _astray(found, lines, ends, lengths) or (_blind(blind, lines, ends) if len(blind) < len(seeds) else "")
    usual = tile(grid, size)
    return (usual if doubt else _along(lines, usual, lengths)), doubt


def _signs(
    like: Tensor, shape: Sequence[int], to_cells: Callable[[Tensor], Tensor], where: Sequence[float]
) -> tuple[Float[Tensor, "..."], Grid, Grid]:
    """A raw tensor of random signs at one cell and zeros; the grid; and the cell."""
    with torch.enable_grad():
        raw = torch.zeros(tuple(shape), dtype=like.dtype, device=like.device, requires_grad=True)
        cells = to_cells(raw)
    grid = tuple(cells.shape[2:])
    cell = tuple(round(share * (length - 1)) for share, length in zip(where, grid, strict=False))
    signs = torch.zeros_like(cells)
    signs[0, :, *cell] = torch.randn(cells.shape[1], generator=torch.Generator().manual_seed(0)).sign().to(cells)
    (seed,) = torch.autograd.grad(cells, raw, signs)
    return seed, grid, cell


def _read(edge: GradientEdge, leaf: Tensor, raw: Tensor, tiles: Sequence[int]) -> Float[Tensor, "*parts"]:
    """How much of each part of a tile goes into what these signs sum, where the mean is 1; zeros for nothing."""
    (gradient,) = torch.autograd.grad([edge], [leaf], [raw], retain_graph=True)
    squares = gradient.detach().double().square().flatten(0, 1).sum(0)
    parts = interpolate(squares[None, None], size=[_PARTS * cells for cells in tiles], mode="area")[0, 0]
    return torch.nan_to_num(parts / parts.mean(), posinf=0)


def _center(excess: Float[Tensor, "*parts"], stand: Center) -> Center | None:
    """Where the greatest and what is within a tile of it have their center of mass; None if that tells of no place."""
    peak = [int(place) for place in torch.unravel_index(excess.argmax(), excess.shape)]
    near = _around(excess, peak, _REACH)
    if float(near.max()) < _TELLING or float(near.sum()) < float(excess.sum()) / 2:
        return None
    profiles = [near.movedim(axis, 0).reshape(near.shape[axis], -1).sum(1).tolist() for axis in range(near.ndim)]
    middles = [sum(place * mass for place, mass in enumerate(masses)) / sum(masses) for masses in profiles]
    found = [
        (max(0, place - _REACH) + middle + 0.5) / _PARTS - 0.5 for place, middle in zip(peak, middles, strict=True)
    ]
    away = max(abs(at - own) for at, own in zip(found, stand, strict=True)) > _ASTRAY
    own = _around(excess, [int(_PARTS * (place + 0.5)) for place in stand], _REACH)
    several = float(own.max()) > _OWN * float(near.max()) or float(excess.mean()) < _ALONE
    return None if away and several else tuple(found)


def _around(excess: Float[Tensor, "*parts"], middle: Sequence[int], reach: int) -> Float[Tensor, "*_"]:
    return excess[tuple(slice(max(0, place - reach), place + reach + 1) for place in middle)]


def _line(seen: Sequence[tuple[float, float]], ends: Ends) -> Line:
    """Offset and step, in tiles, of the line that an axis' cells look along; 0 and 1 are the tiles."""
    whole = [(cell, at) for cell, at in seen if ends[0] + 0.1 <= at <= ends[1] - 0.1]  # the border cuts others off
    steps = [(b - a) / (j - i) for (i, a), (j, b) in combinations(whole, 2) if i != j]
    if len(whole) < 3 or not steps:
        return _TILES
    step = median(steps)
    offset = median(at - step * cell for cell, at in whole)
    away = [offset + (step - 1) * end for end in ends]
    off, drawn_in = max(map(abs, away)), _DRAWN < step < 1 and abs(sum(away)) / 2 < NOTABLE
    loose = max(_gap((offset, step), cell, at, ends) for cell, at in seen)
    sure = step > 0 and loose < _STRAIGHT and off > max(NOTABLE, _SURE * loose)
    return (offset, step) if sure and not drawn_in else _TILES


def _gap(line: Line, cell: float, at: float, ends: Ends) -> float:
    """How many tiles it is from there to the place in the picture that is nearest to where the line has the cell."""
    return abs(at - min(max(line[0] + line[1] * cell, ends[0]), ends[1]))


def _along(lines: Sequence[Line], usual: Placement, tiles: Sequence[float]) -> Placement:
    """Cells along these lines; tiles are so many pixels long."""
    if all(line == _TILES for line in lines):
        return usual
    axes = list(zip(lines, usual.offset, tiles, strict=True))
    offset = tuple(
        (start + step * ((at + 0.5) / length - 0.5) + 0.5) * length - 0.5 for (start, step), at, length in axes
    )
    return Placement(offset, tuple(line[1] * far for line, far in zip(lines, usual.stride, strict=True)), "measured")


def _astray(
    found: Sequence[tuple[Center, Center]], lines: Sequence[Line], ends: Sequence[Ends], tiles: Sequence[float]
) -> str:
    """That cells look elsewhere than the lines have them, and by how many pixels, if so."""
    pixels = 0.0
    for axis, (line, end, length) in enumerate(zip(lines, ends, tiles, strict=True)):
        gaps = [_gap(line, stand[axis], at[axis], end) for stand, at in found]
        pixels = max([pixels, *(gap * length for gap in gaps if gap > _ASTRAY)])
    said = "its cells read other places of the image than those where they stand"
    return f"{said}, up to {pixels:.0f} pixels away" if pixels else ""


def _blind(stands: Sequence[Center], lines: Sequence[Line], ends: Sequence[Ends]) -> str:
    """That cells which the lines have in the picture read nothing of it, if so."""
    axes = list(zip(lines, ends, strict=True))
    within = [
        all(
            low - 0.75 < start + step * at < high + 0.75
            for at, ((start, step), (low, high)) in zip(stand, axes, strict=True)
        )
        for stand in stands
    ]
    return f"{sum(within)} of {len(_CELLS)} cells asked read nothing of the image" if any(within) else ""
