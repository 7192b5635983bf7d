"""Heat laid over the photo at the photo's own pixels, so that what is cold stays as it was."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from seewhy.render.color import DIVERGING, checked, colorize
from seewhy.types import MethodError, ShapeError

Background = Literal["photo", "edges", "grey"]
Corners = tuple[float, float, float, float]
_LINE, _RIM, _MARK = (255, 255, 255), (0, 0, 0), (255, 0, 255)


def overlay(
    photo: Image.Image,
    heat: Float[Tensor, "h w"],
    *,
    colormap: str = "turbo",
    opacity: float = 0.6,
    background: Background = "photo",
) -> Image.Image:
    """The photo with heat over it: pixel = (1 - a) * background + a * color(heat), with a = opacity * |heat|.

    Where the heat is zero the background is untouched, unlike the usual blend, which tints the whole photo blue.

    Args:
        photo: at its own pixels.
        heat: one value for each pixel of the photo, 0..1, or -1..1: with any value below zero, the two colors of
            `coolwarm` are used.
        colormap: `turbo`, `inferno`, `jet`, or `coolwarm` for heat with a sign.
        opacity: of the greatest heat, 0..1.
        background: the `photo` in color, in `grey`, or its `edges` on white, which compete with no color.

    Raises:
        ShapeError: where heat and photo differ in size, or the heat leaves its range.
        MethodError: for an unknown colormap or background, or an opacity outside 0..1.
    """
    if tuple(heat.shape) != (photo.height, photo.width):
        raise ShapeError(
            f"got heat of {tuple(heat.shape)} for a photo of {(photo.height, photo.width)}; they lie pixel on pixel; "
            "bring the map there by Frame.to_photo"
        )
    if not 0 <= opacity <= 1:
        raise MethodError(f"got opacity={opacity}; it is a share, 0..1; 0.6 is the default")
    signed = checked(heat, -1)[0] < 0 or colormap in DIVERGING
    if signed:
        colors = colorize((heat + 1) / 2, colormap if colormap in DIVERGING else "coolwarm")
    else:
        colors = colorize(heat, colormap)
    share = (opacity * heat.detach().float().abs().clamp(0, 1)).cpu().numpy()[..., None]
    behind = np.asarray(_background(photo, background), dtype=np.float32)
    return Image.fromarray(np.rint(behind + share * (colors - behind)).astype(np.uint8))


def edges(photo: Image.Image) -> Image.Image:
    """The photo's outlines, dark on white: 255 * (1 - min(1, |Sobel| / its 98th percentile)).

    Large photos are smoothed first, so that their outlines and not their grain are what is left at figure size.
    """
    smooth = photo.convert("L").filter(ImageFilter.GaussianBlur(max(0.7, max(photo.size) / 600)))
    grey = np.pad(np.asarray(smooth, dtype=np.float32), 1, mode="edge")
    across = grey[:, 2:] - grey[:, :-2]
    down = grey[2:] - grey[:-2]
    x = across[:-2] + 2 * across[1:-1] + across[2:]
    y = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    strength = np.hypot(x, y)
    strong = max(float(np.percentile(strength, 98)), 16.0)  # an empty wall has no outlines, only noise
    grey = 255 * (1 - (strength / strong).clip(0, 1))
    return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")


def draw_boxes(image: Image.Image, boxes: Sequence[Corners]) -> Image.Image:
    """The picture with boxes drawn just inside their edges, white with a dark rim, so they show on anything.

    Args:
        image: any picture; it is not changed.
        boxes: (x0, y0, x1, y1) in pixel edges, such as `Box.xyxy`; what lies outside the picture is cut off.
    """
    canvas = image.convert("RGB")
    draw = ImageDraw.Draw(canvas)
    width = max(1, round(min(image.size) / 120))
    for x0, y0, x1, y1 in boxes:
        left, top, right, bottom = round(x0), round(y0), max(round(x1), round(x0) + 1), max(round(y1), round(y0) + 1)
        for inset, paint in ((0, _RIM), (width, _LINE)):
            box = (left + inset, top + inset, right - 1 - inset, bottom - 1 - inset)
            if box[0] <= box[2] and box[1] <= box[3]:
                draw.rectangle(box, outline=paint, width=width)
    return canvas


def draw_marks(
    image: Image.Image,
    boxes: Sequence[Sequence[float]] = (),
    points: Sequence[Sequence[int]] = (),
    masks: Sequence[Bool[Tensor, "h w"]] = (),
) -> Image.Image:
    """The picture with what was asked about, thin and in one color that no heat has: boxes, rings, outlines.

    Args:
        image: any picture; it is not changed.
        boxes: (x0, y0, x1, y1) in pixel edges.
        points: (y, x) of pixels, each in the middle of a ring.
        masks: of the picture's pixels; the outermost of each are painted.
    """
    canvas = image.convert("RGB")
    width = max(1, round(min(image.size) / 200))
    for mask in masks:
        line = Image.fromarray((_outline(mask.cpu().numpy(), width) * 255).astype(np.uint8))
        canvas.paste(_MARK, (0, 0), line)
    draw = ImageDraw.Draw(canvas)
    for x0, y0, x1, y1 in boxes:
        left, top = min(max(round(x0), 0), image.width - 1), min(max(round(y0), 0), image.height - 1)
        right, bottom = min(round(x1), image.width) - 1, min(round(y1), image.height) - 1
        draw.rectangle((left, top, max(right, left), max(bottom, top)), outline=_MARK, width=width)
    radius = max(2, round(min(image.size) / 40))
    for y, x in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_MARK, width=width)
    return canvas


def _outline(mask: Bool[np.ndarray, "h w"], width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of a mask that are at most so far from one that is not of it, or from the picture's border."""
    inner = np.pad(mask, width)
    for axis in (0, 1):
        inner = np.logical_and.reduce([np.roll(inner, step, axis) for step in range(-width, width + 1)])
    return mask & ~inner[width:-width, width:-width]


def _background(photo: Image.Image, background: Background) -> Image.Image:
    if background == "photo":
        return photo.convert("RGB")
    if background == "grey":
        return photo.convert("L").convert("RGB")
    if background == "edges":
        return edges(photo)
    raise MethodError(f"no background '{background}'; there are photo, edges and grey; name one of these")
