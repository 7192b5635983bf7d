"""Where a model's output holds an embedding: one vector for each image, made to be compared and not to be classes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.nested import follow, spell, tensors
from seewhy.targets.question import Question
from seewhy.tensor import full
from seewhy.types import EMBEDDINGS, Path, TargetError

Reader = Callable[[Any], Any]
"""From a model's output to one vector for each row."""


def check_reader(read: Any) -> None:
    """What a user may write for where the embedding is.

    Raises:
        TargetError: another thing.
    """
    steps = cast(Sequence[Any], read) if isinstance(read, tuple) else (read,)
    if read is None or callable(read) or all(isinstance(e, int | str) and not isinstance(e, bool) for e in steps):
        return
    raise TargetError(
        f"got {read!r} as read; give the key or index of the embedding in the model's output, a tuple of these, or a "
        "function from the output to one vector for each image"
    )


def reader_of(read: Any, question: Question) -> tuple[Path | Reader | None, str]:
    """How the embedding is read, and what it is called; None: the output itself.

    Raises:
        TargetError: several may be it, or none.
    """
    output, images = question.output, question.images
    if callable(read):
        return read, f"what {getattr(read, '__name__', 'read')} reads"
    if read is not None:
        path = read if isinstance(read, tuple) else (read,)
        return path, f"output{spell(path)}"
    if isinstance(output, Tensor):
        return None, "the model's output"
    found = dict(_matrices(output, images))
    named = [path for name in EMBEDDINGS for path in sorted(found, key=len) if path[-1] == name]
    if question.path in named:  # the user may have said so by output=
        named = [question.path]
    chosen = named or ([*found] if len(found) == 1 else [])
    if not chosen:
        what = ", ".join(f"output{spell(path)} {tuple(each.shape)}" for path, each in found.items()) or "none"
        raise TargetError(
            f"the model's output has no vector that is known to be the embedding ({what} has one for each image); say "
            "which by read=, a key or a function: read=lambda output: ..."
        )
    return chosen[0], f"output{spell(chosen[0])}"


def vectors_in(read: Path | Reader | None, output: Any, rows: int, name: str) -> Float[Tensor, "m d"]:
    """The embedding of every row.

    Raises:
        TargetError: there is none, or it is no vector for each.
    """
    try:
        found: Any = read(output) if callable(read) else follow(output, read or ())
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        if callable(read):
            raise
        raise TargetError(
            f"there is no {name} in what the model puts out; read= takes keys and indices that lead to the embedding"
        ) from error
    if not isinstance(found, Tensor) or not _is_matrix(found, rows):
        got = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise TargetError(
            f"{name} is {got}; an embedding is one vector for each image, here ({rows}, d): give a function that makes "
            "it, such as read=lambda output: output.mean((2, 3))"
        )
    return full(found.flatten(1))


def embedding_in(question: Question) -> str | None:
    """Why the model's output seems to be an embedding, as a clause; None where nothing speaks for it."""
    if question.output is None:
        return None
    if question.path is None:
        found = [
            path for path, _ in _matrices(question.output, question.images) if path[-1:] and path[-1] in EMBEDDINGS
        ]
        return f"output{spell(found[0])} is an embedding" if found else None
    if question.path[-1:] and question.path[-1] in EMBEDDINGS:
        return f"output{spell(question.path)} is an embedding"
    scores = follow(question.output, question.path)
    if question.labels is not None or question.squashed or question.classes < 2 or len(question.shape) != 2:
        return None
    off = (full(scores.detach()).norm(dim=1) - 1).abs().amax()
    return "its vectors have length 1, as embeddings have" if off < 16 * torch.finfo(scores.dtype).eps else None


def _matrices(output: Any, images: int) -> Iterator[tuple[Path, Tensor]]:
    """Every floating matrix of a nested output with a row for each image, with the path that leads to it."""
    return ((path, tensor) for path, tensor in tensors(output) if _is_matrix(tensor, images))


def _is_matrix(tensor: Tensor, rows: int) -> bool:
    """Floating, `(rows d)`; pooled maps may have kept their places, one each."""
    return tensor.is_floating_point() and tensor.ndim > 1 and len(tensor) == rows and tensor.shape[2:].numel() == 1
