"""Libraries that are there or not: a missing one becomes one sentence that says what to install."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

import torch

from seewhy.types import ModelError


def optional(module: str, extra: str, needed_by: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: its import name.
        extra: the extra of seewhy that installs it.
        needed_by: what the user asked for.

    Raises:
        ModelError: it is not installed, or torchvision, which it needs, does not fit the installed torch.
    """
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another build than torch's
        raise ModelError(broken_torchvision() or _missing(module, extra, needed_by, error)) from error


def broken_torchvision() -> str | None:
    """Why the installed torchvision cannot be imported, and the way out, in one sentence; None if nothing is wrong."""
    try:
        installed = find_spec("torchvision") is not None
    except ValueError:  # the name is blocked or half imported
        installed = False
    if not installed:
        return None
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        return (
            f"torchvision {_version('torchvision')} cannot be imported beside torch {torch.__version__} ({error}): "
            "they must be a pair of the same build (CPU or one CUDA); install a pair such as torch 2.13.0 with "
            "torchvision 0.28.0, both from the same index"
        )
    return None


def unreachable(name: str, error: Exception) -> ModelError:
    """The error for weights that a library could not fetch, with its own reason."""
    reason = str(error).strip().partition("\n")[0].removesuffix(".")
    return ModelError(
        f"the pretrained weights of {name} cannot be had ({reason}); check the network, or give weights=FILE of a "
        "local copy, or weights='random' for the bare architecture"
    )


def _missing(module: str, extra: str, needed_by: str, error: Exception) -> str:
    return f"{needed_by} needs the package {module}, which cannot be imported ({error}); pip install 'seewhy[{extra}]'"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"
