"""Points and masks as a user gives them, in pixels of the photo, of the images or of the output; laid on its grid."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from seewhy.marks import Sight, cell_of, is_fitted, on_grid, photo_size
from seewhy.targets.arguments import wholes
from seewhy.targets.dense import nearest
from seewhy.targets.question import Question
from seewhy.types import TargetError
from seewhy.wording import by


def mask_of(mask: Any) -> Bool[Tensor, "..."]:
    """A mask that was given, of whatever kind of array.

    Raises:
        TargetError: it is no array, or not of booleans.
    """
    try:
        given = torch.as_tensor(mask)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(f"got {type(mask).__name__} as a mask; give a tensor or an array of booleans") from error
    if given.dtype != torch.bool:
        raise TargetError(f"got a mask of {given.dtype}; a mask holds booleans: labels == 12, or scores > 0.5")
    return given


def pixel_of(point: Any) -> tuple[int, ...]:
    """A pixel that was given, as whole numbers.

    Raises:
        TargetError: it is none.
    """
    found = wholes(point)
    if not found:
        raise TargetError(
            f"got {point!r} as a point; give a pixel of the images by whole numbers: (y, x), of a signal (x,)"
        )
    return tuple(found)


def _axes(size: Sequence[int]) -> str:
    return {1: "(x,)", 3: "(z, y, x)"}.get(len(size), "(y, x)")


def cell_under(point: tuple[int, ...], question: Question, image: int, grid: tuple[int, ...]) -> list[int]:
    """The output's pixel that a given one lies in.

    Raises:
        TargetError: it lies outside of the photo, or of what the model sees of it.
    """
    sight, size = question.sight(image), question.size
    whole = photo_size(sight, size)
    if len(point) != len(whole) or not all(0 <= place < side for place, side in zip(point, whole, strict=True)):
        raise TargetError(
            f"got the point {point}; it has one whole number for each axis of {_pixels(question, image)}, "
            f"from {(0,) * len(whole)} to {tuple(side - 1 for side in whole)}: {_axes(whole)}, from the top left"
        )
    cell = cell_of(point, sight, size, grid)
    if cell is None:
        raise TargetError(f"the model does not see the point {point}{_seen(question, image)}; choose a point there")
    return cell


def laid(mask: Tensor, question: Question, image: int, grid: tuple[int, ...]) -> Bool[Tensor, "*grid"]:
    """The output's pixels that a given mask has in one image.

    Raises:
        TargetError: a mask of another size, or one without pixels that the model sees.
    """
    sight, size = question.sight(image), question.size
    several, whole = mask.ndim == len(size) + 1, photo_size(sight, size)
    shape = tuple(mask.shape[several:])
    differ = "mark the photo's pixels; for photos of several sizes ask [Region(mask=one), Region(mask=other)]"
    way_out = differ if is_fitted(sight) else "resize it"
    if shape not in (whole, size, grid) or (several and len(mask) not in (1, question.images)):
        raise TargetError(
            f"got a mask of shape {tuple(mask.shape)}; it has the size of {_pixels(question, image)}, or of the "
            f"model's output, {by(grid)}, and if it has an axis of images, {question.images} of them: {way_out}"
        )
    own = mask[image if len(mask) > 1 else 0] if several else mask
    which = f" of image {image}" * several
    if not bool(own.any()):
        raise TargetError(f"the mask{which} holds no pixel; mark at least one, or leave mask= out")
    if shape != whole:
        return nearest(own[None], grid)[0]
    found = on_grid(own, sight, size, grid)
    if not bool(found.any()):
        raise TargetError(f"the model sees no pixel of the mask{which}{_seen(question, image)}; mark some there")
    return found


def _pixels(question: Question, image: int) -> str:
    """What is given in pixels, and how many it has."""
    if not is_fitted(question.sight(image)):
        return f"the images of {by(question.size)} pixels"
    return f"the photo of {by(photo_size(question.sight(image), question.size))} pixels"


def _seen(question: Question, image: int) -> str:
    """What of the photo the model is given."""
    x0, y0, x1, y1 = (round(edge) for edge in cast(Sight, question.sight(image)).view)
    return (
        f": of {_pixels(question, image)} it is given rows {y0} to {y1 - 1} and columns {x0} to {x1 - 1}, made "
        f"{by(question.size)} pixels"
    )
