"""Which tensor of a model's output holds the scores."""

from typing import Any

import torch
from torch import Tensor

from seewhy.nested import follow, spell, tensors
from seewhy.types import EMBEDDINGS, ModelError, Path, ShapeError

_SCORE_KEYS = ("logits", "out", "logits_per_image")  # transformers, torchvision segmentation, CLIP


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
