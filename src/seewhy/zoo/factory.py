"""Your own model: "package.module:factory"."""

from dataclasses import replace
from importlib import import_module
from typing import Any

from torch import nn

from seewhy.types import ModelError
from seewhy.wording import closest
from seewhy.zoo.loaded import RANDOM_NOTE, Loaded, Request, spelled
from seewhy.zoo.weights import load_file


def load_factory(request: Request) -> Loaded:
    """Import `package.module` and call its `factory` without arguments: it must return a module, or a `Loaded`.

    This runs the code of the module that was named, as any import does. `weights=FILE` is loaded into what it returns.
    """
    factory = _imported(request)
    try:
        made = factory()
    except Exception as error:  # the user's own code: what it said, and where, without a page of ours around it
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".removesuffix(": ")
        raise ModelError(
            f"{request.full_name} failed ({reason}); it is called without arguments and must return the model"
        ) from error
    if not isinstance(made, nn.Module | Loaded):
        raise ModelError(
            f"{request.full_name} returned a {type(made).__name__}; it must return an nn.Module or a seewhy Loaded"
        )
    loaded = made if isinstance(made, Loaded) else Loaded(made, None, None, request.full_name)
    notes = (RANDOM_NOTE,) if request.weights == "random" else load_file(loaded.module, request)
    labels = request.checked_labels(loaded.labels, None if loaded.labels is None else len(loaded.labels))
    return replace(
        loaded,
        module=loaded.module.eval(),
        labels=labels,
        name=request.full_name,
        notes=(*loaded.notes, *notes),
        label_notes=loaded.label_notes if request.labels is None else (),
    )


def _imported(request: Request) -> Any:
    try:
        module = import_module(request.scheme)
    except ImportError as error:
        raise ModelError(
            f"{request.full_name}: the module {request.scheme!r} cannot be imported ({error}); models are named "
            f"{spelled()}"
        ) from error
    names = [name for name, what in vars(module).items() if not name.startswith("_") and callable(what)]
    factory = getattr(module, request.name, None)
    if not callable(factory):
        what = "is no function" if hasattr(module, request.name) else "does not exist"
        raise ModelError(
            f"{request.full_name}: {request.name!r} {what} in {request.scheme}; {closest(request.name, names)}"
        )
    return factory
