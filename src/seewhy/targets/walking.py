"""Through sums and lists of questions: what their parts say together, and the same sum or list of other parts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.targets.abilities import CHOSEN, Doubted, Extended, Move, Moves, Noted, Prefers, Sees, Whole, can
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


def whole(target: Target, output: Any, rows: Rows) -> Float[Tensor, " n"]:
    """For each part of a sum, a number for each row that depends on everything that the output tells of its place.

    Of a box, on its class and on every edge: layers on the way to one of them alone are the head's, not the box's.
    """
    return torch.cat([_whole(part, output, rows) for part in _parts(target)])


def _whole(part: Target, output: Any, rows: Rows) -> Scores:
    if isinstance(part, Each):
        own = torch.stack([_whole(cast(Target, leaf), output, rows) for leaf in part.targets])
        return own.gather(0, rows[None].to(own.device))[0]
    return part.whole(output, rows) if can(part, Whole) else scored(part, output, rows)


def extent(target: Target) -> tuple[float, ...]:
    """How many pixels along each axis the place takes up of each of these numbers, one after the other."""
    parts = _parts(target)
    known = [leaf.extent for leaf in leaves(target) if can(leaf, Extended)]
    if not known:
        return ()
    images = max(len(each) for each in (*known, *(part.targets for part in parts if isinstance(part, Each))))
    nowhere = (0.0,) * len(next(iter(known[0].values())))
    return tuple(length for part in parts for image in range(images) for length in _extent(part, image, nowhere))


def _extent(part: Target, image: int, nowhere: tuple[float, ...]) -> tuple[float, ...]:
    leaf = part.targets[image] if isinstance(part, Each) else part
    return leaf.extent[image] if can(leaf, Extended) else nowhere


def _parts(target: Target) -> list[Target]:
    """What a sum is made of; of a list of sums, lists of one part for each image."""
    if isinstance(target, Sum):
        return [part for _, term in target.terms for part in _parts(cast(Target, term))]
    if isinstance(target, Each):
        own = [_parts(cast(Target, each)) for each in target.targets]
        most = max(map(len, own))
        return [Each(tuple(parts[n % len(parts)] for parts in own)) for n in range(most)]
    return [target]


def sees(target: Target | Open) -> bool:
    """Whether what a question reads depends on what the images show, as a detector's list of boxes does."""
    return any(can(leaf, Sees) and leaf.sees for leaf in leaves(target))


def moved(target: Target, move: Move) -> Target:
    """The target for changed copies that have the images' pixels elsewhere, such as flipped ones."""
    return cast(Target, changed(target, lambda leaf: leaf.moved(move) if can(leaf, Moves) else leaf))


def notes(target: Target, question: Question, probabilities: Float[Tensor, "b k"]) -> list[str]:
    """What the parts of a settled question say of themselves, and of the model's answer."""
    said: list[str] = []
    for leaf in leaves(target):
        said += [leaf.note] if can(leaf, Noted) and leaf.note else []
        said += leaf.doubts(question, probabilities) if can(leaf, Doubted) else []
    return said


def is_chosen(target: Target) -> bool:
    """Whether the clean pass chose all that is asked about, and nobody named any of it."""
    return all(can(leaf, Noted) and leaf.note.startswith(CHOSEN) for leaf in leaves(target))


def preferred(questions: Iterable[Any]) -> str | None:
    """The method that the first of these questions prefers which prefers one at all."""
    lists = (cast(Sequence[Any], each) if isinstance(each, list | tuple) else [each] for each in questions)
    asked = (leaf for part in chain(*lists) for leaf in (leaves(part) if isinstance(part, Sum | Each) else [part]))
    return next((leaf.prefers for leaf in asked if can(leaf, Prefers)), None)
