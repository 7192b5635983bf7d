"""Where a cell of a layer's grid looks in the input, so that a map can be laid over the picture where it belongs.

Resizing a map as if its cells were tiles that cover the input can put it off by more than half a cell: strides and
lopsided padding move what a cell sees, and training moves part of it back. Measurements: `docs/alignment.md`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from seewhy.model.graph import shape_of
from seewhy.model.receptive import receptive_fields
from seewhy.tensor import interpolation

NOTABLE = 0.25
"""A cell that is off its tile by up to this share of it, or a pixel, counts as being there: a measurement's error."""


@dataclass(frozen=True)
class Placement:
    """Cell i of an axis looks at the input pixel (center coordinate) `offset + stride * i`.

    Args:
        offset: where cell 0 looks, in input pixels, for each spatial axis.
        stride: input pixels from one cell to the next, for each spatial axis.
        kind: how it was found: usual upsampling, receptive fields by arithmetic, or a gradient.
    """

    offset: tuple[float, ...]
    stride: tuple[float, ...]
    kind: Literal["tile", "analytic", "measured"]

    def matrices(
        self,
        size: Sequence[int],
        grid: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> list[Float[Tensor, "_ _"]]:
        """For each axis the matrix that `tensor.resize` takes from `grid` cells to `size` pixels.

        Pixel p reads at `(p - offset) / stride` in cells; beyond the outermost cells it takes their value.
        """
        axes = zip(size, grid, self.offset, self.stride, strict=True)
        return [_matrix(*axis, dtype, torch.device(device)) for axis in axes]

    def shift(self, size: Sequence[int], grid: Sequence[int]) -> tuple[float, ...]:
        """How far the middle of the grid looks from the middle of the input, in pixels; zero for tiles."""
        return tuple(
            offset + stride * (cells - 1) / 2 - (pixels - 1) / 2
            for pixels, cells, offset, stride in zip(size, grid, self.offset, self.stride, strict=True)
        )


def tile(grid: Sequence[int], size: Sequence[int]) -> Placement:
    """Cells as tiles that cover the input: the usual (half-pixel, `align_corners=False`) linear upsampling."""
    stride = [pixels / cells for pixels, cells in zip(size, grid, strict=True)]
    return _centered(grid, size, stride, (0.0,) * len(grid), "tile")


def analytic(edge: GradientEdge, leaf: Float[Tensor, "b c *s"], grid: Sequence[int]) -> Placement | None:
    """Each cell at the center of its receptive field, by arithmetic over convolutions, poolings, padding and slices.

    Exact for what a cell can see, which is not where a trained network looks: it learns to make up for lopsided
    padding. None where an operation mixes places in another way (attention, adaptive pooling,
    reshaping) or the tensor is laid out in another way.

    Args:
        edge: the layer's `(b c *grid)` tensor on the graph of a recorded forward pass.
        leaf: that pass's input, which requires grad.
        grid: cells along each axis.
    """
    laid_out = shape_of((edge.node, edge.output_nr))[2:] == tuple(grid) and len(grid) == leaf.ndim - 2
    fields = receptive_fields(edge, leaf, len(grid)) if laid_out else None
    if fields is None:
        return None
    return Placement(
        tuple(field.center for field in fields), tuple(float(field.stride) for field in fields), "analytic"
    )


def measured(
    edge: GradientEdge,
    shape: Sequence[int],
    leaf: Float[Tensor, "b c *s"],
    to_cells: Callable[[Tensor], Tensor] = lambda raw: raw,
) -> Placement:
    """Tiles, shifted to where the middle cells look: the centroid of |d(middle cells)/d(input)|, one backward pass.

        shift = sum_p p |g_p| / sum_p |g_p| - (size - 1) / 2,   g = d(sum_k +-A_k[middle]) / d input

    Random signs, for each channel and cell its own, keep them from canceling one another. The distance between cells
    stays that of the tiles: at the border a cell sees only what is inside the picture, which draws it inwards as tiles
    have it.

    Args:
        edge: the layer's raw tensor on the graph of a forward pass on noise (`probe`); the graph is kept.
        shape: the raw tensor's shape.
        leaf: that pass's input, which requires grad.
        to_cells: from the raw tensor to `(b c *grid)`.

    Returns:
        Placement of kind "measured"; the plain tiles where the gradient is zero or not finite.
    """
    raw, grid = _middle_signs(leaf, shape, to_cells)
    (gradient,) = torch.autograd.grad([edge], [leaf], [raw], retain_graph=True)
    size = tuple(leaf.shape[2:])
    strength = gradient.detach().double().abs().flatten(0, 1).sum(0)
    total = float(strength.sum())
    if not 0 < total < float("inf"):
        return tile(grid, size)
    shift = [_centroid(strength, axis) for axis in range(len(size))]
    return _centered(grid, size, tile(grid, size).stride, shift, "measured")


def place(
    edge: GradientEdge,
    shape: Sequence[int],
    leaf: Float[Tensor, "b c *s"],
    grid: Sequence[int],
    reckoned: Placement,
    to_cells: Callable[[Tensor], Tensor] = lambda raw: raw,
) -> Placement:
    """Where to lay the cells: as far apart as the network strides, moved where arithmetic and a gradient both say so.

    Arithmetic says how far apart the cells are, and whether the middle of the grid can be off the middle of the picture
    by a notable part of a cell; only then the backward pass of `measured` is spent, which says where it does look. Axes
    that the arithmetic cannot tell apart share one shift, which halves the variance. Cells that are nowhere notably off
    their tiles stay there.

    Args:
        edge: as for `measured`.
        shape: as for `measured`.
        leaf: as for `measured`.
        grid: cells along each axis.
        reckoned: where arithmetic has the cells, see `analytic`.
        to_cells: as for `measured`.
    """
    size = tuple(leaf.shape[2:])
    usual = tile(grid, size)
    middle = reckoned.shift(size, grid)
    raised = [abs(shift) > _notable(cell) for shift, cell in zip(middle, reckoned.stride, strict=True)]
    shift = (0.0,) * len(grid)
    if any(raised):
        alike = list(zip(reckoned.stride, middle, strict=True))
        pooled = _pooled(measured(edge, shape, leaf, to_cells).shift(size, grid), alike)
        shift = tuple(found if is_raised else 0.0 for found, is_raised in zip(pooled, raised, strict=True))
    found = _centered(grid, size, reckoned.stride, shift, "measured" if any(shift) else "analytic")
    moved = _off(found, usual, grid)
    offset, stride = (
        tuple(new if off else old for new, old, off in zip(*pair, moved, strict=True))
        for pair in ((found.offset, usual.offset), (found.stride, usual.stride))
    )
    return Placement(offset, stride, found.kind) if any(moved) else usual


def probe(images: Float[Tensor, "b c *s"]) -> Float[Tensor, "1 c *s"]:
    """One picture of white noise (always the same) in the range that these images seem to have.

    Uniform over 0..1 or 0..255 where the images stay within, else standard normal. Nothing but that range is taken from
    them, so that what is learnt does not depend on which photo came first.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (1, *images.shape[1:])
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 255:
        return torch.randn(shape, generator=generator).to(images)
    return (torch.rand(shape, generator=generator) * (1 if high <= 1 else 255)).to(images)


@lru_cache(maxsize=32)
def _matrix(
    pixels: int, cells: int, offset: float, stride: float, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "_ _"]:
    with torch.inference_mode(False):  # it is kept, and must be of use outside too
        return interpolation((torch.arange(pixels, dtype=dtype, device=device) - offset) / stride, cells)


def _centered(
    grid: Sequence[int],
    size: Sequence[int],
    stride: Sequence[float],
    shift: Sequence[float],
    kind: Literal["tile", "analytic", "measured"],
) -> Placement:
    """Cells of this stride whose middle looks `shift` pixels off the middle of the input."""
    axes = zip(grid, size, stride, shift, strict=True)
    offset = tuple((pixels - 1) / 2 - step * (cells - 1) / 2 + off for cells, pixels, step, off in axes)
    return Placement(offset, tuple(stride), kind)


def _notable(cell: float) -> float:
    """From how many pixels on a cell of that length counts as off its place."""
    return max(NOTABLE * cell, 1.0)


def _off(found: Placement, usual: Placement, grid: Sequence[int]) -> list[bool]:
    """For each axis whether an outermost cell is a notable part of a tile, and over a pixel, away from its tile."""
    axes = zip(found.offset, found.stride, usual.offset, usual.stride, grid, strict=True)
    return [
        max(abs(at - tile_at), abs(at - tile_at + (step - tile_step) * (cells - 1))) > _notable(tile_step)
        for at, step, tile_at, tile_step, cells in axes
    ]


def _pooled(shift: Sequence[float], alike: Sequence[tuple[float, float]]) -> list[float]:
    """Each axis' mean over the axes of the same key."""
    return [fmean(pixels for pixels, other in zip(shift, alike, strict=True) if other == key) for key in alike]


def _middle_signs(
    like: Tensor, shape: Sequence[int], to_cells: Callable[[Tensor], Tensor]
) -> tuple[Float[Tensor, "..."], tuple[int, ...]]:
    """A raw tensor of random signs at the grid's middle cells (two along an even axis) and zeros; and the grid."""
    with torch.enable_grad():
        raw = torch.zeros(tuple(shape), dtype=like.dtype, device=like.device, requires_grad=True)
        cells = to_cells(raw)
    grid = tuple(cells.shape[2:])
    signs = torch.randn(cells.shape, generator=torch.Generator().manual_seed(0)).sign().to(cells)
    for axis, length in enumerate(grid, start=2):
        middle = torch.zeros(length, dtype=cells.dtype, device=cells.device)
        middle[(length - 1) // 2 : length // 2 + 1] = 1
        signs = signs * middle.reshape(-1, *[1] * (cells.ndim - axis - 1))
    signs[1:] = 0  # where further arguments ask for a row for each image, one is enough and always the same
    (seed,) = torch.autograd.grad(cells, raw, signs)
    return seed, grid


def _centroid(strength: Float[Tensor, "*s"], axis: int) -> float:
    """The center of mass along one axis, counted from the middle."""
    profile = strength.movedim(axis, 0).reshape(strength.shape[axis], -1).sum(1)
    position = torch.arange(len(profile), dtype=profile.dtype, device=profile.device) - (len(profile) - 1) / 2
    return float((position * profile).sum() / profile.sum())
