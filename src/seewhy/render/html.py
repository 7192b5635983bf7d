"""What a notebook shows."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image


def html_of(image: Image.Image | None, lines: Sequence[str], notes: Sequence[str]) -> str:
    """A notebook's view: the picture, the caption, the notes."""
    parts: list[str] = []
    if image is not None:
        buffer = BytesIO()
        image.save(buffer, "PNG")
        parts.append(f'<img alt="heat map" src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}">')
    parts += [f"<div>{escape(line)}</div>" for line in lines]
    parts += [f"<div><small>{escape(note)}</small></div>" for note in notes]
    return "".join(parts)
