"""What is asked of a model's output, and the arithmetic of questions: every kind of them adds, scales and lists alike.

A question is a target, or becomes one when the clean scores are known (`Open`): a class by its label or its rank. Sums
and lists of questions keep them as they are, and settle their parts when they are settled themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from inspect import Parameter, Signature, signature
from numbers import Real
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seewhy.types import ModelError, Path, Rows, Scores, Target, TargetError

Squashing = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Question:
    """What a target is checked against and completed with: the clean output, and where its scores are.

    Args:
        path: where the scores are in the output; None where no tensor of it can be told to hold them.
        shape: of the scores.
        labels: names of the classes.
        images: how many there are.
        squashed: what made the scores probabilities, where they are that already.
        output: what the model put out on the clean pass.
        missing: where there are no scores, why, in one sentence.
        size: of the images, in pixels.
        about: the one image that is asked about, where each has a question of its own; None: all of them.
        stated: how many classes the model's configuration states, where it has one.
    """

    path: Path | None
    shape: tuple[int, ...]
    labels: tuple[str, ...] | None
    images: int
    squashed: Squashing | None = None
    output: Any = field(default=None, repr=False, compare=False)
    missing: str = ""
    size: tuple[int, ...] = ()
    about: int | None = None
    stated: int | None = None

    @property
    def asked(self) -> Sequence[int]:
        """The images that are asked about: only these must fit the question."""
        return range(self.images) if self.about is None else (self.about,)

    @property
    def place(self) -> Path:
        """Where the scores are.

        Raises:
            ModelError: there are none.
        """
        if self.path is None:
            raise ModelError(self.missing)
        return self.path

    @property
    def classes(self) -> int:
        """How many classes the scores have; a vector of scores is one class."""
        return self.shape[1] if len(self.shape) > 1 else 1

    def label(self, index: int) -> str:
        """How a class is called in titles: its first label, or its number."""
        index = 1 if self.of_two else index
        known = self.labels is not None and index < len(self.labels)
        return self.labels[index].split(",")[0] if known and self.labels else f"class {index}"

    @property
    def of_two(self) -> bool:
        """Whether a single score tells two labelled classes apart: it speaks for the second."""
        return self.classes == 1 and self.labels is not None and len(self.labels) == 2


@runtime_checkable
class Open(Protocol):
    """A question that becomes a target when the clean scores are known; changed copies of an image never change it."""

    def of(self, scores: Float[Tensor, "b k"], question: Question, /) -> Target:
        """The target for images with these scores.

        Raises:
            TargetError: it does not fit the output.
        """
        ...


def resolve(asked: Target | Open, question: Question, scores: Float[Tensor, "b k"]) -> Target:
    """The target that is asked for: labels become indices, ranks classes, the scores' place is filled in.

    Raises:
        TargetError: a class out of range, an unknown or ambiguous label, or an output that has no classes.
    """
    return asked.of(scores, question) if isinstance(asked, Open) else asked


def scored(target: Target | Open, output: Any, rows: Rows) -> Scores:
    """What a target answers, checked to be one number for each row.

    Raises:
        TargetError: it is another thing, or the target is not settled yet.
    """
    if not callable(target):
        raise TargetError(
            f"{target!r} depends on the clean scores, which a function of the output does not know; pass it to explain "
            "as the target itself, or as a part of a sum or list of targets"
        )
    score: Any = target(output, rows)
    if not isinstance(score, Tensor) or score.shape != rows.shape:
        got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise TargetError(f"the target returned {got}; return one score per image, here ({len(rows)},)")
    return score


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


def as_target(function: Callable[..., Any]) -> Target:
    """A function as a target: one of the output alone is one too, the rows are then not passed on.

    Raises:
        TargetError: it takes other arguments, or does not tell which.
    """
    name = str(getattr(function, "__name__", type(function).__name__))
    try:
        takes = _signature(function)
    except ValueError as error:
        raise TargetError(
            f"{name} does not tell which arguments it takes; wrap it in a function of the output: "
            f"lambda output: {name}(...)"
        ) from error
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in takes.parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(positional) != 1 and _binds(function, 2):
        return function
    if not _binds(function, 1):
        raise TargetError(f"{name} takes {takes}; a target is a function of (output, rows), or of the output alone")

    def of_output(output: Any, _rows: Rows) -> Any:  # a user's function may return anything
        return function(output)

    of_output.__name__ = name
    return of_output


def plus(self: Target | Open, other: Any) -> "Sum":
    """`self + other`."""
    return Sum((*_terms(self), *_terms(_added(other))))


def minus(self: Target | Open, other: Any) -> "Sum":
    """`self - other`."""
    return Sum((*_terms(self), *_terms(times(_added(other), -1.0))))


def minus_from(self: Target | Open, other: Any) -> "Sum":
    """`other - self`."""
    return plus(negative(self), other)


def negative(self: Target | Open) -> "Sum":
    """`-self`."""
    return times(self, -1.0)


def times(self: Target | Open, factor: Any) -> "Sum":
    """`self * factor` and `factor * self`."""
    if isinstance(factor, bool) or not isinstance(factor, Real):
        raise TargetError(f"cannot multiply a target by {factor!r}; multiply it by a number")
    return Sum(tuple((float(factor) * weight, part) for weight, part in _terms(self)))


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
        tellers = [getattr(part, "gradient", None) for _, part in self.terms]
        known: list[tuple[Path, Tensor]] = [told for tell in tellers if tell and (told := tell(output, rows))]
        if len(known) < len(tellers) or len({path for path, _ in known}) != 1:
            return None
        parts = zip(self.terms, known, strict=True)
        return known[0][0], cast(Tensor, sum(weight * gradient for (weight, _), (_, gradient) in parts))

    @property
    def reads(self) -> Path | None:
        """The one place of the output that all parts read; None where they read others, or do not tell."""
        return _read_by_all(part for _, part in self.terms)

    __add__, __radd__, __sub__, __rsub__ = plus, plus, minus, minus_from
    __neg__, __mul__, __rmul__ = negative, times, times


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

    __add__, __radd__, __sub__, __rsub__ = plus, plus, minus, minus_from
    __neg__, __mul__, __rmul__ = negative, times, times


def is_question(given: Any) -> bool:
    """Whether it can be a question: a target, an open one or a function; not a class, such as `Rank` without ()."""
    return (callable(given) or isinstance(given, Open)) and not isinstance(given, type)


def leaves(target: Target | Open) -> Iterator[Target | Open]:
    """The questions that sums and lists are made of."""
    if isinstance(target, Sum | Each):
        for part in target.targets if isinstance(target, Each) else (part for _, part in target.terms):
            yield from leaves(part)
    else:
        yield target


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


def _added(other: Any) -> Target | Open:
    if not is_question(other):
        raise TargetError(f"cannot add {other!r} to a target; add another target, such as Logit({other!r})")
    return other if isinstance(other, Open) else as_target(other)


def _terms(part: Target | Open) -> tuple[tuple[float, Target | Open], ...]:
    return part.terms if isinstance(part, Sum) else ((1.0, part),)


def _signature(function: Callable[..., Any]) -> Signature:
    """What a function takes; a module's `__call__` takes anything, its `forward` tells."""
    return signature(function.forward if isinstance(function, nn.Module) else function)


def _binds(function: Callable[..., Any], arguments: int) -> bool:
    try:
        _signature(function).bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def _read_by_all(parts: Iterable[Target | Open]) -> Path | None:
    paths: set[Path | None] = {getattr(part, "reads", None) for part in parts}
    return paths.pop() if len(paths) == 1 else None
