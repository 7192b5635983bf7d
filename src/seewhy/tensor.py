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


def first_component(x: Float[Tensor, "b c *grid"], center: bool) -> Float[Tensor, "b *grid"]:
    """Projection of the channel vectors of all places on their first principal direction: P = v_1^T X.

    X is (c, places), v_1 its first left singular vector, so |P| = sigma_1. `center` first subtracts each channel's mean
    over the places. The sign, which the decomposition leaves open: sum(P) >= 0, or with `center`, where that sum is
    zero, a non-negative correlation with the mean over channels. Zero in, zero out. Any direction of the leading space
    is returned where the two largest singular values coincide. Differentiable once.
    """
    flat = x.flatten(2)
    if center:
        flat = flat - flat.mean(-1, keepdim=True)
    largest = flat.detach().abs().amax((1, 2), keepdim=True)
    size = largest.where(largest != 0, torch.ones_like(largest))
    flat = flat / size  # the squares of tiny activations would vanish in the Gram matrix
    if flat.shape[1] <= flat.shape[2]:
        projection = torch.einsum("bc,bcn->bn", leading_eigenvector(flat @ flat.mT), flat)
    else:
        direction = leading_eigenvector(flat.mT @ flat)
        sigma = torch.linalg.vector_norm(torch.einsum("bcn,bn->bc", flat, direction), dim=-1, keepdim=True)
        projection = sigma * direction
    agreement = (projection * flat.mean(1) if center else projection).sum(-1, keepdim=True)
    sign = torch.where(agreement < 0, -1.0, 1.0).to(projection)
    return (sign * projection * size[:, 0]).reshape(x.shape[:1] + x.shape[2:])


def leading_eigenvector(matrix: Float[Tensor, "b n n"]) -> Float[Tensor, "b n"]:
    """Unit eigenvector of the largest eigenvalue of symmetric matrices, differentiable once.

    dv_1 = sum over k > 1 of v_k (v_k^T dM v_1) / (lambda_1 - lambda_k). The library's own derivative divides zero by
    zero as soon as any two eigenvalues coincide, which two dead channels suffice for.
    """
    # in float32 LAPACK fails, or returns NaN, on one in ten matrices of rank one: a layer with one channel that counts
    values, vectors = (part.to(matrix) for part in torch.linalg.eigh(matrix.detach().nan_to_num().double()))
    first, others = vectors[..., -1], vectors[..., :-1]
    gaps = values[..., -1:] - values[..., :-1]
    inverse = torch.where(gaps > 0, 1 / gaps.where(gaps > 0, torch.ones_like(gaps)), torch.zeros_like(gaps))
    pull = torch.einsum("bnk,bnm,bm->bk", others, matrix, first)
    # zero in value, and NaN where the matrix holds one; only its derivative is wanted
    return first + torch.einsum("bnk,bk->bn", others, inverse * (pull - pull.detach()))


def unit(map: Float[Tensor, "b *grid"]) -> Float[Tensor, "b *grid"]:
    """The positive part divided by its maximum, each image by its own: 0..1, where zero stays zero.

    A map without any positive value stays all zero. Never min-max, which would move the zero and stretch weak evidence.
    """
    positive = map.relu()
    largest = positive.flatten(1).amax(-1).reshape(-1, *[1] * (map.ndim - 1))
    return positive / largest.where(largest > 0, torch.ones_like(largest))


def centered(map: Float[Tensor, "b *grid"]) -> Float[Tensor, "b *grid"]:
    """The map less its mean over all places, each image its own: what a map of scores has of evidence."""
    return map - map.flatten(1).mean(1).reshape(-1, *[1] * (map.ndim - 1))


def interpolation(positions: Float[Tensor, " out"], cells: int) -> Float[Tensor, "out cells"]:
    """The matrix of linear interpolation of `cells` values, placed at 0, 1, 2, ..., at the given positions.

    Positions beyond the first or last cell take that cell's value. Rows sum to 1.
    """
    at = positions.clamp(0, cells - 1)
    return (1 - (at[:, None] - torch.arange(cells, dtype=at.dtype, device=at.device)).abs()).clamp_min(0)


def resize(map: Float[Tensor, "b *grid"], matrices: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "b *size"]:
    """Interpolate a map of any rank, one matrix of `interpolation` for each spatial axis."""
    for axis, matrix in enumerate(matrices, start=1):
        map = (map.movedim(axis, -1) @ matrix.to(map).mT).movedim(-1, axis)
    return map


def full(x: Tensor) -> Tensor:
    """At least float32: half-precision activations stay half in a capture, evidence and maps do not."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def chunked(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `range(count)` in order."""
    return (slice(start, min(start + size, count)) for start in range(0, count, max(size, 1)))


def at_once(chunk: int | None, like: Tensor) -> int:
    """How many changed copies of images run through a model together: as wished, else what is fastest.

    On a CPU one for each thread, but 4 at least: the caches hold no more, and fresh memory for large activations costs
    more than a larger batch saves (docs/cost.md). Elsewhere 32.
    """
    if chunk is not None:
        return chunk
    return max(4, torch.get_num_threads()) if like.device.type == "cpu" else 32


def noise(images: Float[Tensor, "b c *s"], samples: int, seed: int) -> Iterator[Float[Tensor, "c *s"]]:
    """Standard normal draws for one image, to be given to all alike, so that no image depends on its company.

    Drawn in double precision on the CPU: the same numbers for every device and type. More samples begin like fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(samples):
        yield torch.randn(images.shape[1:], generator=generator, dtype=torch.float64).to(images)
