"""The arithmetic of questions: every kind of them adds, scales and lists alike.

Sums and lists keep their parts as they are, and settle them when they are settled themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import isfinite
from numbers import Real
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.targets.abilities import Reads, Sloped
from seewhy.targets.question import Open, Question, as_target, is_question, resolve, scored
from seewhy.types import Path, Rows, Scores, Target, TargetError


def _plus(self: Target | Open, other: Any) -> "Sum":
    """`self + other`."""
    return Sum((*_terms(self), *_terms(_added(other))))


def _plus_to(self: Target | Open, other: Any) -> "Sum":
    """`other + self`; 0 is what `sum` begins with."""
    begins = isinstance(other, int) and not isinstance(other, bool) and other == 0
    return Sum(_terms(self)) if begins else _plus(self, other)


def _minus(self: Target | Open, other: Any) -> "Sum":
    """`self - other`."""
    return Sum((*_terms(self), *_terms(_times(_added(other), -1.0))))


def _minus_from(self: Target | Open, other: Any) -> "Sum":
    """`other - self`."""
    return _plus(_negative(self), other)


def _negative(self: Target | Open) -> "Sum":
    """`-self`."""
    return _times(self, -1.0)


def _times(self: Target | Open, factor: Any) -> "Sum":
    """`self * factor` and `factor * self`."""
    if isinstance(factor, bool) or not isinstance(factor, Real) or not isfinite(factor):
        raise TargetError(f"cannot multiply a target by {factor!r}; multiply it by a finite number")
    return Sum(tuple((float(factor) * weight, part) for weight, part in _terms(self)))


def _over(self: Target | Open, divisor: Any) -> "Sum":
    """`self / divisor`."""
    if isinstance(divisor, bool) or not isinstance(divisor, Real) or not divisor or not isfinite(divisor):
        raise TargetError(f"cannot divide a target by {divisor!r}; divide it by a finite number that is not 0")
    return _times(self, 1 / float(divisor))


ARITHMETIC = (_plus, _plus_to, _minus, _minus_from, _negative, _times, _times, _over)
"""What every question can, as one line of its class:

`__add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC`
"""


@dataclass(frozen=True)
class Sum:
    """A weighted sum of questions, as `a - b`, `-a` and `0.5 * a` make it."""

    terms: tuple[tuple[float, Target | Open], ...]

    def of(self, scores: Float[Tensor, "b k"], question: Question, /) -> "Sum":
        """The sum of the parts' targets."""
        parts = [(weight, resolve(part, question, scores)) for weight, part in self.terms]
        return Sum(tuple((weight * inner, term) for weight, part in parts for inner, term in _terms(part)))

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The weighted sum of the parts' scores."""
        return cast(Tensor, sum(weight * scored(part, output, rows) for weight, part in self.terms))

    def gradient(self, output: Any, rows: Rows) -> tuple[Path, Tensor] | None:
        """Where the gradient with respect to the output is, and it, where every part tells it without autograd."""
        tellers = [part for _, part in self.terms if isinstance(part, Sloped)]
        known = [told for each in tellers if (told := each.gradient(output, rows))]
        if len(known) < len(self.terms) or len({path for path, _ in known}) != 1:
            return None
        parts = zip(self.terms, known, strict=True)
        return known[0][0], cast(Tensor, sum(weight * gradient for (weight, _), (_, gradient) in parts))

    @property
    def reads(self) -> Path | None:
        """The one place of the output that all parts read; None where they read others, or do not tell."""
        return _read_by_all(part for _, part in self.terms)

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


@dataclass(frozen=True)
class Each:
    """A question of its own for every image: the i-th for the rows that were made from image i."""

    targets: tuple[Target | Open, ...]

    def of(self, scores: Float[Tensor, "b k"], question: Question, /) -> "Each":
        """The targets of the questions, each settled for all images, but only the rows of its own are read."""
        own = (replace(question, about=image) for image in range(question.images))
        return Each(tuple(resolve(each, about, scores) for each, about in zip(self.targets, own, strict=True)))

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """For every row the score of its image's target."""
        scores = torch.stack([scored(target, output, rows) for target in self.targets])
        return scores.gather(0, rows[None].to(scores.device))[0]

    @property
    def reads(self) -> Path | None:
        """As `Sum.reads`."""
        return _read_by_all(self.targets)

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


def _added(other: Any) -> Target | Open:
    if not is_question(other):
        raise TargetError(f"cannot add {other!r} to a target; add another target, such as Logit({other!r})")
    return other if isinstance(other, Open) else as_target(other)


def _terms(part: Target | Open) -> tuple[tuple[float, Target | Open], ...]:
    return part.terms if isinstance(part, Sum) else ((1.0, part),)


def _read_by_all(parts: Iterable[Target | Open]) -> Path | None:
    paths: set[Path | None] = {part.reads if isinstance(part, Reads) else None for part in parts}
    return paths.pop() if len(paths) == 1 else None
