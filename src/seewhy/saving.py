"""Files that are written whole or not at all, under names that any file system takes."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from seewhy.types import OutputError

Fill = Callable[[IO[bytes]], Any]

_LONGEST = 110  # bytes of a name; file systems take 255, and names are made of two of them and an ending


def write(folder: Path, files: Iterable[tuple[str, Fill]]) -> list[Path]:
    """Write files into a folder: all under temporary names first, then renamed, so that a failure leaves none of them.

    Args:
        folder: made where it is missing.
        files: names, each with the function that fills its file; one is asked for after the other is written.

    Returns:
        Their paths.

    Raises:
        OutputError: the folder cannot be made or written to, or is full.
    """
    filled: dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, fill in files:
            temporary = folder / f".{uuid4().hex}"
            with temporary.open("xb") as file:
                filled[temporary] = folder / name
                fill(file)
        for temporary, path in filled.items():
            temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"cannot write to the folder '{folder}' ({reason}); results need a folder with write permission and room; "
            "name another one"
        ) from error
    finally:
        for temporary in filled:
            temporary.unlink(missing_ok=True)
    return list(filled.values())


def file_name(text: str, number: str = "") -> str:
    """A text as a file's name without its suffix: what file systems dislike becomes a hyphen, the end is cut off.

    What tells equal names apart, such as `-2`, is not cut off.
    """
    plain = re.sub(r"[^\w.+]+", "-", text).strip("-.")
    return (plain.encode()[: _LONGEST - len(number)].decode(errors="ignore") or "unnamed") + number


def distinct(name: str, taken: Iterable[str]) -> str:
    """The name, or the first of name-2, name-3, ... that is free; file systems may not tell upper from lower case."""
    used = {each.casefold() for each in taken}
    spellings = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(spelling for spelling in spellings if spelling.casefold() not in used)


def json_text(value: Any) -> str:
    """A value as strict JSON: numbers that are not finite become null, what JSON has no form for its text."""
    return json.dumps(_finite(value), indent=2, allow_nan=False, default=str) + "\n"


def json_file(value: Any) -> Fill:
    """What fills a file with a value as strict JSON."""
    text = json_text(value).encode()
    return lambda file: file.write(text)


def release() -> str:
    """The version of seewhy that is running."""
    try:
        return version("seewhy")
    except PackageNotFoundError:  # run from its sources without an installation
        return "unknown"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
