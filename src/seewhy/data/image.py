"""Read one photo from whatever the user has: a file, a picture, an array, a tensor, or a bundled photo by its name."""

import importlib.util
import re
import struct
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from seewhy.data.rgb import from_array, upright_rgb
from seewhy.types import ImageError
from seewhy.wording import closest

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
_BUNDLED = "skimage:"
_SUFFIXES = (".png", ".jpg", ".gif", ".tif")


@dataclass(frozen=True)
class Photo:
    """A picture in upright RGB at its own pixels, its name, and what was done to it on the way in."""

    image: Image.Image
    name: str = "image"
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.image.height, self.image.width


Source = str | PathLike[str] | Image.Image | Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."] | Photo


def read(source: Source) -> Photo:
    """The photo that the user means, upright, in 8 bit RGB, at its own pixels.

    Args:
        source: a path; a Pillow picture; a numpy array (h, w) or (h, w, 3 or 4), or a torch tensor (3 or 1, h, w), of
            uint8 0..255 or float 0..1; `skimage:chelsea` and the like, the photos that scikit-image brings along;
            or a Photo, which is returned as it is.

    Returns:
        The photo. Its `notes` say what was done: turned by EXIF, alpha blended onto white, 16 bit scaled, CMYK
        converted, first frame of several.

    Raises:
        ImageError: what cannot be read in full, or is larger than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, Image.Image):
        return _from_picture(source)
    if isinstance(source, np.ndarray):
        return Photo(*_named(from_array(source), "image"))
    if isinstance(source, Tensor):
        return Photo(*_named(from_array(_channels_last(source)), "image"))
    if isinstance(source, str) and source.startswith(_BUNDLED):
        return _from_file(_bundled(source.removeprefix(_BUNDLED)))
    if isinstance(source, str) and "://" in source:
        raise ImageError(f"got the address '{source}'; photos are read from files only; download it first")
    try:
        path = Path(source)
    except TypeError as error:
        raise ImageError(
            f"got a {type(source).__name__}; a photo is a path, a Pillow picture, an array, a tensor or "
            "'skimage:name'; pass one of these"
        ) from error
    return _from_file(path)


def _named(image: Image.Image, name: str) -> tuple[Image.Image, str, tuple[str, ...]]:
    rgb, notes = upright_rgb(image)
    return rgb, name, notes


def _from_picture(image: Image.Image) -> Photo:
    name = Path(getattr(image, "filename", "") or "image").stem
    try:
        image.load()
        return Photo(*_named(image, name))
    except ImageError:
        raise
    except _BROKEN as error:
        raise _broken(f"picture '{name}'", error) from error


def _channels_last(tensor: Shaped[Tensor, "..."]) -> Shaped[np.ndarray, "..."]:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        way = "pass x[0] for its first picture" if tensor.ndim == 4 else "permute it to channels first"
        raise ImageError(f"got a tensor of shape {tuple(tensor.shape)}; one photo is (3 or 1, h, w); {way}")
    values = tensor.detach().cpu().permute(1, 2, 0)
    return (values.float() if values.is_floating_point() else values).numpy()


def _from_file(path: Path) -> Photo:
    _check_file(path)
    try:
        with path.open("rb") as file, Image.open(file) as image:
            _check_pixels(image.width * image.height, path)
            image.load()
            return Photo(*_named(image, path.stem))
    except ImageError:
        raise
    except PermissionError as error:
        raise ImageError(f"no permission to read '{path}'; a photo must be readable; change its rights") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\d+", str(error))
        raise _too_large(found.group() if found else "too many", path) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"'{path}' is no picture that Pillow knows; it reads JPEG, PNG, WebP, TIFF, GIF, BMP and others; "
            "save it as one of these (for HEIC, register pillow-heif)"
        ) from error
    except _BROKEN as error:
        raise _broken(f"'{path}'", error) from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ImageError(f"'{path}' is a folder; a photo is one file; pass a file in it")
    if not path.exists():
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        way = closest(path.name, names, "check the path")
        raise ImageError(f"no file '{path}' (looked in '{path.parent.absolute()}'); a photo must exist; {way}")
    if not path.is_file():
        raise ImageError(f"'{path}' is no regular file; a photo is one; copy it into a file first")
    if path.stat().st_size == 0:
        raise ImageError(f"'{path}' has zero bytes; a photo has pixels; copy or download it again")


def _check_pixels(pixels: int, path: Path) -> None:
    # between one and two times the limit Pillow only warns; the limit may be None: the user switched it off
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise _too_large(str(pixels), path)


def _too_large(pixels: str, path: Path) -> ImageError:
    return ImageError(
        f"'{path}' has {pixels} pixels; at most {Image.MAX_IMAGE_PIXELS} are read, as a guard against decompression "
        "bombs; scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
    )


def _broken(what: str, error: Exception) -> ImageError:
    return ImageError(f"{what} cannot be decoded ({error}); a photo must be complete; copy or download it again")


def _bundled(name: str) -> Path:
    """The file of a photo inside the scikit-image package, found without importing it and without its downloads."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise ImageError(f"'{_BUNDLED}{name}' needs scikit-image, which is not installed; pip install 'seewhy[demo]'")
    files = {file.stem: file for file in (Path(package.origin).parent / "data").iterdir() if file.suffix in _SUFFIXES}
    if name not in files:
        raise ImageError(f"scikit-image brings no photo '{name}'; it has {', '.join(sorted(files))}; pass one of these")
    return files[name]
