"""The result record: maps with everything that was asked, found, chosen and guessed on the way."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from seewhy.item import Item, Picture, bars, gist
from seewhy.marks import Marks
from seewhy.render.figure import figure
from seewhy.render.html import html_of
from seewhy.render.recording import Recording
from seewhy.saving import Fill, distinct, json_file, release, write
from seewhy.tensor import centered, unit


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why the model said that: one map for each image, and how it came about.

    Attributes:
        map: heat `(b *s)` at the model's input size, raw units (see `unit`), signed where the method is.
        raw: for each layer, from shallow to deep, the method's own map `(b *grid)`; where it maps the image itself,
            that as `image`.
        scores: the score that was explained, of each image.
        target: the question in words, for each image.
        class_indices: the class asked for in each image; None where the question is not about one class.
        probabilities: of these classes.
        options: the method's options, also those that were left at their defaults.
        placements: for each layer, where its cells look.
        notes: everything that was guessed or chosen, with the reason, and every weakness met.
        units: `raw`: the method's own numbers, comparable between images; `relative`: of maps divided by their maximum;
            `squared`: the spread of an ensemble.
        asked: for each image where what was asked about lies, in pixels of the photo (of the image itself, where this
            was no photo): the box, the point, the region. Empty where a question is about no place.
        variant: what was chosen beyond the usual (layers by name, the signed form, another alignment, an ensemble); the
            names of files tell it.
        residual: by how much the parts of a method whose parts should sum to the score (integrated gradients, FullGrad)
            do not, for each image, in units of the score; None: nothing of the kind is promised.
        verdict: whether the map may be believed; None: not checked.
        signed: whether the map may hold negative values.
        offset: whether the map's values are scores, not shares of one, so that heat is what exceeds the map's mean.
        of_pixels: whether the maps are of single pixels, of which a few outshine all others in a picture.
        asked_signed: whether the caller asked for the signed form, so that pictures show the sign by themselves.
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
    pictures: tuple[Picture | Recording | None, ...]
    units: str = "raw"
    verdict: str | None = None
    asked_signed: bool = False
    of_pixels: bool = False
    offset: bool = False
    residual: Float[Tensor, " b"] | None = None
    variant: str = ""
    asked: tuple[Marks, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that were looked at, in the order in which they run."""
        return tuple(self.placements)

    def unit(self) -> Float[Tensor, "b *s"]:
        """The map for display: its positive part divided by its maximum, each image by its own. Zero stays zero.

        Of a map of scores (`offset`) what exceeds its mean stands for the positive part.
        """
        return unit(centered(self.map) if self.offset else self.map)

    def __len__(self) -> int:
        return len(self.map)

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"no image {index}: {len(self)} were explained, counted from 0")
        index %= len(self)
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
            asked_signed=self.asked_signed,
            of_pixels=self.of_pixels,
            offset=self.offset,
            variant=self.variant,
            asked=self.asked[index] if self.asked else Marks(),
        )

    def figure(
        self, *, columns: int | None = None, signed: bool | None = None, asked: bool = True, frames: bool | None = None
    ) -> Image.Image:
        """All images side by side, with captions, which name the photos if there are several, and one color bar.

        Args:
            columns: panels in a row; by default at most 4.
            signed: show negative values too, in two colors. None: where the caller asked for the signed form.
            asked: draw thinly where what was asked about lies.
            frames: as in `Item.overlay`.
        """
        panels = [item.panel(signed=signed, named=len(self) > 1, asked=asked, frames=frames) for item in self]
        return figure(panels, columns=columns, bars=bars([self[0]], signed))

    def to_dict(self) -> dict[str, Any]:
        """The manifest: all but the maps themselves, ready for JSON."""
        return self._manifest([item.to_dict() for item in self])

    def _manifest(self, images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "seewhy": release(),
            "model": self.model,
            "method": self.method,
            "options": dict(self.options),
            "layers": {
                name: {"placement": kind, **({"grid": list(self.raw[name].shape[1:])} if name in self.raw else {})}
                for name, kind in self.placements.items()
            },
            "units": self.units,
            "signed": self.signed,
            "notes": list(self.notes),
            "verdict": self.verdict,
            **({} if self.residual is None else {"residual": self.residual.tolist()}),
            "images": list(images),
        }

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        boxes: bool = False,
        signed: bool | None = None,
        asked: bool = True,
        frames: bool | None = None,
    ) -> list[Path]:
        """Write, for each image, its overlay (PNG) and raw values (npz), and one manifest (JSON) of them all.

        They are written under temporary names and then renamed, so that nothing half-written is ever left. An image
        that is called like an earlier one gets a number.

        Args:
            folder: made where it is missing.
            boxes: draw the boxes that the manifest lists, those of `Item.boxes()`, on the overlay.
            signed: show negative values too on the overlay. None: where the caller asked for the signed form.
            asked: draw thinly where what was asked about lies.
            frames: as in `Item.overlay`.

        Returns:
            The files: overlay and values of each image, and the manifest last.

        Raises:
            OutputError: the folder cannot be made or written to.
        """
        return write(Path(folder), self._files(boxes, signed, asked, frames))

    def _files(self, boxes: bool, signed: bool | None, asked: bool, frames: bool | None) -> Iterator[tuple[str, Fill]]:
        """One image after the other, so that only one map at its photo's size is in memory at a time."""
        entries: dict[str, dict[str, Any]] = {}
        for item in self:
            stem = distinct(item.stem(), entries)
            entries[stem] = {**item.to_dict(), "values": f"{stem}.npz"}
            if item.picture is not None:
                entries[stem]["overlay"] = f"{stem}.png"
                found = item.boxes() if boxes else ()
                picture = item.overlay(boxes=found, signed=signed, asked=asked, frames=frames)
                yield f"{stem}.png", partial(picture.save, format="PNG")
            yield f"{stem}.npz", partial(np.savez_compressed, **item.arrays())
        others = f"_and-{len(entries) - 1}-more" if len(entries) > 1 else ""
        yield f"{next(iter(entries))}{others}.json", json_file(self._manifest(list(entries.values())))

    def __repr__(self) -> str:
        what = gist([self.method], self.target, [self.layers], self.map.shape[1:])
        return f"<Explanation of {len(self)} image{'s' * (len(self) > 1)}: {what}>"

    def _repr_html_(self) -> str:
        drawable = all(picture is not None for picture in self.pictures)
        return html_of(self.figure() if drawable else None, [repr(self.target)] if not drawable else [], self.notes)
