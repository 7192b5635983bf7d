"""At which axis a model takes the channels of its images: the first, as most do, the last, or behind the frames."""

from collections.abc import Sequence

from torch import nn

_FEW = (1, 2, 3, 4)
"""Channels that pictures have; no grid of a picture is that small."""


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
