"""Through sums and lists of questions: what their parts say together, and the same sum or list of other parts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.targets.abilities import CHOSEN, Doubted, Extended, Move, Moves, Noted, Prefers, Sees, Whole
from seewhy.targets.arithmetic import Each, Sum
from seewhy.targets.question import Open, Question, scored
from seewhy.types import Rows, Scores, Target


def leaves(target: Target | Open) -> Iterator[Target | Open]:
    """The questions that sums and lists are made of."""
    if isinstance(target, Sum | Each):
        for part in target.targets if isinstance(target, Each) else (part for _, part in target.terms):
            yield from leaves(part)
    else:
        yield target


def changed(target: Target | Open, change: Callable[[Target | Open], Target | Open]) -> Target | Open:
    """The same sums and lists of changed questions."""
    if isinstance(target, Sum):
        return Sum(tuple((weight, changed(part, change)) for weight, part in target.terms))
    if isinstance(target, Each):
        return Each(tuple(changed(part, change) for part in target.targets))
    return change(target)


def whole(target: Target, output: Any, rows: Rows) -> Scores:
    """A number for each row that depends on everything that the output tells of what is asked about.

    Of a box, on its class and on every edge: layers on the way to one of them alone are the head's, not the box's.
    """
    if isinstance(target, Sum):  # without weights, by which the parts of a width would cancel
        return cast(Tensor, sum(whole(cast(Target, part), output, rows) for _, part in target.terms))
    if isinstance(target, Each):
        parts = torch.stack([whole(cast(Target, part), output, rows) for part in target.targets])
        return parts.gather(0, rows[None].to(parts.device))[0]
    return target.whole(output, rows) if isinstance(target, Whole) else scored(target, output, rows)


def extent(target: Target) -> tuple[float, ...]:
    """How many pixels along each axis it takes up what a target is about: the largest of its parts, in any image."""
    sizes = [leaf.extent for leaf in leaves(target) if isinstance(leaf, Extended)]
    return tuple(max(lengths) for lengths in zip(*sizes, strict=True))


def sees(target: Target | Open) -> bool:
    """Whether what a question reads depends on what the images show, as a detector's list of boxes does."""
    return any(isinstance(leaf, Sees) and leaf.sees for leaf in leaves(target))


def moved(target: Target, move: Move) -> Target:
    """The target for changed copies that have the images' pixels elsewhere, such as flipped ones."""
    return cast(Target, changed(target, lambda leaf: leaf.moved(move) if isinstance(leaf, Moves) else leaf))


def notes(target: Target, question: Question, probabilities: Float[Tensor, "b k"]) -> list[str]:
    """What the parts of a settled question say of themselves, and of the model's answer."""
    said: list[str] = []
    for leaf in leaves(target):
        said += [leaf.note] if isinstance(leaf, Noted) and leaf.note else []
        said += leaf.doubts(question, probabilities) if isinstance(leaf, Doubted) else []
    return said


def is_chosen(target: Target) -> bool:
    """Whether the clean pass chose all that is asked about, and nobody named any of it."""
    return all(isinstance(leaf, Noted) and leaf.note.startswith(CHOSEN) for leaf in leaves(target))


def preferred(questions: Iterable[Any]) -> str | None:
    """The method that the first of these questions prefers which prefers one at all."""
    lists = (cast(Sequence[Any], each) if isinstance(each, list | tuple) else [each] for each in questions)
    asked = (leaf for part in chain(*lists) for leaf in (leaves(part) if isinstance(part, Sum | Each) else [part]))
    return next((leaf.prefers for leaf in asked if isinstance(leaf, Prefers)), None)
