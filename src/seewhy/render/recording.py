"""Signals, volumes and videos as pictures: a line over time, three slices through a place, a strip of frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image, ImageDraw
from torch import Tensor

_SHOWN = 8  # frames of a strip
_WIDE, _BAND, _SMALL, _GAP = 768, 120, 96, 2  # of a line and each of its channels; the least side of a frame; pixels
_INK, _PAPER = (90, 90, 90), (255, 255, 255)
Lay = Callable[[Shaped[Tensor, "*s"]], Shaped[Tensor, "h w"]]


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of what has not two axes.

    Attributes:
        image: without heat.
        lay: brings a map to the picture's pixels; zero beside what it is of.
        part: the same for a mask; of a signal, all above and below its span.
        told: what the picture shows, in words.
    """

    image: Image.Image
    lay: Lay
    part: Lay
    told: str


@dataclass(frozen=True, eq=False)
class Recording:
    """A signal, a volume or a video, as the model was given it.

    Args:
        values: any numbers; what is drawn is stretched to their range.
        name: what files and titles call it.
    """

    values: Float[Tensor, "c *s"] = field(repr=False)
    name: str

    def scene(self, place: Sequence[int] | None, frames: bool | None = None) -> Scene:
        """What to lay a map over.

        Args:
            place: that slices go through, and whose frame is shown; None: the middle.
            frames: a strip of frames rather than slices; None: where there are three channels, the colors of a video.
        """
        size = self.values.shape[1:]
        at = tuple(side // 2 for side in size) if place is None else tuple(place)
        if len(size) == 1:
            return self._line()
        as_video = len(self.values) == 3 if frames is None else frames
        if as_video:
            shown = _spread(size[0], at[0])
            return self._tiled([(0, t) for t in shown], "frames " + " ".join(map(str, shown)))
        return self._tiled(
            list(enumerate(at)), "slices at " + ", ".join(f"{n} {p}" for n, p in zip("zyx", at, strict=True))
        )

    def _line(self) -> Scene:
        """Each channel a line; heat is on the line alone."""
        channels, length = self.values.shape
        step = max(1, _WIDE // length)
        image = Image.new("RGB", (step * length, _BAND * channels), _PAPER)
        draw = ImageDraw.Draw(image)
        for channel, values in enumerate(_stretched(self.values).tolist()):
            heights = [_BAND * (channel + 0.9 - 0.8 * value) for value in values]
            middles = [step * (place + 0.5) for place in range(length)]
            draw.line(list(zip(middles, heights, strict=True)), _INK, 3)
        ink = torch.from_numpy(np.asarray(image)[..., 0] < _PAPER[0])

        def span(mask: Shaped[Tensor, " t"]) -> Shaped[Tensor, "h w"]:
            return mask.cpu().repeat_interleave(step).expand(image.height, -1)

        return Scene(image, lambda map: map.cpu().repeat_interleave(step) * ink, span, "")

    def _tiled(self, cuts: Sequence[tuple[int, int]], told: str) -> Scene:
        """Cuts across an axis side by side, small ones enlarged."""
        size = self.values.shape[1:]
        times = max(1, -(-_SMALL // max(size[1:])))

        def lay(map: Shaped[Tensor, "*s"], beside: int = 0) -> Shaped[Tensor, "h w"]:
            parts = [map.cpu().select(axis, at) for axis, at in cuts]
            large = [part.repeat_interleave(times, 0).repeat_interleave(times, 1) for part in parts]
            tall = max(len(part) for part in large)
            canvas = large[0].new_full((tall, sum(part.shape[1] + _GAP for part in large) - _GAP), beside)
            left = 0
            for part in large:
                canvas[: len(part), left : left + part.shape[1]] = part
                left += part.shape[1] + _GAP
            return canvas

        values = (255 * _stretched(self.values)).round().byte()
        colors = values if len(values) == 3 else values.float().mean(0).byte().expand(3, *size)
        pixels = torch.stack([lay(color, _PAPER[0]) for color in colors], -1)
        return Scene(Image.fromarray(np.ascontiguousarray(pixels.numpy())), lay, lay, told)


def _spread(count: int, among: int) -> list[int]:
    """Evenly spread frames, the nearest of which is the one that is to be among them."""
    shown = torch.linspace(0, count - 1, min(count, _SHOWN)).round().long()
    shown[(shown - among).abs().argmin()] = among
    return shown.tolist()


def _stretched(values: Float[Tensor, "c *s"]) -> Float[Tensor, "c *s"]:
    values = values.detach().float().cpu()
    return (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
