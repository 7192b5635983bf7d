"""Whether the cells of a layer's grid look where they stand, where no arithmetic of receptive fields can tell.

A flip, a roll, a transposition or a scan in another order leaves the shape of a grid as it was, and a map of it would
be laid over the wrong places. So two cells far apart are asked: what of the picture one of them reads more than the
other does must be near itself.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.functional import interpolate

_CELLS = ((0.1, 0.9, 0.2), (0.9, 0.2, 0.8))
"""Where along each axis the two cells stand: neither near to where a flip or a transposition would put it."""

_TELLING = 3.0
"""An excess of so many times the mean tells of a place; where attention is all over the picture, none does."""

_ELSEWHERE = 0.2
"""Of the greatest excess; of 120 networks of timm, torchvision and transformers, none has less at both of its cells."""


def elsewhere(
    edge: GradientEdge, shape: Sequence[int], leaf: Float[Tensor, "b c *s"], to_cells: Callable[[Tensor], Tensor]
) -> bool:
    """Whether both cells read other places of the picture than those where they stand; two backward passes.

    With r_k the share of |d cell_k / d picture|^2 in each tile, times the number of tiles, and random signs for the
    cell's channels: cell k tells of a place if max (r_k - r_other) is over 3, and stands elsewhere if no more than a
    fifth of that is found in the tiles next to its own. False where one of them tells nothing.

    Args:
        edge: the layer's raw tensor on the graph of a forward pass on noise; the graph is kept.
        shape: the raw tensor's shape.
        leaf: that pass's input, which requires grad.
        to_cells: from the raw tensor to `(b c *grid)`.
    """
    seeds = [_signs(leaf, shape, to_cells, where) for where in _CELLS]
    read = [_read(edge, leaf, raw, grid) for raw, grid, _ in seeds]
    excess = [read[0] - read[1], read[1] - read[0]]
    return all(
        float(more.max()) > _TELLING and float(_near(more, cell).max()) < _ELSEWHERE * float(more.max())
        for more, (_, _, cell) in zip(excess, seeds, strict=True)
    )


def _signs(
    like: Tensor, shape: Sequence[int], to_cells: Callable[[Tensor], Tensor], where: Sequence[float]
) -> tuple[Float[Tensor, "..."], tuple[int, ...], tuple[int, ...]]:
    """A raw tensor of random signs at one cell and zeros; the grid; and the cell."""
    with torch.enable_grad():
        raw = torch.zeros(tuple(shape), dtype=like.dtype, device=like.device, requires_grad=True)
        cells = to_cells(raw)
    grid = tuple(cells.shape[2:])
    cell = tuple(int(share * length) for share, length in zip(where, grid, strict=False))
    signs = torch.zeros_like(cells)
    signs[0, :, *cell] = torch.randn(cells.shape[1], generator=torch.Generator().manual_seed(0)).sign().to(cells)
    (seed,) = torch.autograd.grad(cells, raw, signs)
    return seed, grid, cell


def _read(edge: GradientEdge, leaf: Tensor, raw: Tensor, grid: Sequence[int]) -> Float[Tensor, "*grid"]:
    """How much of each tile of the picture goes into what these signs sum, where the mean is 1."""
    (gradient,) = torch.autograd.grad([edge], [leaf], [raw], retain_graph=True)
    squares = gradient.detach().double().square().flatten(0, 1).sum(0)
    tiles = interpolate(squares[None, None], size=list(grid), mode="area")[0, 0]
    return tiles / tiles.mean()  # no number where nothing comes back, which is no excess


def _near(tiles: Float[Tensor, "*grid"], cell: Sequence[int]) -> Float[Tensor, "*_"]:
    return tiles[tuple(slice(max(0, place - 1), place + 2) for place in cell)]
