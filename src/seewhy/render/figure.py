"""Pictures side by side with their titles and their shared color bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from seewhy.render.color import DIVERGING, table
from seewhy.render.text import paragraph
from seewhy.types import ShapeError

_HEIGHT, _WIDEST, _NARROWEST = 320, 800, 170  # of a panel, in pixels; the narrowest leaves room for a title
_STRIP = 3  # pictures that are wider than so many times their height stand below each other
_TINY = 80  # pictures up to this height keep their pixels visible when they are enlarged
_GAP, _BAR = 14, 14
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (95, 95, 95)


@dataclass(frozen=True)
class Panel:
    """One picture of a figure.

    Attributes:
        image: at any size; its aspect is kept.
        title_lines: what stands above it: the first line dark (class and probability), others grey (method, layer).
    """

    image: Image.Image
    title_lines: Sequence[str] = ()


def figure(
    panels: Sequence[Panel],
    *,
    columns: int | None = None,
    title: str | None = None,
    bars: Mapping[str, str] | None = None,
) -> Image.Image:
    """Panels of equal height in rows, titles wrapped above them, and below them the color bars.

    Large photos are scaled down to 320 pixels of height, or less where one would be wider than 800; tiny ones up.

    Args:
        panels: at least one.
        columns: panels in a row; by default at most 4, of such as are wider than three times their height 1.
        title: of the whole figure.
        bars: one bar for each of these colormaps; what its colors mean, and their unit.

    Raises:
        ShapeError: without a panel, or with less than one column.
    """
    if not panels or (columns is not None and columns < 1):
        raise ShapeError(f"got {len(panels)} panels in {columns} columns; a figure has at least one of each; add one")
    most = 1 if max(panel.image.width / panel.image.height for panel in panels) > _STRIP else 4
    per_row = min(columns or -(-len(panels) // -(-len(panels) // most)), len(panels))
    height = _common_height(panels)
    pictures = [_scaled(panel.image, height) for panel in panels]
    widths = [max(_NARROWEST, *(picture.width for picture in pictures[i::per_row])) for i in range(per_row)]
    cells = [
        _stacked([_titles(panel.title_lines, widths[i % per_row]), picture], width=widths[i % per_row], gap=4)
        for i, (panel, picture) in enumerate(zip(panels, pictures, strict=True))
    ]
    waiting = iter(cells)
    rows = [_beside(row, widths) for row in iter(lambda: list(islice(waiting, per_row)), [])]
    inner = rows[0].width
    head = [paragraph(title, 19, width=inner, ink=_INK)] if title else []
    foot = [colorbar(min(inner, 420), colormap=name, label=label) for name, label in (bars or {}).items()]
    return _framed(_stacked([*head, *rows, *foot], width=inner, gap=_GAP))


def colorbar(
    width: int, *, colormap: str = "turbo", ticks: Sequence[str] | None = None, label: str = ""
) -> Image.Image:
    """A horizontal strip of a colormap with numbers at its ends (or evenly along it), and its unit below.

    Args:
        width: in pixels.
        colormap: a name in COLORMAPS.
        ticks: texts from left to right, at least two; by default 0 and 1, or -1, 0 and 1 for a colormap of signs.
        label: what the numbers mean, and their unit.
    """
    places = np.linspace(0, 255, width).round().astype(int)
    strip = Image.fromarray(np.repeat(table(colormap)[places][None], _BAR, axis=0))
    texts = ticks or (("-1", "0", "1") if colormap in DIVERGING else ("0", "1"))
    marks = [paragraph(text, 13, width=width, ink=_INK) for text in texts]
    numbers = Image.new("RGB", (width, marks[0].height), _PAPER)
    for number, mark in enumerate(marks):
        numbers.paste(mark, (round((width - mark.width) * number / max(len(marks) - 1, 1)), 0))
    unit = [paragraph(label, 13, width=width, ink=_FAINT)] if label else []
    return _stacked([strip, numbers, *unit], width=width, gap=2)


def _common_height(panels: Sequence[Panel]) -> int:
    widest = max(panel.image.width / panel.image.height for panel in panels)
    return max(1, min(_HEIGHT, round(_WIDEST / widest)))


def _scaled(image: Image.Image, height: int) -> Image.Image:
    width = max(1, round(image.width * height / image.height))
    way = Image.Resampling.NEAREST if image.height <= min(_TINY, height) else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((width, height), way, reducing_gap=3.0)


def _titles(lines: Sequence[str], width: int) -> Image.Image:
    parts = [paragraph(line, 15, width=width, ink=_FAINT if number else _INK) for number, line in enumerate(lines)]
    return _stacked(parts, width=width)


def _stacked(parts: Sequence[Image.Image], *, width: int, gap: int = 0) -> Image.Image:
    """Pictures under each other, each in the middle of the width."""
    shown = [part for part in parts if part.height]
    height = sum(part.height for part in shown) + gap * max(len(shown) - 1, 0)
    canvas = Image.new("RGB", (width, height), _PAPER)
    top = 0
    for part in shown:
        canvas.paste(part, ((width - part.width) // 2, top))
        top += part.height + gap
    return canvas


def _beside(cells: Sequence[Image.Image], widths: Sequence[int]) -> Image.Image:
    """Pictures in their columns, on a common ground line: titles may differ in length, photos do not jump."""
    height = max(cell.height for cell in cells)
    canvas = Image.new("RGB", (sum(widths) + _GAP * (len(widths) - 1), height), _PAPER)
    for number, cell in enumerate(cells):
        canvas.paste(cell, (sum(widths[:number]) + _GAP * number, height - cell.height))
    return canvas


def _framed(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (image.width + 2 * _GAP, image.height + 2 * _GAP), _PAPER)
    canvas.paste(image, (_GAP, _GAP))
    return canvas
