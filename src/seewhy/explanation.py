"""The result record: maps with everything that was asked, found, chosen and guessed on the way."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy import localize
from seewhy.data.frame import Frame
from seewhy.render.figure import Panel, figure
from seewhy.render.html import html_of
from seewhy.render.overlay import Background, overlay
from seewhy.saving import Fill, file_name, json_text, release, write
from seewhy.tensor import unit
from seewhy.types import ShapeError

_LEGEND = "heat, each map divided by its own maximum"


@dataclass(frozen=True)
class Picture:
    """The photo behind one row of the batch, with the way from the model's input back to its pixels.

    It is drawn when first looked at, since most maps of tensors never are.
    """

    draw: Callable[[], Image.Image]
    frame: Frame
    name: str

    @cached_property
    def image(self) -> Image.Image:
        """The photo's own pixels."""
        return self.draw()


@dataclass(frozen=True)
class Item:
    """One image's explanation.

    Attributes:
        map: heat at the model's input size, raw units.
        raw: the method's own map of each layer.
        score: the score that was explained.
        probability: of the class that was asked for, where there is one.
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
    picture: Picture | None
    name: str

    def on_photo(self) -> Float[Tensor, "H W"]:
        """The raw map at the photo's own pixels, aligned to the half pixel; zero where the model did not look."""
        return self._pictured().frame.to_photo(self.map[None])[0]

    def heat(self, *, signed: bool = False) -> Float[Tensor, "H W"]:
        """The map on the photo for display: its positive part, 0..1; or, `signed`, -1..1. Zero stays zero."""
        heat = self.on_photo()
        if not signed:
            return unit(heat[None])[0]
        return heat / heat.abs().amax().clamp_min(torch.finfo(heat.dtype).tiny)

    def overlay(
        self, *, colormap: str = "turbo", opacity: float = 0.6, background: Background = "photo", signed: bool = False
    ) -> Image.Image:
        """The photo, at its own size, with the heat laid over it; where there is no heat the photo stays as it is.

        Args:
            colormap: `turbo`, `inferno`, or `jet` for likeness with papers.
            opacity: of the greatest heat.
            background: the `photo`, its `edges`, or the photo in `grey`.
            signed: show negative values too, on a map of two colors, for methods whose map has them.
        """
        heat = self.heat(signed=signed)
        colormap = "coolwarm" if signed else colormap  # by sign, not by value: an all-positive map too
        return overlay(self._pictured().image, heat, colormap=colormap, opacity=opacity, background=background)

    def boxes(self, threshold: float = 0.15, *, largest: bool = True) -> list[localize.Box]:
        """Boxes of the photo's pixels where the heat is at least `threshold` of its maximum.

        By default the rule of the Grad-CAM paper: 15 % of the maximum, the largest connected segment.
        """
        return localize.boxes(self.on_photo(), threshold, largest)

    def peak(self) -> tuple[int, int] | None:
        """Row and column of the photo's pixel with the most heat; None where the map has no positive value."""
        return localize.peak(self.on_photo())

    def caption(self) -> list[str]:
        """What a title says: the target with its probability, then the method with its layer."""
        percent = "" if self.probability is None else f"  {100 * self.probability:.1f} %"
        return [f"{self.target}{percent}", f"{self.title} · {', '.join(self.layers)}"]

    def panel(self) -> Panel:
        """The overlay with its caption, ready for a figure."""
        return Panel(self.overlay(), self.caption())

    def stem(self) -> str:
        """What its files are called: photo, method, target and its index, since two classes may share a name."""
        index = "" if self.class_index is None else f"-{self.class_index}"
        return f"{file_name(self.name)}_{file_name(f'{self.method}_{self.target}')}{index}"

    def arrays(self) -> dict[str, np.ndarray]:
        """The raw values as they are saved: `map`, `photo` (the map at the photo's pixels), `raw/LAYER`."""
        raw = {f"raw/{name}": values.cpu().numpy() for name, values in self.raw.items()}
        photo = {"photo": self.on_photo().cpu().numpy()} if self.picture else {}
        return {"map": self.map.cpu().numpy(), **photo, **raw}

    def to_dict(self) -> dict[str, Any]:
        """What the manifest says of this image."""
        located = {}
        if self.picture is not None:
            located = {
                "photo_size": list(self.on_photo().shape),
                "peak": self.peak(),
                "boxes": [asdict(b) for b in self.boxes()],
            }
        return {
            "name": self.name,
            "target": self.target,
            "class": self.class_index,
            "score": self.score,
            "probability": self.probability,
            "map_minimum": float(self.map.min()),
            "map_maximum": float(self.map.max()),
            **located,
        }

    def _pictured(self) -> Picture:
        if self.picture is None:
            raise ShapeError(
                f"the input of size {tuple(self.map.shape)} is no picture, so there is nothing to lay the map over; "
                "use the map itself: e.map and e.raw"
            )
        return self.picture

    def _repr_html_(self) -> str:
        return html_of(self.panel().image if self.picture else None, self.caption(), self.notes)


@dataclass(frozen=True)
class Explanation:
    """Why the model said that: one map for each image, and how it came about.

    Attributes:
        map: heat `(b *s)` at the model's input size, raw units (see `unit`), signed where the method is.
        raw: for each layer, from shallow to deep, the method's own map `(b *grid)`.
        scores: the score that was explained, of each image.
        target: the question in words, for each image.
        class_indices: the class asked for in each image; None where the question is not about one class.
        probabilities: of these classes.
        options: the method's options, also those that were left at their defaults.
        placements: for each layer, where its cells look.
        notes: everything that was guessed or chosen, with the reason, and every weakness met.
        verdict: whether the map may be believed; None: not checked.
    """

    map: Float[Tensor, "b *s"]
    raw: Mapping[str, Float[Tensor, "b *grid"]]
    scores: Float[Tensor, " b"]
    target: tuple[str, ...]
    class_indices: tuple[int | None, ...]
    probabilities: tuple[float | None, ...]
    method: str
    title: str
    options: Mapping[str, Any]
    placements: Mapping[str, str]
    signed: bool
    notes: tuple[str, ...]
    model: str
    pictures: tuple[Picture | None, ...] = field(repr=False)
    verdict: str | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' names, in the order in which they run."""
        return tuple(self.raw)

    @property
    def units(self) -> str:
        """`raw`: the method's own numbers, comparable between images; `relative`: fused from maps of maximum 1."""
        return "relative" if len(self.raw) > 1 else "raw"

    def unit(self) -> Float[Tensor, "b *s"]:
        """The map for display: its positive part divided by its maximum, each image by its own. Zero stays zero."""
        return unit(self.map)

    def __len__(self) -> int:
        return len(self.map)

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Item:
        index = range(len(self))[index]
        picture = self.pictures[index]
        return Item(
            map=self.map[index].detach(),
            raw={name: values[index].detach() for name, values in self.raw.items()},
            target=self.target[index],
            class_index=self.class_indices[index],
            score=float(self.scores[index]),
            probability=self.probabilities[index],
            method=self.method,
            title=self.title,
            layers=self.layers,
            signed=self.signed,
            notes=self.notes,
            picture=picture,
            name=picture.name if picture else f"image{index}",
        )

    def figure(self, *, columns: int | None = None) -> Image.Image:
        """All images side by side, with captions and one color bar."""
        return figure([item.panel() for item in self], columns=columns, legend=_LEGEND)

    def to_dict(self) -> dict[str, Any]:
        """The manifest: all but the maps themselves, ready for JSON."""
        return {
            "seewhy": release(),
            "model": self.model,
            "method": self.method,
            "options": dict(self.options),
            "layers": {
                name: {"grid": list(raw.shape[1:]), "placement": self.placements[name]}
                for name, raw in self.raw.items()
            },
            "units": self.units,
            "signed": self.signed,
            "notes": list(self.notes),
            "verdict": self.verdict,
            "images": [item.to_dict() for item in self],
        }

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write, for each image, its overlay (PNG) and raw values (npz), and one manifest (JSON) of them all.

        They are written under temporary names and then renamed, so that nothing half-written is ever left. An image
        that is called like an earlier one gets a number.

        Returns:
            The files: overlays, values, and the manifest last.

        Raises:
            ImageError: the folder cannot be made or written to.
        """
        manifest, stems = self.to_dict(), _distinct([item.stem() for item in self])
        pictures: dict[str, Fill] = {}
        values: dict[str, Fill] = {}
        for item, entry, stem in zip(self, manifest["images"], stems, strict=True):
            entry["values"] = f"{stem}.npz"
            values[f"{stem}.npz"] = partial(np.savez_compressed, **item.arrays())
            if item.picture is not None:
                entry["overlay"] = f"{stem}.png"
                pictures[f"{stem}.png"] = partial(item.overlay().save, format="PNG")
        summary = {f"{stems[0]}.json": _json(manifest)}
        return write(Path(folder), {**pictures, **values, **summary})

    def _repr_html_(self) -> str:
        drawable = all(picture is not None for picture in self.pictures)
        return html_of(self.figure() if drawable else None, [repr(self.target)] if not drawable else [], self.notes)


@dataclass(frozen=True)
class Comparison:
    """Explanations of the same images, in the order targets x methods x layers, from one forward pass."""

    explanations: tuple[Explanation, ...]

    def __len__(self) -> int:
        return len(self.explanations)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.explanations)

    def __getitem__(self, index: int) -> Explanation:
        return self.explanations[index]

    def figure(self, image: int = 0, *, columns: int | None = None, photo: bool = True) -> Image.Image:
        """One image's maps side by side, after the photo itself, with captions and one color bar."""
        first = self.explanations[0][image]
        panels = [each[image].panel() for each in self.explanations]
        if photo and first.picture:
            panels.insert(0, Panel(first.picture.image, ["photo", first.name]))
        return figure(panels, columns=columns, legend=_LEGEND)

    def save(self, folder: str | os.PathLike[str], image: int = 0) -> list[Path]:
        """Write one image's figure (PNG) and the manifest of all explanations (JSON); each file whole or not at all."""
        stem = f"{file_name(self.explanations[0][image].name)}_compare"
        picture: Fill = partial(self.figure(image).save, format="PNG")
        return write(Path(folder), {f"{stem}.png": picture, f"{stem}.json": _json([each.to_dict() for each in self])})

    def _repr_html_(self) -> str:
        return html_of(self.figure(), [], tuple(dict.fromkeys(note for each in self for note in each.notes)))


def _json(manifest: Any) -> Fill:
    text = json_text(manifest).encode()
    return lambda file: file.write(text)


def _distinct(names: list[str]) -> list[str]:
    """The names, those that come again numbered."""
    seen: Counter[str] = Counter()
    distinct: list[str] = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return distinct
