"""Writing files whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from seewhy.types import ImageError


def write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Write a file whole or not at all: under a temporary name in the same folder, then renamed.

    Raises:
        ImageError: the folder or file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            fill(file)
        temporary.replace(path)
    except OSError as error:
        raise ImageError(f"cannot write {path} ({error.strerror}); name a folder that can be written to") from error
    finally:
        temporary.unlink(missing_ok=True)
