"""Tensors in what a module puts out, which may be nested: tuples, lists, mappings, dataclasses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, cast

from torch import Tensor

from seewhy.types import Path


def follow(output: Any, path: Path) -> Any:
    """What stands at `path` in a nested output."""
    for step in path:
        by_name = isinstance(step, str) and not isinstance(output, Mapping) and is_dataclass(output)
        output = getattr(output, str(step)) if by_name else cast(Any, output)[step]
    return output


def tensors(output: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Every floating tensor of a nested output, with the path that leads to it."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield path, output
        return
    for step, part in _parts(output):
        yield from tensors(part, (*path, step))


def mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nested output with every tensor changed; what holds them is copied, as shallow as can be."""
    if isinstance(output, Tensor):
        return change(output)
    parts = {step: mapped(part, change) for step, part in _parts(output)}
    if isinstance(output, tuple | list):
        return type(output)(*parts.values()) if hasattr(output, "_fields") else type(output)([*parts.values()])
    if not isinstance(output, Mapping) and not _is_record(output):
        return output
    changed = cast(Any, copy(output))
    for step, part in parts.items():
        if isinstance(output, Mapping):
            changed[step] = part
        else:
            object.__setattr__(changed, str(step), part)  # as it was made: frozen ones too, and nothing is run again
    return changed


def spell(path: Path) -> str:
    """A path as it would be written in Python: `['logits']`, `[0]`."""
    return "".join(f"[{step!r}]" for step in path)


def _parts(output: Any) -> list[tuple[str | int, Any]]:
    """What a container holds, by key, index or name."""
    if isinstance(output, Mapping):  # ahead of dataclasses: an output of transformers is both
        return list(cast(Mapping[str, Any], output).items())
    if isinstance(output, tuple | list):
        return list(enumerate(cast(Sequence[Any], output)))
    if not _is_record(output):
        return []
    named = ((field.name, getattr(output, field.name, None)) for field in fields(output))
    return [(name, value) for name, value in named if value is not None]


def _is_record(output: Any) -> bool:
    return is_dataclass(output) and not isinstance(output, type)
