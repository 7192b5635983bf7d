"""Several explanations of the same images, side by side."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from seewhy.explanation import Explanation
from seewhy.item import Picture, bars, gist
from seewhy.render.figure import Panel, figure
from seewhy.render.html import html_of
from seewhy.saving import Fill, file_name, json_file, write
from seewhy.tensor import chunked


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Explanations of the same images, in the order targets x methods x layers, from one forward pass.

    Attributes:
        shape: how many targets, methods and layers; their product is the number of explanations.
    """

    explanations: tuple[Explanation, ...]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.explanations)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.explanations)

    def __getitem__(self, index: int) -> Explanation:
        return self.explanations[index]

    def figure(
        self,
        image: int = 0,
        *,
        columns: int | None = None,
        photo: bool = True,
        signed: bool | None = None,
        asked: bool = True,
        frames: bool | None = None,
    ) -> Image.Image:
        """One image's maps side by side, after the photo itself, with captions and the color bars that they need.

        Several targets and several methods or layers make a matrix: a row is one question, which begins with the photo,
        a column one method and layer. Of one target, a row is one method, a column one layer.

        Args:
            image: which of the images.
            columns: panels in a row, instead of the matrix.
            photo: show the photo, too.
            signed: show negative values too, in two colors. None: where the caller asked for the signed form.
            asked: draw thinly where what was asked about lies.
            frames: as in `Item.overlay`.
        """
        items = [each[image] for each in self]
        panels = [item.panel(signed=signed, asked=asked, frames=frames) for item in items]
        targets, methods, _ = self.shape
        width = len(items) // (targets if targets > 1 else methods)
        matrix = columns is None and 1 < width < len(items)
        before = (
            [Panel(items[0].picture.image, ["photo", items[0].name])]
            if photo and isinstance(items[0].picture, Picture)
            else []
        )
        rows = chunked(len(panels), width if matrix else len(panels))
        shown = [panel for row in rows for panel in (*before, *panels[row])]
        return figure(shown, columns=len(before) + width if matrix else columns, bars=bars(items, signed))

    def save(
        self,
        folder: str | os.PathLike[str],
        image: int = 0,
        *,
        signed: bool | None = None,
        asked: bool = True,
        frames: bool | None = None,
    ) -> list[Path]:
        """Write one image's figure (PNG) and the manifest of all explanations (JSON); each file whole or not at all.

        Args:
            folder: made where it is missing.
            image: which of the images.
            signed: as in `figure`.
            asked: as in `figure`.
            frames: as in `figure`.

        Raises:
            OutputError: the folder cannot be made or written to.
        """
        stem = f"{file_name(self.explanations[0][image].name)}_compare"
        drawn = self.figure(image, signed=signed, asked=asked, frames=frames)
        picture: Fill = partial(drawn.save, format="PNG")
        manifest = json_file([each.to_dict() for each in self])
        return write(Path(folder), [(f"{stem}.png", picture), (f"{stem}.json", manifest)])

    def __repr__(self) -> str:
        methods, layers = [each.method for each in self], [each.layers for each in self]
        targets = [target for each in self for target in each.target]
        images, size = self.explanations[0].map.shape[0], self.explanations[0].map.shape[1:]
        what = gist(methods, targets, layers, size)
        return f"<Comparison of {len(self)} explanations, {images} image{'s' * (images > 1)} each: {what}>"

    def _repr_html_(self) -> str:
        return html_of(self.figure(), [], tuple(dict.fromkeys(note for each in self for note in each.notes)))
