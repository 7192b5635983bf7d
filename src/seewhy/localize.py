"""From a map to a place: its peak, the mask above a threshold, connected segments and their boxes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seewhy.types import MethodError, ShapeError

Indices = Int[np.ndarray, " _"]


@dataclass(frozen=True)
class Box:
    """The box round one connected segment of a map, in pixel edges: pixel p covers p..p+1, so width is x1 - x0.

    Attributes:
        x0: first column.
        y0: first row.
        x1: last column + 1.
        y1: last row + 1.
        area: of the segment (not of the box), in pixels.
        score: mean heat of the segment's pixels, in the map's unit.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    area: int
    score: float

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """The four edges."""
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True)
class Span:
    """As `Box`, of a map of one axis or of more than two: in the order of its axes, (t,), (t, y, x) or (z, y, x).

    Attributes:
        start: first place of the segment along each axis.
        stop: last place + 1.
        area: of the segment, in places.
        score: mean heat of these, in the map's unit.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    area: int
    score: float


def peak(map: Float[Tensor, "*s"]) -> tuple[int, ...] | None:
    """Row and column of the largest value, or None where no value is positive: such a map points nowhere.

    Of a map with other axes one number for each. Of tied pixels the first in row order: their mean position may be no
    pixel of them, and lie outside the object.

    Raises:
        ShapeError: for a map with NaN or infinity, or without a pixel.
    """
    values = _finite(map).cpu().double().numpy()  # numpy promises the first of several maxima, torch does not
    place = tuple(int(at) for at in np.unravel_index(values.argmax(), values.shape))
    return place if values[place] > 0 else None


def mask(map: Float[Tensor, "*s"], threshold: float = 0.15) -> Bool[Tensor, "*s"]:
    """Where the heat is at least this share of its maximum: map >= threshold * max, empty where max <= 0.

    The default is the Grad-CAM paper's. Scaling the map by a positive number changes nothing.

    Args:
        map: heat in any unit; negative values never belong.
        threshold: 0..1.

    Raises:
        ShapeError: for a map with NaN or infinity, or without a pixel.
        MethodError: for a threshold outside 0..1.
    """
    if not 0 <= threshold <= 1:
        raise MethodError(f"got threshold={threshold}; it is a share of the map's maximum, 0..1; 0.15 is the paper's")
    largest = _finite(map).max()
    return (map >= threshold * largest) & (largest > 0)


def components(mask: Bool[Tensor, "*s"], connectivity: Literal[4, 8] = 8) -> Int[Tensor, "*s"]:
    """Number the connected segments of a mask 1, 2, ... in the row order of their first pixels; 0 elsewhere.

    Args:
        mask: what belongs to a segment, of any number of axes.
        connectivity: 8 where pixels that touch at a corner or edge are connected too, else 4 (26 and 6 in a volume).
    """
    if connectivity not in (4, 8):
        raise MethodError(f"got connectivity={connectivity}; pixels touch 4 or 8 neighbors; pass 4 or 8")
    # a gap after each axis, so that no step reaches into the next row, and one before the first
    gapped, own = tuple(side + 1 for side in mask.shape), tuple(slice(side) for side in mask.shape)
    flat = np.zeros(math.prod(gapped) + 1, np.int8)
    flat[1:].reshape(gapped)[own] = mask.cpu().numpy()
    changes = np.flatnonzero(np.diff(flat))
    starts, ends = changes[::2], changes[1::2]
    pairs = [_touching(starts, ends, step, connectivity == 8) for step in _steps(gapped, connectivity == 8)]
    one, other = (np.concatenate([np.zeros(0, np.int64), *(pair[end] for pair in pairs)]) for end in (0, 1))
    labels = _connected(len(starts), one, other)
    steps = np.zeros(len(flat), np.int64)
    steps[starts] += labels
    steps[ends] -= labels
    painted = steps[:-1].cumsum().reshape(gapped)[own]
    return torch.from_numpy(np.ascontiguousarray(painted)).to(mask.device)


def boxes(map: Float[Tensor, "*s"], threshold: float = 0.15, largest: bool = True) -> list[Box | Span]:
    """Boxes of the connected segments where the heat is at least `threshold` of its maximum, the largest segment first.

    With the defaults the rule of the Grad-CAM paper: 15 % of the maximum, the box of the single largest segment. The
    paper does not say how pixels connect: here by edges and corners. Segments of equal area are in row order.

    Args:
        map: heat in any unit.
        threshold: 0..1, share of the maximum.
        largest: only the largest segment.

    Returns:
        The boxes, of a map that has not two axes as `Span`; none where no value is positive.

    Reference:
        Selvaraju et al., Grad-CAM (ICCV 2017), section 4.1.
    """
    labels = components(mask(map, threshold)).cpu().numpy()
    axes = np.nonzero(labels)
    segments = labels[axes] - 1
    if not len(segments):
        return []
    area = np.bincount(segments)
    score = np.bincount(segments, weights=map.detach().cpu().double().numpy()[axes]) / area
    low, high = np.full((len(axes), len(area)), max(labels.shape)), np.zeros((len(axes), len(area)), np.int64)
    for axis, places in enumerate(axes):
        np.minimum.at(low[axis], segments, places)
        np.maximum.at(high[axis], segments, places + 1)
    order = np.argsort(-area, kind="stable")[: 1 if largest else None]
    return [_boxed(low[:, n].tolist(), high[:, n].tolist(), int(area[n]), float(score[n])) for n in order]


def _boxed(low: list[int], high: list[int], area: int, score: float) -> Box | Span:
    if len(low) != 2:
        return Span(tuple(low), tuple(high), area, score)
    return Box(low[1], low[0], high[1], high[0], area, score)


def _steps(sides: Sequence[int], corners: bool) -> list[int]:
    """From a row to those after it that touch it, as places of the flat mask: over edges alone, or corners too."""
    around = product((-1, 0, 1) if corners else (0, 1), repeat=len(sides) - 1)
    after = [step for step in around if step > (0,) * len(step) and (corners or sum(step) == 1)]
    strides = [math.prod(sides[axis + 1 :]) for axis in range(len(sides) - 1)]
    return [sum(by * stride for by, stride in zip(step, strides, strict=True)) for step in after]


def _finite(map: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    if not map.numel():
        raise ShapeError(f"got a map of {tuple(map.shape)}; a place needs pixels; check how it was cropped")
    bad = int((~map.isfinite()).sum())
    if bad:
        raise ShapeError(f"got a map with {bad} values of NaN or infinity; a place needs numbers; mend the map first")
    return map.detach()


def _touching(starts: Indices, ends: Indices, row: int, corners: bool) -> tuple[Indices, Indices]:
    """Pairs of runs in neighboring rows that touch, by the runs' first places and those after their last."""
    first = np.searchsorted(ends, starts + row - corners, side="right")
    count = np.searchsorted(starts, ends + row + corners, side="left") - first
    upper = np.repeat(np.arange(len(starts)), count)
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    return upper, first[upper] + within


def _connected(runs: int, one: Indices, other: Indices) -> Indices:
    """Union-find over all pairs at once: hook the larger root below the smaller, then halve every path to its root."""
    root = np.arange(runs)
    while len(one):
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while (root[root] != root).any():
            root = root[root]
        one, other = root[one], root[other]
        apart = one != other
        one, other = one[apart], other[apart]
    return np.unique(root, return_inverse=True)[1] + 1
