"""Windows that cover an image, and how much each counts where several overlap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from numbers import Integral, Real
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.types import ShapeError
from seewhy.wording import by

Size = tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """How images are cut into windows: of which size, how far they overlap, and which margin of theirs does not count.

    Raises:
        ShapeError: an overlap or margin of another kind.
    """

    size: Size
    overlap: float
    margin: int

    def __post_init__(self) -> None:
        if not _is(self.overlap, Real) or not 0 <= self.overlap < 1:
            raise ShapeError(f"got overlap={self.overlap!r}; it is a share of a tile, from 0 to below 1; give 0.5")
        if not _is(self.margin, Integral):
            raise ShapeError(f"got margin={self.margin!r}; it is a whole number of pixels: give 0, or what is padded")

    @property
    def shared(self) -> int:
        """How many pixels neighbors have in common at least, along any axis."""
        return min(length - step(length, self.overlap) for length in self.size)

    def over(self, whole: Sequence[int]) -> "Windows":
        """The windows of an image."""
        return Windows.over(whole, self.size, self.overlap, self.margin)

    def scaled(self, before: Sequence[int], after: Sequence[int]) -> "Cut":
        """The same of a copy of an image at another size."""
        sides = list(zip(self.size, before, after, strict=True))
        larger = replace(self, size=tuple(max(1, round(length * now / was)) for length, was, now in sides))
        margin = min(self.margin * now // was for _, was, now in sides)
        return replace(larger, margin=min(margin, larger.shared // 2))


def size_of(given: Any, axes: int) -> Size:
    """The size of a window: one number for all axes, or one for each.

    Raises:
        ShapeError: they are no whole numbers from 1 on.
    """
    plain = given.tolist() if hasattr(given, "tolist") else given
    listed = list(cast(Sequence[Any], plain)) if isinstance(plain, list | tuple) else [plain] * axes
    if not listed or not all(_is(length, Integral) and length > 0 for length in listed):
        raise ShapeError(
            f"got size={given!r}; it is a tile's pixels, a whole number from 1 on or one for each axis: 224"
        )
    return tuple(int(length) for length in listed)


def _is(given: Any, kind: type) -> bool:
    return isinstance(given, kind) and not isinstance(given, bool)


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
            (*range(0, pixels - length, step(length, overlap)), pixels - length)
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


def step(length: int, overlap: float) -> int:
    """How far the next window begins behind one of this length."""
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
    if len(size) != len(whole):
        raise ShapeError(
            f"got tiles of {len(size)} axes, {by(size)}, for an image of {len(whole)}, {by(whole)}; give size= one "
            "number for all axes, or one for each"
        )
    if any(not 0 < length <= pixels for length, pixels in zip(size, whole, strict=True)):
        raise ShapeError(
            f"got tiles of {by(size)} for an image of {by(whole)}; a tile lies within the image: give another size=, "
            "or explain the image as a whole by seewhy.explain"
        )
    shared = Cut(size, overlap, margin).shared
    if not 0 <= 2 * margin <= shared:
        raise ShapeError(
            f"got margin={margin}; tiles overlap by {shared} pixels, of which each can leave half to the other: give "
            f"0 to {shared // 2}, or more overlap="
        )
