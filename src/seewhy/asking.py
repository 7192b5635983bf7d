"""What a model's output can be asked: where its scores are, what they are and what they are called."""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.model.outputs import read_scores, score_path
from seewhy.model.trace import End
from seewhy.nested import follow, spell
from seewhy.subject import Subject
from seewhy.targets.question import Question, Squashing
from seewhy.types import ModelError, Path, ShapeError, TargetError


def scores_of(question: Question, subject: Subject) -> Float[Tensor, "b k"]:
    """The output's scores as a matrix, without their graph; without columns where none are known."""
    if question.path is None:
        return subject.inputs.new_zeros(question.images, 0)
    return follow(question.output, question.path).detach().float().reshape(question.images, -1)


def question_of(subject: Subject, shown: Any, output: Path | None, end: End) -> tuple[Question, list[str]]:
    """Where the scores are and what they are, checked to be numbers; with notes on where they were found.

    Args:
        subject: what was run.
        shown: the model's whole output.
        output: where the user says that the scores are; None to look for them.
        end: what the graph tells of the scores: a sigmoid or softmax put them out, or their logarithm; or weights did.

    Raises:
        ModelError: scores are wanted at a place that the output does not have.
        ShapeError: scores that are no numbers, or none for each image.
        TargetError: labels that do not fit the scores.
    """
    images, size = len(subject.inputs), tuple(subject.inputs.shape[2:])
    stated = _stated(subject.module)
    try:
        path, note = (output, f"scores read from output{spell(output)}") if output else score_path(shown, images)
    except ModelError as error:  # only questions about classes need them
        unread = Question(
            None, (), subject.labels_of(()), images, output=shown, missing=str(error), size=size, stated=stated
        )
        return replace(unread, sights=subject.sights, given=subject.batch.further), []
    scores = read_scores(shown, path)
    if scores.ndim == 0 or len(scores) != images:
        raise ShapeError(
            f"the model returned scores of shape {tuple(scores.shape)} for {images} images; the first "
            "axis must be the images: give a model, or an output=, with one row of scores for each"
        )
    made = _squashing(scores, end == "squashed")
    names = subject.labels_of(scores.shape)
    question = Question(path, tuple(scores.shape), names, images, made, shown, size=size, stated=stated)
    outside = bool(((scores < 0) | (scores > 1)).any())
    question = replace(question, unclear=not (made or end == "weighted" or outside))
    _check_labels(question)
    notes = [*([note] if note else []), *_of_two(question)]
    return replace(question, sights=subject.sights, given=subject.batch.further), notes


def _of_two(question: Question) -> list[str]:
    """That the index of a single score is not that of the first of its two labels."""
    if not question.of_two or question.labels is None:
        return []
    first, second = question.labels
    return [
        f"two labels for one score, whose index is 0: it speaks for {second!r}; -Logit(0) is what speaks for {first!r}"
    ]


def _stated(model: nn.Module) -> int | None:
    """How many classes a model of transformers is configured for, whether they have names or not."""
    number = getattr(getattr(model, "config", None), "num_labels", None)
    return number if isinstance(number, int) else None


def _squashing(scores: Tensor, squashed: bool) -> Squashing | None:
    """What made the scores p or log p: a softmax where p sums to 1, else a sigmoid where the graph tells of one."""
    positive, negative = bool((scores >= 0).all()), bool((scores <= 0).all())
    if scores.ndim > 1 and scores.shape[1] > 1:
        precision = torch.finfo(scores.dtype).eps
        # a known softmax sums as precisely as it can; log p is rounded by its own size, whose mean is at most log k
        if positive and _sums_to_1(scores.float(), 8 * precision * squashed):
            return "softmax"
        if negative and _sums_to_1(scores.float().exp(), precision * math.log(scores.shape[1])):
            return "log_softmax"
    if not squashed:
        return None
    return "sigmoid" if positive else "log_sigmoid"


def _sums_to_1(p: Float[Tensor, "b k *grid"], tolerance: float) -> bool:
    return bool((p.sum(1) - 1).abs().max() < max(1e-3, tolerance))


def _check_labels(question: Question) -> None:
    fits = question.labels is None or len(question.labels) == question.classes or question.of_two
    if question.labels is not None and not fits and len(question.shape) < 3:
        of = f"{question.classes} classes; give one for each"
        if question.classes == 1:
            of = "a single score; give its name, or two names, of which it speaks for the second"
        raise TargetError(f"got {len(question.labels)} labels for a model of {of}")
