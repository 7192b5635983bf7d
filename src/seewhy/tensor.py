"""The few tensor operations that the formulas are written in."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_sum(weights: Float[Tensor, "b c"], activations: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b *grid"]:
    """Sum over channels, each with its weight: L = sum_k w_k A_k."""
    return torch.einsum("bc,bc...->b...", weights, activations)


def spatial_sum(x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c"]:
    """Sum over all places of the grid."""
    return x.flatten(2).sum(-1)


def spatial_mean(x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c"]:
    """Mean over all places of the grid (global average pooling)."""
    return x.flatten(2).mean(-1)


def unit(map: Float[Tensor, "b *grid"]) -> Float[Tensor, "b *grid"]:
    """The positive part divided by its maximum, each image by its own: 0..1, where zero stays zero.

    A map without any positive value stays all zero. Never min-max, which would move the zero and stretch weak evidence.
    """
    positive = map.relu()
    largest = positive.flatten(1).amax(-1).reshape(-1, *[1] * (map.ndim - 1))
    return positive / largest.where(largest > 0, torch.ones_like(largest))


def interpolation(positions: Float[Tensor, " out"], cells: int) -> Float[Tensor, "out cells"]:
    """The matrix of linear interpolation of `cells` values, placed at 0, 1, 2, ..., at the given positions.

    Positions beyond the first or last cell take that cell's value. Rows sum to 1.
    """
    at = positions.clamp(0, cells - 1)
    return (1 - (at[:, None] - torch.arange(cells, dtype=at.dtype, device=at.device)).abs()).clamp_min(0)


def resize(map: Float[Tensor, "b *grid"], matrices: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "b *size"]:
    """Interpolate a map of any rank, one matrix of `interpolation` for each spatial axis."""
    for axis, matrix in enumerate(matrices, start=1):
        map = torch.tensordot(map, matrix.to(map), dims=([axis], [1])).movedim(-1, axis)
    return map


def chunked(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `range(count)` in order."""
    return (slice(start, min(start + size, count)) for start in range(0, count, max(size, 1)))
