"""From any pixel format to upright 8 bit RGB, with a note of every change that touched the pixels."""

import struct
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from seewhy.types import ImageError

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ROUNDING = 1e-6  # how far beyond 0..1 a float32 resize may wander
_RULE = "a photo is uint8 0..255 or float 0..1, (h, w) or (h, w, 3 or 4) in numpy and (3 or 1, h, w) in torch"


def upright_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in RGB the way it is meant to be looked at, and what was done for it.

    Args:
        image: in any Pillow mode; it is not changed. Of an animation the frame that it stands at is taken.

    Returns:
        A new RGB picture without alpha (what was transparent becomes white), and the notes.

    Raises:
        ImageError: for a 32 bit or float picture outside 0..65535 or 0..1.
    """
    orientation, unknown = _orientation(image)
    shallow, scaled = _eight_bit(image)
    turned = "rotated by its EXIF orientation" if orientation in _UPRIGHT else unknown
    upright = shallow.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else shallow
    rgb, blended = _without_alpha(upright)
    return rgb, tuple(note for note in (_frames(image), scaled, turned, blended) if note)


def from_array(array: Shaped[np.ndarray, "..."]) -> Image.Image:
    """A Pillow picture of an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of uint8 0..255 or float 0..1."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"got an array of shape {array.shape}; {_RULE}; pass one picture, channels in that order")
    if not array.size:
        raise ImageError(f"got an array of shape {array.shape} without a pixel; {_RULE}; check how it was cropped")
    pixels = _bytes(array)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


def _bytes(array: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise ImageError(f"got an array of {array.dtype}; {_RULE}; convert it, such as (x / 65535).astype('float32')")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise ImageError(f"got an array with NaN or infinity; {_RULE}; mend these pixels first")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ImageError(
            f"got floats in {low:.4g}..{high:.4g}; {_RULE}; divide 0..255 by 255, or undo the model's normalization"
        )
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8)


def _eight_bit(image: Image.Image) -> tuple[Image.Image, str]:
    """Pillow's own conversion of the deep modes to RGB clips at 255 instead of scaling."""
    note = "16 bit scaled to 8"
    if image.mode == "F":
        return from_array(np.asarray(image)), "float scaled to 8 bit"
    if image.mode != "I" and not image.mode.startswith("I;16"):
        deep: Sequence[object] = getattr(image, "tile", ())
        return image, note if any(";16" in str(tile) for tile in deep) else ""
    values = np.asarray(image).astype(np.float64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"got 32 bit pixels in {values.min():.0f}..{values.max():.0f}; one channel holds at most 16 bit, 0..65535; "
            "scale the picture to 0..65535 or to 8 bit first"
        )
    return from_array(values / 65535), note


def _orientation(image: Image.Image) -> tuple[int, str]:
    # not ImageOps.exif_transpose: it also rewrites the whole EXIF block, and fails where an unrelated tag is broken
    try:
        return image.getexif().get(_ORIENTATION, 1), ""
    except (SyntaxError, ValueError, OSError, KeyError, TypeError, IndexError, struct.error) as error:
        return 1, f"EXIF not readable ({error}), orientation unknown"


def _without_alpha(image: Image.Image) -> tuple[Image.Image, str]:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        full = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        if full.getchannel("A").getextrema() == (255, 255):
            return full.convert("RGB"), ""
        white = Image.new("RGBA", full.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, full).convert("RGB"), "alpha blended onto white"
    return image.convert("RGB"), "" if image.mode in ("RGB", "L", "1", "P") else f"{image.mode} converted"


def _frames(image: Image.Image) -> str:
    count: int = getattr(image, "n_frames", 1)
    if count == 1:
        return ""
    place = image.tell()
    return f"first of {count} frames" if place == 0 else f"frame {place + 1} of {count}"
