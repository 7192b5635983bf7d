"""Text in pictures: wrapped, never clipped, in the font that Pillow brings along where that has the letters."""

import unicodedata
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int]

# the built-in font is little more than ASCII; these are asked next, as far as the machine has them
_FONTS = (None, "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf", "msyh.ttc")
_PLAIN = str.maketrans({"–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "\u00a0": " "})
_LEADING = 1.3


def paragraph(text: str, size: int, *, width: int, ink: Color) -> Image.Image:
    """A picture of a text on white, its lines centered, as narrow as they allow and at most `width` wide.

    Letters that no font here can show lose their accents, or become empty boxes; nothing is an error.
    """
    # control characters and lone surrogates, as in names of files, have no picture
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in text.translate(_PLAIN))
    shown, name = _with_font(clean)
    face = _font(size, name)
    lines = lines_of(shown, width, face)
    widths = [int(face.getlength(line)) + 1 for line in lines]
    _, top, _, bottom = face.getbbox("ÅÇgjy|")
    step = round(max(bottom, (bottom - top) * _LEADING))
    picture = Image.new("RGB", (max(widths), step * len(lines)), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text(((max(widths) - widths[number]) // 2, number * step), line, font=face, fill=ink)
    return picture


def lines_of(text: str, width: int, face: Font) -> list[str]:
    """The text in lines of at most `width` pixels, broken at spaces, and inside a word only where that is too long."""
    lines: list[str] = []
    for part in text.split("\n"):
        line = ""
        for word in part.split():
            joined = f"{line} {word}" if line else word
            if face.getlength(joined) <= width:
                line = joined
                continue
            pieces = _pieces(word, width, face)
            lines += [line, *pieces[:-1]] if line else pieces[:-1]
            line = pieces[-1]
        lines.append(line)
    return lines


def _with_font(text: str) -> tuple[str, str | None]:
    """The text and the first of the fonts that have most of its letters; those that it has not lose their accents."""
    letters = set(text)
    name = max(_FONTS, key=lambda name: sum(_has(name, letter) for letter in letters))
    plain = {c: unicodedata.normalize("NFKD", c)[0] for c in letters if not _has(name, c)}
    return "".join(plain.get(c, c) for c in text), name


@lru_cache(maxsize=4096)
def _has(name: str | None, letter: str) -> bool:
    if letter.isspace():
        return True
    try:
        face = _font(16, name)
    except OSError:  # no such font on this machine
        return False
    return _drawn(letter, face) != _drawn("\uffff", face)  # a letter that is missing is drawn like one that cannot be


def _drawn(letter: str, face: Font) -> bytes:
    picture = Image.new("L", (32, 32))
    ImageDraw.Draw(picture).text((4, 4), letter, font=face, fill=255)
    return picture.tobytes()


@lru_cache
def _font(size: int, name: str | None) -> Font:
    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)


def _pieces(word: str, width: int, face: Font) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and face.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
