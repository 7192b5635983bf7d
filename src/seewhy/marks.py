"""Between the pixels of a photo and those that a model is given: where what was asked lies, in either."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Corners = tuple[float, ...]
"""x0, y0, x1, y1: edges of pixels."""
_TIE = 1e-9
"""Rounding of a place that lies on the border of two pixels does not decide for the first of them."""


@runtime_checkable
class Sight(Protocol):
    """What a model sees of a photo: `input = scale * photo + shift` on each axis, see `data.frame.Frame`."""

    @property
    def photo_size(self) -> tuple[int, int]:
        """Height and width of the photo."""
        ...

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        ...

    @property
    def scale(self) -> tuple[float, float]:
        """For y and x."""
        ...

    @property
    def shift(self) -> tuple[float, float]:
        """For y and x."""
        ...

    @property
    def view(self) -> tuple[float, float, float, float]:
        """The box of the photo that the model is given."""
        ...


@dataclass(frozen=True)
class _Axis:
    """One axis of a photo and of the model's input: edge e of the photo lies at `scale * e + offset` of the input."""

    photo: int
    input: int
    scale: float
    offset: float
    low: float
    high: float

    def seen(self, edge: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether the model sees these places of the photo."""
        return (edge >= self.low - _TIE) & (edge < self.high - _TIE)


def _axes(sight: Sight | None, size: Sequence[int]) -> Iterator[_Axis]:
    """The axes of the images; where there is no photo, its pixels are those of the input."""
    if sight is None:
        yield from (_Axis(side, side, 1.0, 0.0, 0.0, side) for side in size)
        return
    x0, y0, x1, y1 = sight.view
    for axis, (low, high) in enumerate(((y0, y1), (x0, x1))):
        scale = sight.scale[axis]
        offset = sight.shift[axis] + 0.5 - 0.5 * scale
        yield _Axis(sight.photo_size[axis], sight.input_size[axis], scale, offset, low, high)


def is_fitted(sight: Sight | None) -> bool:
    """Whether the model is given other pixels than those of the image itself: a photo that was made its input."""
    return sight is not None and (sight.photo_size != sight.input_size or sight.scale != (1.0, 1.0))


def photo_size(sight: Sight | None, size: Sequence[int]) -> tuple[int, ...]:
    """The size of the photo, or of the input where there is none."""
    return tuple(axis.photo for axis in _axes(sight, size))


def to_input(point: Sequence[float], sight: Sight | None, size: Sequence[int]) -> tuple[float, ...]:
    """A place of the photo, by edges (y, x), in the model's input; nothing is clipped."""
    return tuple(axis.scale * at + axis.offset for at, axis in zip(point, _axes(sight, size), strict=True))


def box_to_photo(box: Corners, sight: Sight | None, size: Sequence[int]) -> Corners:
    """A box of the model's input, in the photo; nothing is clipped."""
    y, x = _axes(sight, size)
    return tuple((edge - axis.offset) / axis.scale for edge, axis in zip(box, (x, y, x, y), strict=True))


def cell_of(pixel: Sequence[int], sight: Sight | None, size: Sequence[int], grid: Sequence[int]) -> list[int] | None:
    """The cell of a grid over the input in which the middle of the photo's pixel lies; None where no cell looks."""
    each = [over[at] for at, over in zip(pixel, _over(sight, size, grid), strict=True)]
    return None if min(each) < 0 else [int(cell) for cell in each]


def _over(sight: Sight | None, size: Sequence[int], grid: Sequence[int]) -> list[Int[Tensor, " _"]]:
    """For each axis and pixel of the photo, the cell that its middle lies in; -1 where the model does not see it."""
    found: list[Tensor] = []
    for axis, cells in zip(_axes(sight, size), grid, strict=True):
        middles = torch.arange(axis.photo, dtype=torch.float64) + 0.5
        cell = ((axis.scale * middles + axis.offset) * cells / axis.input + _TIE).floor().long()
        found.append(cell.where(axis.seen(middles) & (cell >= 0) & (cell < cells), cell.new_tensor(-1)))
    return found


def _under(sight: Sight | None, size: Sequence[int], grid: Sequence[int]) -> list[Int[Tensor, " _"]]:
    """For each axis and cell of a grid, the pixel of the photo under its middle; -1 beside what the model sees."""
    found: list[Tensor] = []
    for axis, cells in zip(_axes(sight, size), grid, strict=True):
        middles = (torch.arange(cells, dtype=torch.float64) + 0.5) * axis.input / cells
        edge = (middles - axis.offset) / axis.scale
        pixel = (edge + _TIE).floor().long().clamp_max(axis.photo - 1)
        found.append(pixel.where(axis.seen(edge) & (pixel >= 0), pixel.new_tensor(-1)))
    return found


def on_grid(
    mask: Bool[Tensor, "*s"], sight: Sight | None, size: Sequence[int], grid: Sequence[int]
) -> Bool[Tensor, "*grid"]:
    """A mask of the photo on a grid over the input: a cell takes the pixel under its middle.

    So small a part that it lies under no middle becomes the one cell over the middlemost of its pixels that are seen;
    without such pixels the mask is empty.
    """
    taken = _taken(mask, _under(sight, size, grid))
    if bool(taken.any()):
        return taken
    over = _over(sight, size, grid)
    seen = _taken(mask, [torch.arange(len(cells)).where(cells >= 0, cells) for cells in over])
    own = seen.nonzero()
    if len(own):
        middlemost = own[len(own) // 2].tolist()
        taken[tuple(int(cells[at]) for cells, at in zip(over, middlemost, strict=True))] = True
    return taken


def on_photo(mask: Bool[Tensor, "*grid"], sight: Sight | None, size: Sequence[int]) -> Bool[Tensor, "*s"]:
    """A mask on a grid over the input, at the photo's own pixels: each is of the cell that its middle lies in."""
    return _taken(mask, _over(sight, size, tuple(mask.shape)))


def _taken(mask: Bool[Tensor, "*s"], places: Sequence[Int[Tensor, " _"]]) -> Bool[Tensor, "*grid"]:
    """For each place the mask's value there, and False for -1."""
    for axis, place in enumerate(places):
        place = place.to(mask.device)
        inside = (place >= 0).reshape(-1, *[1] * (mask.ndim - 1 - axis))
        mask = mask.index_select(axis, place.clamp_min(0)) & inside
    return mask


@dataclass(frozen=True, eq=False)
class Marks:
    """Where in an image lies what was asked about, in pixels of the photo, or of the input where there is none.

    Attributes:
        boxes: x0, y0, x1, y1, pixel edges.
        points: (y, x) of pixels; as many numbers as the image has axes.
        grids: regions, as the model's output has them.
        sight: what the model sees of the photo.
        size: of the model's input.
    """

    boxes: tuple[Corners, ...] = ()
    points: tuple[tuple[int, ...], ...] = ()
    grids: tuple[Bool[Tensor, "*_"], ...] = ()
    sight: Sight | None = None
    size: tuple[int, ...] = ()

    @cached_property
    def masks(self) -> tuple[Bool[Tensor, "*_"], ...]:
        """The regions at the photo's pixels."""
        return tuple(on_photo(grid.cpu(), self.sight, self.size) for grid in self.grids)

    @property
    def places(self) -> tuple[Bool[Tensor, "*_"], ...]:
        """The regions, and each point as the region of its one pixel."""
        alone = [torch.zeros(photo_size(self.sight, self.size), dtype=torch.bool) for _ in self.points]
        for mask, point in zip(alone, self.points, strict=True):
            mask[point] = True
        return (*self.masks, *alone)

    def __bool__(self) -> bool:
        return bool(self.boxes or self.points or self.grids)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: boxes, points, and how many pixels each region has."""
        found = {"boxes": self.boxes, "points": self.points, "regions": [int(mask.sum()) for mask in self.masks]}
        return {name: [list(e) if isinstance(e, tuple) else e for e in each] for name, each in found.items() if each}


def joined(several: Sequence[Marks]) -> Marks:
    """What several questions about one image mark, each once."""
    if not several:
        return Marks()
    grids: list[Tensor] = []
    for grid in (grid for each in several for grid in each.grids):
        if not any(torch.equal(grid, other) for other in grids):
            grids.append(grid)
    return Marks(
        tuple(dict.fromkeys(box for each in several for box in each.boxes)),
        tuple(dict.fromkeys(point for each in several for point in each.points)),
        tuple(grids),
        several[0].sight,
        several[0].size,
    )
