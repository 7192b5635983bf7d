"""Running a model on what it was given: whatever it refuses that with is one error, which names all of it."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.model.batch import Batch
from seewhy.model.observe import is_ours
from seewhy.types import ModelError, SeewhyError


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
        f"{str(images.dtype).removeprefix('torch.')}{f' with {others}' if others else ''} ({_reason(error)}); give the "
        f"batch as it takes it, and further inputs by args= and kwargs={_channels_last(images.shape)}"
    )


def _kind(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"


def _reason(error: Exception) -> str:
    """Its first line; of errors that Python raises itself, which often name but a key, the kind too."""
    line, kind = next(iter(str(error).splitlines()), ""), type(error).__name__
    plain = isinstance(error, RuntimeError | TypeError | ValueError | AssertionError) and line
    return line if plain else f"{kind}: {line}" if line else kind


def _channels_last(shape: Sequence[int]) -> str:
    last = len(shape) == 4 and shape[-1] in (1, 3, 4) and shape[1] not in (1, 3, 4)
    return "; its channels seem to be last: images.permute(0, 3, 1, 2)" if last else ""
