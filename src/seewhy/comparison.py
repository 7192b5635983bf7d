"""Several explanations of the same images, side by side."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from seewhy.explanation import Explanation
from seewhy.item import LEGEND, gist
from seewhy.render.figure import Panel, figure
from seewhy.render.html import html_of
from seewhy.saving import Fill, file_name, json_file, write


@dataclass(frozen=True, eq=False, repr=False)
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
        return figure(panels, columns=columns, legend=LEGEND)

    def save(self, folder: str | os.PathLike[str], image: int = 0) -> list[Path]:
        """Write one image's figure (PNG) and the manifest of all explanations (JSON); each file whole or not at all.

        Raises:
            OutputError: the folder cannot be made or written to.
        """
        stem = f"{file_name(self.explanations[0][image].name)}_compare"
        picture: Fill = partial(self.figure(image).save, format="PNG")
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
