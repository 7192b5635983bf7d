"""How a photo becomes a model's input, as data, so that the way back to the photo stays exact."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from seewhy.data.frame import Frame
from seewhy.data.image import Photo
from seewhy.types import ImageError, ModelError, ShapeError

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
_COUNT = {"rgb": 3, "bgr": 3, "grey": 1}
_FITS = ("squash", "crop", "letterbox")
_LARGEST = 2**26  # pixels after resizing; a photo of 1 x 4000, its short side made 256, would have 4 times as many

Step = tuple[Image.Image, Frame]


@dataclass(frozen=True)
class Preprocess:
    """A model's input as its authors made it: `x = (pixel / scale - mean) / std`, after fitting the photo into `size`.

    Equal to torchvision's Resize, CenterCrop, ToTensor, Normalize on Pillow pictures, and to timm's evaluation
    transform. Resizing is Pillow's, antialiased, on 8 bit pixels: resizing tensors gives other numbers.

    Args:
        size: height and width of the input; None: the photo's own, or what `resize` makes of it, with nothing
            stretched, cut off or padded, as for segmenters and for detectors that resize by themselves.
        fit: "squash" stretches the photo to `size`; "crop" scales it with its aspect kept and cuts out the center
            (padding with `fill` where it is smaller); "letterbox" scales it until all of it fits, and pads with `fill`.
        resize: for "crop", the length that the shorter side gets first (256 for a 224 crop), or the (height, width)
            that is just covered (timm's rule where `size` is not square). None: `size`.
        interpolation: "bilinear", "bicubic", "nearest", "lanczos" or "box".
        mean: per channel in the model's order, in units of pixel / scale: 0..1 where scale is 255.
        std: likewise.
        scale: what a pixel of 0..255 is divided by: 255, or 1 for models that eat 0..255.
        channels: "rgb", "bgr" or "grey" (one channel).
        fill: color of the padding, RGB 0..255.
        center: how half a pixel of the crop's offset is rounded: "even" as torchvision and timm do, "down" as
            transformers does.

    Raises:
        ModelError: for an option that is none of these.
    """

    size: tuple[int, int] | None
    fit: Literal["squash", "crop", "letterbox"] = "crop"
    resize: int | tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos", "box"] = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: float = 255.0
    channels: Literal["rgb", "bgr", "grey"] = "rgb"
    fill: tuple[int, int, int] = (0, 0, 0)
    center: Literal["even", "down"] = "even"

    def __post_init__(self) -> None:
        """Refuse what could only fail later, or silently."""
        if self.size is not None and (not isinstance(cast(object, self.size), tuple | list) or len(self.size) != 2):
            raise ModelError(f"got size={self.size!r}; it is the height and width of the input; give (224, 224)")
        if self.size is None and (self.fit != "crop" or isinstance(self.resize, tuple)):
            raise ModelError(
                f"got size=None with fit={self.fit!r} and resize={self.resize}; a photo that keeps its shape is "
                "resized by its shorter side or not at all: leave fit out, and give resize=520 or nothing"
            )
        choices = {"fit": _FITS, "interpolation": _FILTERS, "channels": _COUNT, "center": ("even", "down")}
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ModelError(f"got {field}={getattr(self, field)!r}; it is one of {', '.join(allowed)}; use one")
        if not len(self.mean) == len(self.std) == _COUNT[self.channels]:
            raise ModelError(
                f"got {len(self.mean)} means and {len(self.std)} stds for channels={self.channels!r}; "
                f"it has {_COUNT[self.channels]}; give one of each for every channel"
            )
        if min(self.std) <= 0 or self.scale <= 0:
            raise ModelError(f"got std={self.std} and scale={self.scale}; both divide; give positive numbers")
        if self.resize is not None and self.fit != "crop":
            raise ModelError(f"got resize={self.resize} with fit={self.fit!r}; only a crop resizes first; leave it out")

    def __call__(self, photo: Photo) -> tuple[Float[Tensor, "c h w"], Frame]:
        """The model's input made of a photo, and the frame that leads back to the photo's pixels."""
        image = photo.image.convert("L") if self.channels == "grey" else photo.image
        image, frame = self._fitted((image, Frame.identity(photo.size)))
        pixels = np.atleast_3d(np.asarray(image, dtype=np.float32))
        values = torch.from_numpy(pixels).permute(2, 0, 1) / self.scale
        ordered = values.flip(0) if self.channels == "bgr" else values
        return (ordered - _column(self.mean)) / _column(self.std), frame

    def pixels(self, inputs: Float[Tensor, "b c h w"]) -> UInt8[np.ndarray, "b h w 3"]:
        """Inputs as pictures to look at: the normalization undone, pixel = (x * std + mean) * scale.

        The inverse of calling it, up to the fitting: for input at the photo's size it is the photo.
        """
        if inputs.shape[1] != len(self.mean):
            raise ShapeError(f"got {inputs.shape[1]} channels; this model takes {len(self.mean)}; pass its own inputs")
        values = (inputs.detach().float().cpu() * _column(self.std) + _column(self.mean)) * self.scale
        ordered = values.flip(1) if self.channels == "bgr" else values.expand(-1, 3, -1, -1)
        return ordered.clamp(0, 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()

    def _fitted(self, step: Step) -> Step:
        if self.size is None:
            return step if self.resize is None else self._resized(step, self._cover(step[1].photo_size, self.resize))
        if self.fit == "squash":
            return self._resized(step, self.size)
        if self.fit == "letterbox":
            return self._padded(self._resized(step, _scaled(step[1].photo_size, self.size, max)), self.size)
        step = self._padded(self._resized(step, self._cover(step[1].photo_size, self.resize or self.size)), self.size)
        return self._cropped(step, self.size)

    def _cover(self, photo: tuple[int, int], cover: int | tuple[int, int]) -> tuple[int, int]:
        """The size before the center crop, rounded as torchvision does (down), or timm (to even) where not square."""
        if not isinstance(cover, int) and cover[0] != cover[1]:
            return _scaled(photo, cover, min)
        short = cover if isinstance(cover, int) else cover[0]
        height, width = photo
        return (short, int(short * width / height)) if height <= width else (int(short * height / width), short)

    def _resized(self, step: Step, size: tuple[int, int]) -> Step:
        image, frame = step
        if size[0] * size[1] > _LARGEST:
            raise ImageError(
                f"a photo of {image.height} x {image.width} pixels would be stretched to {size[0]} x {size[1]}; "
                f"at most {_LARGEST} pixels are made; crop it to a less extreme shape first"
            )
        return image.resize((size[1], size[0]), _FILTERS[self.interpolation]), frame.resized(size)

    def _padded(self, step: Step, least: tuple[int, int]) -> Step:
        image, frame = step
        size = (max(image.height, least[0]), max(image.width, least[1]))
        if size == frame.input_size:
            return step
        top, left = (size[0] - image.height) // 2, (size[1] - image.width) // 2
        canvas = Image.new("RGB", (size[1], size[0]), self.fill).convert(image.mode)
        canvas.paste(image, (left, top))
        return canvas, frame.padded(top, left, size)

    def _cropped(self, step: Step, size: tuple[int, int]) -> Step:
        image, frame = step
        height, width = size
        top, left = self._offset(image.height - height), self._offset(image.width - width)
        box = (left, top, left + width, top + height)
        return image.crop(box), frame.cropped(top, left, size)

    def _offset(self, surplus: int) -> int:
        return round(surplus / 2) if self.center == "even" else surplus // 2


def _scaled(photo: tuple[int, int], box: tuple[int, int], choose: Callable[[float, float], float]) -> tuple[int, int]:
    """The photo's size with its aspect kept: all of it in the box (`max`), or the box covered (`min`)."""
    ratio = choose(photo[0] / box[0], photo[1] / box[1])
    return max(round(photo[0] / ratio), 1), max(round(photo[1] / ratio), 1)


def _column(values: tuple[float, ...]) -> Float[Tensor, "c 1 1"]:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
