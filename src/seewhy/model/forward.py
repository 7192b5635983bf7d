"""Running a model on what it was given: whatever it refuses that with is one error, which names all of it."""

import re
from collections.abc import Iterator, Mapping
from inspect import signature
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.model.batch import Batch
from seewhy.model.observe import is_ours
from seewhy.types import ModelError, SeewhyError

_FEW = (1, 3, 4)
_WORDS = "input_ids"
"""By this keyword models of transformers take words."""
_WRAPPED = "Exception encountered when calling"
"""So Keras begins all errors; what was wrong follows."""
_COLORS = re.compile(r"\x1b\[\d+m")


def forward(model: nn.Module, batch: Batch, told: Batch | None = None) -> Any:
    """What the model puts out.

    What comes of seewhy's own hooks inside the model stays what it is, as does what no input can mend.

    Args:
        model: any module.
        batch: what it is given.
        told: what an error shall speak of, where `batch` is noise in place of it.

    Raises:
        ModelError: anything that the model raises, with the shapes of all its inputs; or that it is on another device.
    """
    args, kwargs = batch.given
    try:
        return model(*args, **kwargs)
    except (torch.OutOfMemoryError, MemoryError, Warning, SeewhyError):
        raise
    except Exception as error:
        if is_ours(error):
            raise
        raise _refused(model, told or batch, error) from error


def _refused(model: nn.Module, batch: Batch, error: Exception) -> ModelError:
    images = batch.images
    there = sorted({str(tensor.device) for tensor in chain(model.parameters(), model.buffers())})
    if there == ["meta"]:
        return ModelError("the model is on the device 'meta', where it has shapes but no values; load its weights")
    if there and str(images.device) not in there:
        return ModelError(
            f"the images are on {images.device} and the model is on {' and '.join(there)}; give both on one device: "
            f"images.to({there[0]!r}), further inputs too"
        )
    first = 1 + (batch.name is None)  # as Python counts them for who calls the model
    further = [(f"argument {number}", value) for number, value in enumerate(batch.args, first)] + [
        *batch.kwargs.items()
    ]
    others = ", ".join(f"{name} {_kind(value)}" for name, value in further)
    return ModelError(
        f"the model does not run on images of shape {tuple(images.shape)} and type "
        f"{_spelled(images.dtype)}{f' with {others}' if others else ''} ({_reason(error)}); give the "
        f"batch as it takes it, and further inputs by args= and kwargs={''.join(_hints(model, batch))}"
    )


def _kind(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"


def _spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _reason(error: Exception) -> str:
    """Its first line that tells one; of errors that Python raises itself, which often name but a key, the kind too."""
    lines = [line for line in _COLORS.sub("", str(error)).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_WRAPPED)] or lines
    line, kind = next(iter(told), ""), type(error).__name__
    plain = isinstance(error, RuntimeError | TypeError | ValueError | AssertionError) and line
    return line if plain else f"{kind}: {line}" if line else kind


def _hints(model: nn.Module, batch: Batch) -> Iterator[str]:
    """What may be wrong with what was given."""
    shape, dtype = batch.images.shape, batch.images.dtype
    own = {each.dtype for each in model.parameters() if each.is_floating_point()}
    if own and dtype not in own:
        yield f"; the model is of {_spelled(min(own, key=str))}: images.to({min(own, key=str)})"
    if len(shape) == 4 and shape[-1] in _FEW and shape[1] not in _FEW:
        yield "; its channels seem to be last: images.permute(0, 3, 1, 2)"
    if len(shape) == 5 and shape[2] in _FEW and shape[1] not in _FEW:
        yield "; its channels seem to be third: images.permute(0, 2, 1, 3, 4)"
    yield from _of_words(model, batch.kwargs)
    if is_exported(model):
        yield (
            "; it was exported, maybe for batches of one size: export it with a dynamic one (torch.export.Dim), or "
            "pass the module that it was exported from"
        )


def _of_words(model: nn.Module, given: Mapping[str, Any]) -> Iterator[str]:
    """Words that a model takes beside images and did not get, or got more of than it takes."""
    ids, config = given.get(_WORDS), getattr(model, "config", None)
    if ids is None and _WORDS in parameters(model):
        yield f"; it takes {_WORDS} too, which were not given"
    most = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    if isinstance(ids, Tensor) and isinstance(most, int) and ids.shape[-1] > most:
        yield f"; {_WORDS} are {ids.shape[-1]} tokens, of which it takes {most}"


def is_exported(model: nn.Module) -> bool:
    """Whether it is a program of `torch.export`, whose operations are no modules."""
    return any(kind.__module__.startswith("torch.export") for kind in type(model).__mro__)


def parameters(model: nn.Module) -> list[str]:
    """The names of what the model takes by position or keyword; none of compiled code that does not tell."""
    try:
        found = signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [each.name for each in found if each.kind is each.POSITIONAL_OR_KEYWORD]
