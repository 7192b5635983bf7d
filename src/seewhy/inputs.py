"""Which of what a model is given are its images, and by which keyword it takes them."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.data.image import Photo
from seewhy.model.forms import GRIDS
from seewhy.model.forward import parameters
from seewhy.types import ModelError

_IMAGES = "pixel_values"
"""By this keyword models of transformers take images."""


def named(model: nn.Module, images: Any, kwargs: Mapping[str, Any]) -> tuple[Any, str | None, dict[str, Any]]:
    """The images, the keyword by which the model takes them (None: they come first), and its further keywords.

    Args:
        model: its signature tells which keyword is left for the images, where others are taken.
        images: images, or a dictionary of the model's inputs, such as a processor makes, with tensors or photos in it.
        kwargs: the model's further keyword arguments.

    Raises:
        ModelError: a dictionary without images, or with several that may be these.
    """
    if not isinstance(images, Mapping):
        return images, _keyword(model, kwargs), dict(kwargs)
    given = cast(Mapping[str, Any], images)
    least = 2 if GRIDS in given else 3  # rows of patches, whose grids are told beside them
    floating = [name for name, value in given.items() if _is_floating(value) and value.ndim >= least]
    photos = [name for name, value in given.items() if _is_photo(value, name in _usual(model))]
    found = [*floating, *photos]
    known = [name for name in found if name.startswith(_IMAGES)]
    if len(known or photos or found) != 1:
        what = f"the tensors {', '.join(found)} may be images" if found else _missing(given)
        raise ModelError(
            f"got a dictionary with {', '.join(given)} as images, in which {what}; give the images alone, and the "
            "model's other inputs by kwargs="
        )
    name = (known or photos or found)[0]
    return given[name], name, {**{key: value for key, value in given.items() if key != name}, **kwargs}


def _missing(given: Mapping[str, Any]) -> str:
    """Why no images were found."""
    rows = [name for name, value in given.items() if _is_floating(value) and value.ndim == 2]
    flat = next((name for name in rows if name.startswith("pixel")), None)
    if flat is not None and "video" in flat:
        return f"{flat} are patches of videos, which are not read (give single frames, as pictures)"
    if flat is not None and GRIDS not in given:
        return (
            f"{flat} {tuple(given[flat].shape)} would be rows of patches if {GRIDS} were there, which says their grid"
        )
    return "no floating tensor (b c h w) of images"


def _keyword(model: nn.Module, taken: Mapping[str, Any]) -> str | None:
    """The keyword for images that would not come first; None where they do."""
    names = parameters(model)
    free = [name for name in names if name not in taken]
    if not free or (free[0] == names[0] and _IMAGES not in free[1:]):
        return None
    return _IMAGES if _IMAGES in free else free[0]


def _usual(model: nn.Module) -> set[str]:
    """The keywords under which text, too, is the path of a photo."""
    return {_IMAGES, str(getattr(model, "main_input_name", _IMAGES)), *parameters(model)[:1]}


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_photo(value: Any, usual: bool) -> bool:
    """Whether it is a photo, or several; text and bytes only where images usually are."""
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_photo(each, usual) for each in cast(Sequence[Any], value))
    if isinstance(value, Image.Image | Photo | PathLike):
        return True
    whole = value.dtype in (torch.uint8, np.uint8) if isinstance(value, Tensor | np.ndarray) else isinstance(value, str)
    return usual and whole
