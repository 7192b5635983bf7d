"""What is asked of a model's output.

A question is a target, or becomes one when the clean scores are known (`Open`): a class by its label or its rank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, Signature, signature
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from seewhy.marks import Sight
from seewhy.types import ModelError, Path, Rows, Scores, Target, TargetError

Squashing = Literal["softmax", "sigmoid", "log_softmax", "log_sigmoid"]


@dataclass(frozen=True)
class Question:
    """What a target is checked against and completed with: the clean output, and where its scores are.

    Args:
        path: where the scores are in the output; None where no tensor of it can be told to hold them.
        shape: of the scores.
        labels: names of the classes.
        images: how many there are.
        squashed: what made the scores probabilities, or their logarithms, where they are that already.
        unclear: whether they may be probabilities or logits: all are in 0..1, and nothing tells what made them.
        output: what the model put out on the clean pass.
        missing: where there are no scores, why, in one sentence.
        size: of the images, in pixels.
        about: the one image that is asked about, where each has a question of its own; None: all of them.
        stated: how many classes the model's configuration states, where it has one.
        sights: what the model sees of the photo behind each image; None, or none at all, where there is no photo.
        given: what the model was given beside the images, by position or keyword.
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
    sights: tuple[Sight | None, ...] = ()
    given: Mapping[str | int, Any] = field(default_factory=dict[str | int, Any], repr=False, compare=False)
    unclear: bool = False

    def sight(self, image: int) -> Sight | None:
        """What the model sees of the photo behind an image."""
        return self.sights[image] if self.sights else None

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
        what = "" if isinstance(score, Tensor) else "a tensor with "
        raise TargetError(f"the target returned {got}; return {what}one score per image, here ({len(rows)},)")
    return score


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


def is_question(given: Any) -> bool:
    """Whether it can be a question: a target, an open one or a function; not a class, such as `Rank` without ()."""
    return (callable(given) or isinstance(given, Open)) and not isinstance(given, type)


def _signature(function: Callable[..., Any]) -> Signature:
    """What a function takes; a module's `__call__` takes anything, its `forward` tells."""
    return signature(function.forward if isinstance(function, nn.Module) else function)


def _binds(function: Callable[..., Any], arguments: int) -> bool:
    try:
        _signature(function).bind(*[None] * arguments)
    except TypeError:
        return False
    return True
