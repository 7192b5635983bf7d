"""Windows that cover an image, and how much each counts where several overlap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.types import ShapeError
from seewhy.wording import by

Size = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one size that cover an image of any number of axes.

    Args:
        size: of a window, in pixels along each axis.
        starts: for each axis where its windows begin.
        along: for each axis `(windows pixels)` how much each counts at its own pixels; where several overlap, their
            weights sum to 1.
    """

    size: Size
    starts: tuple[tuple[int, ...], ...]
    along: tuple[Float[Tensor, "_ _"], ...]

    @staticmethod
    def over(whole: Sequence[int], size: Size, overlap: float, margin: int) -> "Windows":
        """Windows that overlap by at least this share of their length; the last one is shifted to end with the image.

        Each counts by its distance from those of its sides that another one overlaps, less the margin.

        Raises:
            ShapeError: they do not lie within the image, or the overlap or the margin is none.
        """
        _check(whole, size, overlap, margin)
        starts = tuple(
            (*range(0, pixels - length, _step(length, overlap)), pixels - length)
            for pixels, length in zip(whole, size, strict=True)
        )
        return Windows(size, starts, tuple(_weights(*axis, margin) for axis in zip(whole, size, starts, strict=True)))

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def places(self) -> list[tuple[slice, ...]]:
        """The place of each window in the image."""
        axes = [
            [slice(start, start + length) for start in each]
            for each, length in zip(self.starts, self.size, strict=True)
        ]
        return list(product(*axes))

    @property
    def weights(self) -> Iterator[Float[Tensor, "*_"]]:
        """How much each window counts at each of its pixels: the product of what it does along the axes."""
        for numbers in product(*map(range, map(len, self.starts))):
            weight = torch.ones((), dtype=torch.float64)
            for number, axis in zip(numbers, self.along, strict=True):
                weight = weight[..., None] * axis[number]
            yield weight

    @cached_property
    def shares(self) -> Float[Tensor, " n"]:
        """The share of the image that each window stands for; they sum to 1."""
        areas = torch.stack([weight.sum() for weight in self.weights])
        return areas / areas.sum()


def _step(length: int, overlap: float) -> int:
    return max(1, int(length * (1 - overlap)))


def _weights(pixels: int, length: int, starts: Sequence[int], margin: int) -> Float[Tensor, "_ _"]:
    inside = torch.arange(length, dtype=torch.float64) + 0.5
    outer = torch.full_like(inside, length)
    raw = torch.stack(
        [
            torch.minimum(
                inside - margin if start else outer,
                length - inside - margin if start + length < pixels else outer,
            ).clamp_min(0)
            for start in starts
        ]
    )
    total = torch.zeros(pixels, dtype=torch.float64)
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + length] += weight
    return raw / torch.stack([total[start : start + length] for start in starts])


def _check(whole: Sequence[int], size: Size, overlap: float, margin: int) -> None:
    if len(size) != len(whole) or any(not 0 < length <= pixels for length, pixels in zip(size, whole, strict=True)):
        raise ShapeError(
            f"got tiles of {by(size)} for an image of {by(whole)}; a tile lies within the image: give another size=, "
            "or explain the image as a whole by seewhy.explain"
        )
    if not 0 <= overlap < 1:
        raise ShapeError(f"got overlap={overlap}; it is a share of a tile, from 0 to below 1; give 0.5")
    shared = min(length - _step(length, overlap) for length in size)
    if not 0 <= 2 * margin <= shared:
        raise ShapeError(
            f"got margin={margin}; tiles overlap by {shared} pixels, of which each can leave half to the other: give "
            f"0 to {shared // 2}, or more overlap="
        )
