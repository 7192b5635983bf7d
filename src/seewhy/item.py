"""One image's explanation, and the photo that it is laid over."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy import localize
from seewhy.data.frame import Frame
from seewhy.marks import Marks
from seewhy.render.figure import Panel
from seewhy.render.html import html_of
from seewhy.render.overlay import Background, draw_boxes, draw_marks, overlay
from seewhy.render.recording import Recording
from seewhy.saving import file_name
from seewhy.tensor import centered
from seewhy.types import ShapeError
from seewhy.wording import by, some

LEGENDS = {
    "heat": ("turbo", "heat, each map divided by its own maximum"),
    "pixels": ("inferno", "strength of single pixels, each map divided by its own 99th percentile"),
    "sign": ("coolwarm", "red speaks for it, blue against it; each map divided by its own largest absolute value"),
}
"""For each kind of map the colors of a panel, and what they mean."""


@dataclass(frozen=True)
class Picture:
    """The photo behind one row of the batch, with the way from the model's input back to its pixels.

    It is drawn when first looked at, since most maps of tensors never are.
    """

    draw: Callable[[], Image.Image] = field(repr=False)
    frame: Frame
    name: str

    @cached_property
    def image(self) -> Image.Image:
        """The photo's own pixels."""
        return self.draw()


@dataclass(frozen=True, eq=False, repr=False)
class Item:
    """One image's explanation.

    Attributes:
        map: heat at the model's input size, raw units.
        raw: the method's own map of each layer.
        score: the score that was explained.
        probability: of the class that was asked for, where there is one.
        signed: whether the map may hold negative values.
        asked_signed: whether the caller asked for the signed form, so that pictures show the sign by themselves.
        offset: whether its values are scores, not shares of one, so that heat is what exceeds their mean.
        of_pixels: whether the map is one of single pixels, of which a few outshine all others.
        variant: what was chosen beyond the usual, for the names of files.
        asked: where in the photo lies what was asked about: a box, a point, a region.
    """

    map: Float[Tensor, "*s"]
    raw: Mapping[str, Float[Tensor, "*_"]]
    target: str
    class_index: int | None
    score: float
    probability: float | None
    method: str
    title: str
    layers: tuple[str, ...]
    signed: bool
    notes: tuple[str, ...]
    picture: Picture | Recording | None
    name: str
    asked_signed: bool = False
    of_pixels: bool = False
    offset: bool = False
    variant: str = ""
    asked: Marks = field(default_factory=Marks)

    def on_photo(self) -> Float[Tensor, "H W"]:
        """The raw map at the photo's own pixels, aligned to the half pixel; zero where the model did not look."""
        return self._photo_map.clone()  # the caller may write into it

    @cached_property
    def _photo_map(self) -> Float[Tensor, "H W"]:
        return self._pictured().frame.to_photo(self.map[None])[0]

    @cached_property
    def _evidence(self) -> Float[Tensor, "*s"]:
        """The map with its zero where there is no evidence, at the photo's pixels where there is a photo."""
        if not isinstance(self.picture, Picture):
            return centered(self.map[None])[0] if self.offset else self.map
        return self.picture.frame.to_photo(centered(self.map[None]))[0] if self.offset else self._photo_map

    def shows_sign(self, signed: bool | None = None) -> bool:
        """Whether pictures show negative values: as wished; None: where the caller asked for the signed form."""
        return self.asked_signed and self.signed if signed is None else signed

    def legend(self, signed: bool | None = None) -> tuple[str, str]:
        """The colormap of its pictures, and what their colors mean."""
        colors, meaning = LEGENDS["sign" if self.shows_sign(signed) else "pixels" if self.of_pixels else "heat"]
        return colors, f"{meaning}; counted from its mean" if self.offset else meaning

    def heat(self, *, signed: bool | None = None) -> Float[Tensor, "*_"]:
        """The map for display, on the photo: its positive part, 0..1; or, `signed`, -1..1. Zero stays zero.

        Where there is no photo, at the model's input. Divided by its maximum; a map of single pixels by its 99th
        percentile, and what is beyond cut off.
        """
        heat = self._evidence if self.shows_sign(signed) else self._evidence.relu()
        strength = heat.abs().flatten()
        most = strength.amax()
        if self.of_pixels:
            high = strength.kthvalue(max(1, math.ceil(0.99 * len(strength)))).values
            most = high if high > 0 else most
        return (heat / most.clamp_min(torch.finfo(heat.dtype).tiny)).clamp(-1, 1)

    def overlay(
        self,
        *,
        colormap: str | None = None,
        opacity: float | None = None,
        background: Background | None = None,
        signed: bool | None = None,
        boxes: Sequence[localize.Box | localize.Span] = (),
        asked: bool = True,
        frames: bool | None = None,
    ) -> Image.Image:
        """The photo, at its own size, with the heat laid over it; where there is no heat the photo stays as it is.

        A signal is a line over time that the heat colors; a video a strip of frames, of more than eight some, the one
        with the peak among them; a volume the three slices through its peak. A box of `boxes` is drawn on photos alone.

        Args:
            colormap: `turbo`, `inferno`, or `jet` for likeness with papers. None: inferno for a map of single pixels,
                else turbo.
            opacity: of the greatest heat. None: 0.6; of a line 1.
            background: the `photo`, its `edges`, or the photo in `grey`. None: grey below signs and single pixels.
            signed: show negative values too, in two colors. None: where the caller asked for the signed form.
            boxes: drawn on top, such as `item.boxes(0.5)`.
            asked: draw thinly, on top, where what was asked about lies.
            frames: whether what has three axes is a video, not a volume. None: it is one if it has three channels.
        """
        heat = self.heat(signed=signed)
        own, _ = self.legend(signed)
        # by sign, not by value: an all-positive map too; red on a red photo cannot be seen
        chosen = own if self.shows_sign(signed) else colormap or own
        behind = background or ("grey" if self.shows_sign(signed) or self.of_pixels else "photo")
        if isinstance(self.picture, Recording):
            scene = self.picture.scene(self.peak(), frames)
            share = (1.0 if heat.ndim == 1 else 0.6) if opacity is None else opacity
            drawn = overlay(scene.image, scene.lay(heat), colormap=chosen, opacity=share, background=behind)
            return draw_marks(drawn, masks=[scene.part(mask) for mask in self.asked.places] if asked else [])
        share = 0.6 if opacity is None else opacity
        drawn = overlay(self._pictured().image, heat, colormap=chosen, opacity=share, background=behind)
        if asked:
            drawn = draw_marks(drawn, self.asked.boxes, self.asked.points, self.asked.masks)
        return draw_boxes(drawn, [box.xyxy for box in boxes if isinstance(box, localize.Box)])

    def boxes(self, threshold: float = 0.15, *, largest: bool = True) -> list[localize.Box | localize.Span]:
        """Boxes of the photo's pixels where the heat is at least `threshold` of its maximum: x0 y0 x1 y1, on edges.

        By default the rule of the Grad-CAM paper: 15 % of the maximum, the largest connected segment. Of a
        signal, a volume or a video they are a `Span` of its places.
        """
        return localize.boxes(self._evidence, threshold, largest)

    def peak(self) -> tuple[int, ...] | None:
        """Row and column (y, x) of the photo's pixel with the most heat; None where the map has no positive value.

        Of a signal (t,), of a volume (z, y, x), of a video (t, y, x).
        """
        return localize.peak(self._evidence)

    def caption(self, *, signed: bool | None = None, frames: bool | None = None) -> list[str]:
        """What a title says: the target with its probability, the method with its layer, and a map without heat."""
        percent = "" if self.probability is None else f"  {100 * self.probability:.1f} %"
        where = f" · {some(self.layers)}" if self.layers else ""
        lines = [f"{self.target}{percent}", f"{self.title}{where}"]
        if isinstance(self.picture, Recording) and (told := self.picture.scene(self.peak(), frames).told):
            lines.append(told)
        if not self.map.any():
            lines.append("no heat: the map is zero everywhere")
        elif not self.shows_sign(signed) and float(self._evidence.max()) <= 0:
            lines.append("no heat: the map is positive nowhere")
        return lines

    def panel(
        self, *, signed: bool | None = None, named: bool = False, asked: bool = True, frames: bool | None = None
    ) -> Panel:
        """The overlay with its caption, which begins with the photo's name if wanted, ready for a figure."""
        first, *others = self.caption(signed=signed, frames=frames)
        return Panel(
            self.overlay(signed=signed, asked=asked, frames=frames),
            [f"{self.name}: {first}" if named else first, *others],
        )

    def stem(self) -> str:
        """What its files are called: photo, method, target, its index (labels may be shared), and what was unusual."""
        index = "" if self.class_index is None else f"-{self.class_index}"
        variant = f"_{file_name(self.variant)}" if self.variant else ""
        return f"{file_name(self.name)}_{file_name(f'{self.method}_{self.target}')}{index}{variant}"

    def arrays(self) -> dict[str, np.ndarray]:
        """The raw values as they are saved: `map`, `photo` (at its pixels), `raw/LAYER`, `asked/N` (regions)."""
        raw = {f"raw/{name}": values.cpu().numpy() for name, values in self.raw.items()}
        photo = {"photo": self._photo_map.cpu().numpy()} if isinstance(self.picture, Picture) else {}
        asked = {f"asked/{n}": mask.numpy() for n, mask in enumerate(self.asked.masks)}
        return {"map": self.map.cpu().numpy(), **photo, **raw, **asked}

    def to_dict(self) -> dict[str, Any]:
        """What the manifest says of this image."""
        located = {"peak": self.peak(), "boxes": [asdict(box) for box in self.boxes()]}
        if isinstance(self.picture, Picture):
            located = {"photo_size": list(self._photo_map.shape), **located}
        return {
            "name": self.name,
            "target": self.target,
            "class": self.class_index,
            "score": self.score,
            "probability": self.probability,
            "map_minimum": float(self.map.min()),
            "map_maximum": float(self.map.max()),
            **located,
            **({"asked": self.asked.to_dict()} if self.asked else {}),
        }

    def _pictured(self) -> Picture:
        if not isinstance(self.picture, Picture):
            raise ShapeError(
                f"the input of size {tuple(self.map.shape)} is no picture, so there is nothing to lay the map over; "
                "use the map itself: e.map and e.raw"
            )
        return self.picture

    def __repr__(self) -> str:
        return f"<Item {self.name!r}: {gist([self.method], [self.target], [self.layers], self.map.shape)}>"

    def _repr_html_(self) -> str:
        return html_of(self.panel().image if self.picture else None, self.caption(), self.notes)


def bars(items: Iterable[Item], signed: bool | None) -> dict[str, str]:
    """The color bars that a figure of these items needs: colormaps, each with what it means."""
    return dict(item.legend(signed) for item in items)


def gist(methods: Iterable[str], targets: Iterable[str], layers: Iterable[Sequence[str]], size: Sequence[int]) -> str:
    """What was explained, in one line: methods, targets, layers (fused ones with a plus between), the maps' size."""
    parts = (methods, map(repr, targets), (" + ".join(fused) for fused in layers))
    method, target, layer = (some(list(dict.fromkeys(part))) for part in parts)
    return f"{method} of {target} at {layer}, {by(size)}"
