"""How a model takes its images, which are `(b c *s)` everywhere else: with channels elsewhere, or cut into patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.types import ModelError
from seewhy.wording import by

_FEW = (1, 2, 3, 4)
"""Channels that pictures have; no grid of a picture is that small."""


GRIDS = "image_grid_thw"
"""By this keyword models get frames, rows and columns of patches of each image, beside the rows of patches."""

_IN_BLOCKS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")
"""Families whose processors cut images alike: `tests/test_patches.py` has their own code beside ours."""


@dataclass(frozen=True)
class Channels:
    """Images whose channels stand at this axis: 1, 2 for videos `(b t c h w)`, or the last."""

    axis: int = 1

    def of(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b *_"]:
        """The images with their axes in the model's order."""
        return images if self.axis == 1 else images.movedim(1, self.axis)


@dataclass(frozen=True)
class Patches:
    """Images as rows of patches `(b n) d`, as Qwen2-VL and its kin take them.

    The patches stand block after block of those that the model will merge, each flattened with its channels first and
    as many times as the model takes frames at once.

    Args:
        size: pixels along each side of a patch.
        merged: patches along each side of a block.
        times: how often each patch is repeated, as if a picture were a video that stands still.
    """

    size: int
    merged: int
    times: int

    def of(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "r d"]:
        """The rows of patches of the images, one image after the other."""
        step = self.size * self.merged
        height, width = (pixels // step for pixels in images.shape[2:])
        cut = images.reshape(-1, images.shape[1], height, self.merged, self.size, width, self.merged, self.size)
        rows = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        return rows.expand(-1, -1, -1, -1, -1, -1, self.times, -1, -1).flatten(5).flatten(0, 4)

    def images(self, rows: Float[Tensor, "r d"], grid: Sequence[int]) -> Float[Tensor, "b c h w"]:
        """The images that rows of patches were cut from, on a grid of (height, width) patches."""
        height, width = (patches // self.merged for patches in grid)
        cut = rows.reshape(-1, height, width, self.merged, self.merged, rows.shape[1] // self._numbers, *self._patch)
        ordered = cut[..., 0, :, :].permute(0, 5, 1, 3, 6, 2, 4, 7)
        return ordered.flatten(5).flatten(2, 4)

    def places(self, size: Sequence[int]) -> Int[Tensor, " n"]:
        """For each row of one image of this size, its place on the grid of patches, counted row by row."""
        grid = [pixels // self.size for pixels in size]
        numbers = torch.arange(prod(grid), dtype=torch.float64).reshape(1, 1, *grid)
        return Patches(1, self.merged, 1).of(numbers)[:, 0].long()

    @property
    def _patch(self) -> tuple[int, int, int]:
        return self.times, self.size, self.size

    @property
    def _numbers(self) -> int:
        return prod(self._patch)


Form = Channels | Patches
"""From images to what a model takes in their place, a view of the same numbers."""


def uncut(model: nn.Module, rows: Float[Tensor, "r d"], grids: Int[Tensor, "b 3"]) -> tuple[Tensor, Patches]:
    """The images that rows of patches were cut from, with the way back.

    Args:
        model: a model of one of the families that cut images so.
        rows: the patches.
        grids: frames, rows and columns of patches of each image.

    Raises:
        ModelError: a model of another family, images of several sizes, or frames of a video.
    """
    config: Any = getattr(model, "config", None)
    family = str(getattr(config, "model_type", type(model).__name__))
    if not family.startswith(_IN_BLOCKS):
        raise ModelError(
            f"got rows of patches {tuple(rows.shape)} for a {family}, and in which order it takes them is known of "
            f"{', '.join(_IN_BLOCKS)} only; give a module that takes images (b c h w) and cuts them itself"
        )
    alike = {tuple(grid) for grid in grids.tolist()}
    if len(alike) > 1:
        sizes = " and ".join(by(grid[1:]) for grid in sorted(alike))
        raise ModelError(f"got images of several sizes ({sizes} patches); explain them one by one")
    eye = config.vision_config
    form, (frames, *grid) = Patches(eye.patch_size, eye.spatial_merge_size, eye.temporal_patch_size), alike.pop()
    told = len(grids) * frames * prod(grid)
    if len(rows) != told:
        raise ModelError(
            f"got {len(rows)} rows of patches, and {told} by {GRIDS}: {len(grids)} x {by((frames, *grid))}; give both "
            "as the processor made them"
        )
    images = form.images(rows, grid) if frames == 1 else None
    if images is None or not torch.equal(form.of(images), rows):
        raise ModelError(
            f"got rows of patches {tuple(rows.shape)} for {len(grids)} x {by((frames, *grid))}, which are no pictures "
            "standing still; of a video give single frames, as pictures"
        )
    return images, form


def channels_axis(model: nn.Module, shape: Sequence[int]) -> int:
    """The axis of the channels in images of this shape, as this model takes them.

    The last of `(b h w 3)` and the like. The third of a video `(b t c h w)`, where the first convolution has as many
    channels; where that fits `(b c t h w)` too, that is meant, unless the convolution has two dimensions or the model
    is one of transformers.
    """
    rank = len(shape) - 2
    if rank < 2:
        return 1
    first = next((each for each in model.modules() if isinstance(each, nn.Conv2d | nn.Conv3d)), None)
    if rank == 3 and first is not None and first.in_channels == shape[2] and shape[2] in _FEW:
        of_frames = isinstance(first, nn.Conv2d) or _is_of_transformers(model)
        return 2 if of_frames or first.in_channels != shape[1] else 1
    return len(shape) - 1 if shape[-1] in _FEW and not set(shape[1:-1]) & set(_FEW) else 1


def _is_of_transformers(model: nn.Module) -> bool:
    return str(getattr(model, "main_input_name", "")).startswith("pixel_values")
