"""Which of a model's further arguments belong to the images, where their number of rows does not tell.

A gain for each image follows the images into every changed batch; the texts of a CLIP do not, even where they are as
many. Neither can be told by its shape, so it is tried: on the clean images, in another order and one more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.model.batch import Batch
from seewhy.model.observe import untouched
from seewhy.types import Target

_TRIALS = 64
"""All combinations of six arguments; who has more of them gets the first ones tried."""
_REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AssertionError)
"""What models and questions say to arguments that do not fit together."""


def settled(model: nn.Module, batch: Batch, questions: Sequence[Target]) -> Batch:
    """The batch, those of its arguments marked as shared that are no image's though they have as many rows.

    Right is what gives every image its clean answers again: the first such choice, all shared (which costs least)
    before all following before mixtures; where none is exact, as in a model that draws random numbers, the nearest.
    """
    doubtful = batch.with_rows
    if not doubtful or not questions:
        return batch
    rows = (torch.arange(len(batch) + 1, device=batch.inputs.device) + 1) % len(batch)
    with untouched(model), torch.no_grad():
        clean = _answers(model, batch, questions, batch.rows)
        tolerance = 256 * torch.finfo(clean.dtype).eps * float(clean.abs().amax())
        best, least = batch, torch.inf
        for shared in islice(_choices(doubtful), _TRIALS):
            tried = replace(batch, shared=frozenset(shared))
            missed = _missed(model, tried, questions, rows, clean)
            if missed < least:  # never where it is no number
                best, least = tried, missed
            if missed <= tolerance:
                break
    return best


def _choices(doubtful: Sequence[int | str]) -> Iterator[tuple[int | str, ...]]:
    """The arguments that might be shared: all, none, then some."""
    yield tuple(doubtful)
    yield ()
    for count in range(len(doubtful) - 1, 0, -1):
        yield from combinations(doubtful, count)


def _missed(
    model: nn.Module, batch: Batch, questions: Sequence[Target], rows: Int[Tensor, " m"], clean: Float[Tensor, "q b"]
) -> float:
    """By how much the answers on these rows of the images miss the clean ones; infinite where there are none."""
    try:
        again = _answers(model, batch.of_rows(batch.inputs[rows], rows), questions, rows)
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS:
        return torch.inf
    return float((again - clean[:, rows]).abs().amax()) if again.shape == (len(clean), len(rows)) else torch.inf


def _answers(
    model: nn.Module, batch: Batch, questions: Sequence[Target], rows: Int[Tensor, " m"]
) -> Float[Tensor, "q m"]:
    args, kwargs = replace(batch, inputs=batch.inputs.clone()).given  # some models write into their input
    output = model(*args, **kwargs)
    return torch.stack([target(output, rows) for target in questions])
