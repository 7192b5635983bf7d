"""Through sums and lists of questions: what their parts say together, and the same sum or list of other parts."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from seewhy.targets.arithmetic import Each, Sum
from seewhy.targets.question import Open, scored
from seewhy.types import Rows, Scores, Target


def leaves(target: Target | Open) -> Iterator[Target | Open]:
    """The questions that sums and lists are made of."""
    if isinstance(target, Sum | Each):
        for part in target.targets if isinstance(target, Each) else (part for _, part in target.terms):
            yield from leaves(part)
    else:
        yield target


def whole(target: Target, output: Any, rows: Rows) -> Scores:
    """A number for each row that depends on everything that the output tells of what is asked about.

    Of a box, on its class and on every edge: layers on the way to one of them alone are the head's, not the box's.
    """
    if isinstance(target, Sum):
        return cast(Tensor, sum(whole(cast(Target, part), output, rows) for _, part in target.terms))
    if isinstance(target, Each):
        parts = torch.stack([whole(cast(Target, part), output, rows) for part in target.targets])
        return parts.gather(0, rows[None].to(parts.device))[0]
    own = getattr(target, "whole", None)
    return own(output, rows) if own else scored(target, output, rows)


def extent(target: Target) -> tuple[float, ...]:
    """How many pixels along each axis it takes up what a target is about: the largest of its parts, in any image."""
    sizes = [own for leaf in leaves(target) if (own := getattr(leaf, "extent", None))]
    return tuple(max(lengths) for lengths in zip(*sizes, strict=True))


def sees(target: Target | Open) -> bool:
    """Whether what a question reads depends on what the images show, as a detector's list of boxes does."""
    return any(getattr(leaf, "sees", False) for leaf in leaves(target))


Move = Callable[[Bool[Tensor, "b *s"]], Bool[Tensor, "b *_"]]
"""From pixels of the images to where changed copies of these have them."""


def moved(target: Target, move: Move) -> Target:
    """The target for changed copies that have the images' pixels elsewhere, such as flipped ones.

    A target that is about places has a method `moved` for it; to all others places do not matter.
    """
    if isinstance(target, Sum):
        return Sum(tuple((weight, moved(cast(Target, part), move)) for weight, part in target.terms))
    if isinstance(target, Each):
        return Each(tuple(moved(cast(Target, part), move) for part in target.targets))
    own = getattr(target, "moved", None)
    return target if own is None else own(move)
