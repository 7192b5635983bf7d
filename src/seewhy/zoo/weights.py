"""Weights files: read without running code, unwrapped, and fitted exactly or not at all."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.types import ModelError
from seewhy.wording import some
from seewhy.zoo.loaded import Request
from seewhy.zoo.optional import optional

State = Mapping[str, Tensor]
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
FOREIGN = re.compile(r"Unsupported (?:global|class)[^A-Z]*(?:GLOBAL )?(\S+)")
COUNTERS = "num_batches_tracked"  # of batch norm, which files from before torch 0.4.1 lack and inference never reads


def load_file(module: nn.Module, request: Request) -> tuple[str, ...]:
    """Put the weights of `request.file` into a freshly built module: every tensor, of the right shape, none left over.

    Returns:
        Notes on what was unwrapped.

    Raises:
        ModelError: the file cannot be read, would run code, or does not fit the module.
    """
    path = request.file
    if path is None:
        return ()
    state, notes = unwrap(_read(path, request.trust_code), path)
    problems = _mismatch(module.state_dict(), state)
    if problems:
        raise ModelError(
            f"{path.name} does not fit {request.full_name}: {problems}; name the architecture that it was saved from, "
            "and give its class names with labels= if its head is not the usual size"
        )
    module.load_state_dict(dict(state))
    return (f"weights from {path.name}", *notes)


def unwrap(content: Any, path: Path) -> tuple[State, tuple[str, ...]]:
    """The tensors by name in what a file holds, without a training script's wrapping, and notes on what that was."""
    notes: list[str] = []
    for key in WRAPPERS:
        if isinstance(content, Mapping) and key in content and not isinstance(content[key], Tensor):
            content, notes = content[key], [*notes, f"took {key!r} out of the file"]
    state: Any = content.state_dict() if isinstance(content, nn.Module) else content
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(
            f"{path.name} must hold tensors by name (a state dict), it holds {_described(state)}; "
            "save model.state_dict() instead"
        )
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            notes = [*notes, f"dropped the prefix {prefix!r}"]
    return state, tuple(notes)


def _read(path: Path, trust_code: bool) -> Any:
    if not path.is_file():
        raise ModelError(
            f"no weights file {str(path)!r}; give an existing .safetensors or .pt file, or weights='random'"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust_code)
    except Exception as error:  # a damaged pickle raises anything: KeyError, EOFError, RuntimeError, ...
        code = FOREIGN.search(str(error))
        if code is None:
            raise _unreadable(path, error) from error
        raise ModelError(
            f"{path.name} is no plain file of tensors: reading it would run the code of {code[1]}; save only "
            "model.state_dict(), best as .safetensors, or pass trust_code=True if you trust whoever made it"
        ) from error


def _read_safetensors(path: Path) -> State:
    reader = optional("safetensors", "weights", path.name)
    torch_reader = optional("safetensors.torch", "weights", path.name)
    try:
        return torch_reader.load_file(path)
    except (reader.SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ModelError:
    reason = f"{type(error).__name__}: {error}".partition(". ")[0].partition("\n")[0]
    return ModelError(f"{path.name} cannot be read as weights ({reason}); if it is damaged, copy or save it again")


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    odd = [f"{key!r}: {type(value).__name__}" for key, value in content.items() if not isinstance(value, Tensor)]
    return f"entries such as {some(odd)}" if odd else "nothing"


def _mismatch(wanted: State, got: State) -> str:
    missing = [repr(key) for key in wanted if key not in got and not key.endswith(COUNTERS)]
    unexpected = [repr(key) for key in got if key not in wanted]
    shapes = [
        f"{key!r} {tuple(got[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in got and got[key].shape != value.shape
    ]
    parts = (
        _counted(missing, f"of {len(wanted)} tensors missing"),
        _counted(unexpected, "unexpected"),
        _counted(shapes, "of another shape"),
    )
    return ", ".join(part for part in parts if part)


def _counted(items: Sequence[str], what: str) -> str:
    return f"{len(items)} {what} ({some(items)})" if items else ""
