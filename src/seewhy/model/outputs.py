"""The tensors of a module's output, which may be nested, and which of a model's holds the scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, cast

import torch
from torch import Tensor

from seewhy.types import EMBEDDINGS, ModelError, Path, ShapeError, follow

_SCORE_KEYS = ("logits", "out", "logits_per_image")  # transformers, torchvision segmentation, CLIP


def tensors(output: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Every floating tensor of a nested output (tuple, list, mapping, dataclass), with the path that leads to it."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors(value, (*path, key))
    elif is_dataclass(output) and not isinstance(output, type):
        for field in fields(output):
            yield from tensors(getattr(output, field.name), (*path, field.name))
    elif isinstance(output, tuple | list):
        for index, value in enumerate(output):
            yield from tensors(value, (*path, index))


def mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nested output with every tensor changed; containers are copied."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, Mapping):
        changed = cast(dict[Any, Any], copy(output))
        for key, value in cast(Mapping[Any, Any], output).items():
            changed[key] = mapped(value, change)
        return changed
    if isinstance(output, tuple | list):
        parts = [mapped(part, change) for part in cast(Sequence[Any], output)]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def score_path(output: Any, images: int) -> tuple[Path, str | None]:
    """Where the scores are, and a note if that was a choice among several tensors.

    The output itself; else what is called `logits` or `out`; else the only tensor with a row for each image; else the
    only (b k) matrix of a tuple, such as logits beside hidden states or beside their own probabilities; else what is
    called like an embedding.

    Raises:
        ModelError: there is no such tensor, or several and no rule to choose.
    """
    if isinstance(output, Tensor):
        return (), None
    found = dict(tensors(output))
    if not found:
        raise ModelError(
            f"the model returned {type(output).__name__} without a floating tensor; pass a model that returns scores"
        )
    names = getattr(output, "_fields", ()) if isinstance(output, tuple) else ()
    keys: list[Path] = [(names.index(key),) if key in names else (key,) for key in _SCORE_KEYS]
    named = [path for path in keys if path in found]
    rows = [path for path, tensor in found.items() if tensor.ndim and tensor.shape[0] == images]
    matrices = [path for path in rows if found[path].ndim == 2]
    logits = [path for path in matrices if not any(_squashes(found[path], found[other]) for other in matrices)]
    alone = rows if len(rows) == 1 else logits if isinstance(output, tuple | list) and len(logits) == 1 else []
    embeddings = [(key,) for key in EMBEDDINGS if (key,) in matrices]
    chosen = (named or alone or embeddings)[:1]
    if not chosen:
        choices = ", ".join(f"{spell(path)} {tuple(tensor.shape)}" for path, tensor in found.items())
        raise ModelError(f"the model's output holds several tensors ({choices}); say which are the scores: output=...")
    note = f"scores read from output{spell(chosen[0])}, one of {len(found)} tensors" if len(found) > 1 else None
    return chosen[0], note


def _squashes(some: Tensor, others: Tensor) -> bool:
    """Whether these are the probabilities of those logits, by a softmax or a sigmoid."""
    if some.shape != others.shape or some is others or not some.numel():
        return False
    probabilities, logits = some.detach().float(), others.detach().float()
    squashed = (logits.softmax(-1), logits.sigmoid())
    return any(bool(torch.isclose(probabilities, each, rtol=0.01, atol=1e-6).all()) for each in squashed)


def read_scores(output: Any, path: Path) -> Tensor:
    """The score tensor at `path` of a model's output, checked to be one and to hold numbers.

    Raises:
        ModelError: there is nothing at this path, or no tensor of floating numbers.
        ShapeError: NaN or infinite scores.
    """
    if path and isinstance(output, Tensor):
        raise ModelError(f"the model returns one tensor, which has no {spell(path)}; leave output= out")
    try:
        scores = follow(output, path)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the model's output has nothing at {spell(path)}; output= takes keys and indices that lead to its scores"
        ) from error
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise ModelError(
            f"the model's output at {spell(path) or 'its top'} is no tensor of scores; name one by output="
        )
    if not bool(scores.isfinite().all()):
        raise ShapeError(
            "the model's scores hold NaN or infinite values, which no map can explain; check its input and its weights"
        )
    return scores


def spell(path: Path) -> str:
    """A path as it would be written in Python: `['logits']`, `[0]`."""
    return "".join(f"[{step!r}]" for step in path)
