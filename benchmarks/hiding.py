"""Pictures without a fifth of theirs: what a map is asked to tell by the benchmarks of similarities and of emotions."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from seewhy.metrics.localization import center_gaussian

SHARE = 0.2
CELLS = 4
"""Of the random map along each axis: it hides connected parts, as the coarse maps of layers do."""


def hidden(images: Float[Tensor, "b c h w"], maps: Float[Tensor, "b h w"], hottest: bool) -> Float[Tensor, "b c h w"]:
    """The images with a fifth of their pixels, the hottest or the coldest, in the mean color of each."""
    count = round(SHARE * maps[0].numel())
    order = maps.flatten(1).argsort(dim=1, descending=hottest, stable=True)
    covered = torch.zeros_like(maps.flatten(1)).scatter(1, order[:, :count], 1).reshape(maps.shape)[:, None]
    return images * (1 - covered) + images.mean((2, 3), keepdim=True) * covered


def beside(images: Float[Tensor, "b c h w"], seed: int = 0) -> dict[str, Float[Tensor, "b h w"]]:
    """Maps that never ask the network: a blob in the middle, and random parts."""
    count, _, height, width = images.shape
    drawn = torch.rand(count, 1, CELLS, CELLS, generator=torch.Generator().manual_seed(seed))
    random = interpolate(drawn, (height, width), mode="bilinear")[:, 0]
    return {"center blob": center_gaussian((height, width)).expand(count, -1, -1), "random parts": random}
