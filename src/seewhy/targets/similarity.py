"""Questions about embeddings: how alike is what the model makes of an image and a reference, which is held fixed."""

from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.targets.arguments import for_each, plain, wholes, wrong_number
from seewhy.targets.arithmetic import ARITHMETIC
from seewhy.targets.embedding import Reader, check_reader, reader_of, vectors_in
from seewhy.targets.question import Question
from seewhy.types import Path, Rows, Scores, TargetError


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike are the embedding of an image, f, and a reference, r? Higher is more alike.

    cosine:    y = f . r / (|f| |r|)
    dot:       y = f . r
    distance:  y = -|f - r|

    The reference is settled on the clean pass and held fixed: changed copies of an image are compared with the clean
    other image, and no gradient flows into it. Nothing is lost by that: the map of a pair's other image is its own
    answer, `Similarity([1, 0])`.

    Identity: with r = f / |f|^2 the dot product is 1 and its gradient that of log |f|; the cosine's gradient is
    orthogonal to f.

    Args:
        to: the reference: a vector `(d)`, one for each image `(b d)`, the number of another image of the batch, or a
            list with one such number for each image.
        read: key, index or path of the embedding in the model's output, or a function from the output to `(m d)`.
            None: the output itself, what is called like an embedding, or its only matrix; said in the notes.
        kind: "cosine", "dot" or "distance".

    Raises:
        TargetError: an argument of another kind.
    """

    to: Any
    read: str | int | Path | Reader | None = None
    kind: str = "cosine"

    def __post_init__(self) -> None:
        if not isinstance(cast(object, self.kind), str) or self.kind not in _KINDS:
            raise TargetError(f"kind is {self.kind!r}; it is {', '.join(map(repr, _KINDS))}: choose one of them")
        check_reader(self.read)
        _reference_of(self.to)

    @property
    def fixed(self) -> bool:
        """Whether every image settles it in the same way: it may be asked of the tiles of one."""
        given = _reference_of(self.to)
        return isinstance(given, Tensor) and (given.ndim == 1 or len(given) == 1)

    def of(self, _scores: Float[Tensor, "b k"], question: Question, /) -> "Likeness":
        """The similarity to what the references are on the clean pass.

        Raises:
            TargetError: no embedding, a reference of another size, of another batch, or zero.
        """
        read, name = reader_of(self.read, question)
        own = vectors_in(read, question.output, question.images, name).detach()
        given = _reference_of(self.to)
        others = given if isinstance(given, tuple) else None
        fixed = _given(given, own, name) if isinstance(given, Tensor) else _other(own, given, question)
        _check_directions(fixed, own, self.kind, question)
        _check_others(fixed, own, self.kind, question)
        doubt = "" if question.labels is None or read is not None else "; its numbers are scores of classes"
        return Likeness(fixed, read, name, self.kind, others, f"similarity: the embedding is {name}{doubt}")

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


@dataclass(frozen=True, eq=False)
class Likeness:
    """A settled `Similarity`: its reference for each image, and how the embedding is read."""

    reference: Float[Tensor, "b d"]
    read: Path | Reader | None
    name: str
    kind: str
    others: tuple[int, ...] | None
    note: str = ""

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The similarity of each row to its image's reference."""
        return _KINDS[self.kind](vectors_in(self.read, output, len(rows), self.name), self.reference[rows])

    @property
    def reads(self) -> Path | None:
        """The place of the output that is read, where it is one."""
        return None if callable(self.read) else self.read or ()

    def told(self, _question: Question, image: int) -> str:
        """In words: `similarity to image 1`."""
        which = None if self.others is None else self.others[image if len(self.others) > 1 else 0]
        return f"{_WORDS[self.kind]} {'the reference' if which is None else f'image {which}'}"


def _reference_of(to: Any) -> Tensor | tuple[int, ...]:
    """A reference as it was given: vectors, or the numbers of other images."""
    listed = plain(to) if isinstance(to, Tensor | np.ndarray) and not _is_floating(to) else to
    numbers = wholes(listed if isinstance(listed, list | tuple) else [listed])
    if isinstance(listed, list | tuple) and not numbers:
        listed = _vectors(listed)
    if isinstance(listed, Tensor | np.ndarray):
        vectors = torch.as_tensor(listed).detach()
        if vectors.ndim not in (1, 2) or 0 in vectors.shape or not bool(vectors.isfinite().all()):
            raise TargetError(
                f"got a reference of shape {tuple(vectors.shape)}; give finite numbers, a vector (d) or one for each "
                "image (b d)"
            )
        return vectors
    if not numbers:
        raise TargetError(
            f"got {shortened(to)} as the reference; give a tensor (d) or (b d), or the number of another image of the "
            "batch; texts are the classes of a CLIP: explain(model, inputs, text, labels=texts)"
        )
    return tuple(numbers)


def _vectors(listed: Any) -> Any:
    """Lists of numbers as an array; anything else as it is."""
    try:
        vectors = torch.tensor(listed, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return listed
    return vectors if vectors.numel() else listed


def _given(vectors: Tensor, own: Float[Tensor, "b d"], name: str) -> Float[Tensor, "b d"]:
    b, d = own.shape
    if vectors.shape[-1] != d:
        raise TargetError(f"got a reference of {vectors.shape[-1]} numbers; {name} has {d}: give as many")
    if vectors.ndim == 2 and len(vectors) not in (1, b):
        raise TargetError(wrong_number(len(vectors), b, "references"))
    return vectors.to(own).expand(b, d)


def _other(own: Float[Tensor, "b d"], numbers: tuple[int, ...], question: Question) -> Float[Tensor, "b d"]:
    b = question.images
    each = for_each(numbers, b, "numbers of other images")
    for number in each:
        if not 0 <= number < b:
            raise TargetError(
                f"got image {number} as the reference, of a batch of {b}: 0 to {b - 1}; of another batch, give its "
                "embedding, a tensor"
            )
    alone = next((image for image in question.asked if each[image] == image), None)
    if alone is not None:
        raise TargetError(_ALONE.format(alone, "itself"))
    return own[list(each)]


def _check_directions(fixed: Tensor, own: Tensor, kind: str, question: Question) -> None:
    """A zero vector has no direction, and no product with it depends on the image."""
    for image in question.asked if kind != "distance" else ():
        if not bool(fixed[image].any()):
            raise TargetError(f"the reference of image {image} is zero, which is like nothing; use kind='distance'")
        if kind == "cosine" and not bool(own[image].any()):
            raise TargetError(
                f"the embedding of image {image} is zero, which has no direction; use kind='dot' or 'distance'"
            )


def _check_others(fixed: Tensor, own: Tensor, kind: str, question: Question) -> None:
    """No change makes an image more alike to what its embedding is already; what is left of a gradient is rounding."""
    for image in question.asked if kind != "dot" else ():
        f, r = (each[image].double() for each in (own, fixed))
        f, r = (f / f.norm(), r / r.norm()) if kind == "cosine" else (f, r)
        if (f - r).norm() <= _SAME * f.norm():
            what = "a reference that its embedding is equal to" + " but for its length" * (kind == "cosine")
            raise TargetError(_ALONE.format(image, what))


def _cosine(f: Float[Tensor, "m d"], r: Float[Tensor, "m d"]) -> Scores:
    return torch.nn.functional.cosine_similarity(f, r, dim=1)


def _dot(f: Float[Tensor, "m d"], r: Float[Tensor, "m d"]) -> Scores:
    return (f * r).sum(1)


def _nearness(f: Float[Tensor, "m d"], r: Float[Tensor, "m d"]) -> Scores:
    return -(f - r).norm(dim=1)


_KINDS = {"cosine": _cosine, "dot": _dot, "distance": _nearness}
_SAME = 1e-4
"""Embeddings that differ by less, as a part of their length, may be of one image in batches of two sizes, rounded."""
_ALONE = (
    "image {} is compared with {}, which no change can make more alike; give each image another one, such as "
    "Similarity([1, 0]), or the embedding of another"
)
_WORDS = {"cosine": "similarity to", "dot": "dot product with", "distance": "nearness to"}


def _is_floating(given: Any) -> bool:
    return given.is_floating_point() if isinstance(given, Tensor) else np.issubdtype(given.dtype, np.floating)
