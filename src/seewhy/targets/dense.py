"""Outputs with scores at every place, `(b k *grid)`: what they predict where, and pixels of one size at another."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seewhy.marks import on_grid
from seewhy.nested import follow
from seewhy.targets.detections import scores_at
from seewhy.targets.question import Question
from seewhy.types import TargetError
from seewhy.wording import by

_BACKGROUND = ("background", "bg")


def is_dense(question: Question) -> bool:
    """Whether the scores have classes and, behind them, as many spatial axes as the images."""
    return _has_places(question) and not _classes_last(question)


def _has_places(question: Question) -> bool:
    return len(question.size) > 0 and len(question.shape) == len(question.size) + 2


def _classes_last(question: Question) -> bool:
    """Whether places come ahead of the classes, `(b h w k)`: only these have the images' proportions."""
    ahead, behind = question.shape[1:-1], question.shape[2:]
    told = len(question.size) > 1 and _has_places(question)
    return told and _in_proportion(ahead, question.size) and not _in_proportion(behind, question.size)


def _in_proportion(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Whether one scale explains all sides, each to within one cell."""
    pairs = list(zip(grid, size, strict=True))
    return max((cells - 1) / pixels for cells, pixels in pairs) <= min((cells + 1) / pixels for cells, pixels in pairs)


def _permuted(question: Question) -> str:
    """What is told of scores with classes last."""
    order = ", ".join(map(str, (0, len(question.size) + 1, *range(1, len(question.size) + 1))))
    return (
        f"the scores have the shape {question.shape}, with their classes last; pass a module that puts them first: "
        f"output.permute({order})"
    )


def dense_scores(question: Question) -> Float[Tensor, "b k *grid"]:
    """The clean pass's scores at every place, without their graph; a map without an axis of classes is one class.

    Raises:
        ModelError: there are no scores.
        TargetError: they have no places.
    """
    scores = follow(question.output, scores_at(question)).detach()
    if is_dense(question):
        return scores
    if is_bare(question):
        return scores[:, None]
    if _classes_last(question):
        raise TargetError(_permuted(question))
    raise TargetError(
        f"a region was asked for, but the scores have the shape {question.shape}, not (images, classes, pixels) for "
        f"images of {by(question.size)} pixels; ask for a class by its index or label, or say by output= which output "
        "has a score at every pixel"
    )


def instead_of_a_class(question: Question) -> str:
    """What may be asked of scores that are not (images, classes), as a clause."""
    if _classes_last(question):
        return _permuted(question)
    if is_dense(question):
        return "ask Region(class) for where it is predicted, Region(a) - Region(b) for one class rather than another"
    if len(question.shape) == 3:
        return "ask Sentence(ids, tokenizer) if these are logits of words, Box(decode=...) if they are of boxes"
    return "ask Region(class) where there is a score at every pixel"


def is_bare(question: Question) -> bool:
    """Whether the scores are one map for each image, such as depths; told from tokens by the images' proportions."""
    grid, size = question.shape[1:], question.size
    return 1 < len(grid) == len(size) and all(
        cells * size[0] == pixels * grid[0] for cells, pixels in zip(grid, size, strict=True)
    )


def claims(scores: Float[Tensor, "b k *grid"], threshold: float | None) -> Bool[Tensor, "b k *grid"]:
    """Where each class is predicted: where it is above the threshold; without one, where no class has more."""
    if threshold is not None:
        return scores > threshold
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.argmax(1, keepdim=True), True)


def counted(pixels: Bool[Tensor, "b *axes"], axes: int) -> Int[Tensor, "b *_"]:
    """How many pixels are marked, over the last `axes` axes."""
    return pixels.flatten(-axes).sum(-1)


def background(question: Question) -> list[int]:
    """The classes whose label says that they are the background."""
    named = enumerate(question.labels or ())
    return [index for index, label in named if label.split(",")[0].strip(" _").casefold() in _BACKGROUND]


def nearest(pixels: Bool[Tensor, "b *s"], size: Sequence[int]) -> Bool[Tensor, "b *_"]:
    """The pixels at another size: pixel j of g takes the one of s under its middle, floor((j + 1/2) s / g).

    So small a part that it lies under no middle becomes the one pixel over the middlemost of its own.
    """
    before = tuple(pixels.shape[1:])
    if before == tuple(size):
        return pixels
    return torch.stack([on_grid(each, None, before, size) for each in pixels])
