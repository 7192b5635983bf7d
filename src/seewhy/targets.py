"""Questions about a model's output: which number, for each image, shall be explained.

A target is any function of (the model's output, rows) that returns one score per row; `rows[j]` says which image row j
was made from. The targets here compose: `Logit("cat") - Logit("dog")`, `-Logit(3)`, `0.5 * Probability(7)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.labels import find_label
from seewhy.types import Path, Rows, Scores, Target, TargetError, follow

Class = int | str
"""A class by index, or by one of its labels."""


@dataclass(frozen=True)
class Question:
    """What a target is checked against and completed with: the score tensor, its labels, the number of images.

    `squashed`: the scores are probabilities as they are.
    """

    path: Path
    shape: tuple[int, ...]
    labels: tuple[str, ...] | None
    images: int
    squashed: bool = False

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


def _plus(self: Target, other: Any) -> "Sum":
    if not callable(other):
        raise TargetError(f"cannot add {other!r} to a target; add another target, such as Logit({other!r})")
    return Sum((*_terms(self), *_terms(_of_output_alone(other))))


def _minus(self: Target, other: Any) -> "Sum":
    return _plus(self, _negative(_of_output_alone(other)) if callable(other) else other)


def _minus_from(self: Target, other: Any) -> "Sum":
    return _plus(_negative(self), other)


def _negative(self: Target) -> "Sum":
    return _times(self, -1.0)


def _times(self: Target, factor: Any) -> "Sum":
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        raise TargetError(f"cannot multiply a target by {factor!r}; multiply it by a number")
    return Sum(tuple((factor * weight, target) for weight, target in _terms(self)))


def _terms(target: Target) -> tuple[tuple[float, Target], ...]:
    return target.terms if isinstance(target, Sum) else ((1.0, target),)


@dataclass(frozen=True)
class ClassScore:
    """The score of a class: its logit, probability or log-probability. Made by the functions of these names.

    Where the model's scores are probabilities already, the probability is read as it is, and `log` is its logarithm.
    """

    kind: Literal["logit", "probability", "log_probability", "log"]
    classes: Class | tuple[Class, ...]
    path: Path = ()

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The score of each row's class."""
        scores = follow(output, self.path)
        return _READ[self.kind](scores if scores.ndim > 1 else scores[:, None], self._columns(rows))

    def gradient(self, output: Any, rows: Rows) -> tuple[Path, Tensor] | None:
        """Where the gradient with respect to the output is, and it, if that takes no autograd: 1 at a logit's class."""
        if self.kind != "logit":
            return None
        zeros = torch.zeros_like(follow(output, self.path))
        return self.path, zeros.reshape(len(zeros), -1).scatter(1, self._columns(rows)[:, None], 1).reshape(zeros.shape)

    def _columns(self, rows: Rows) -> Int[Tensor, " m"]:
        which = self.classes if isinstance(self.classes, tuple) else (self.classes,)
        columns = torch.tensor(which, device=rows.device)
        return columns[rows] if len(which) > 1 else columns.expand(len(rows))

    __add__, __radd__, __sub__, __rsub__ = _plus, _plus, _minus, _minus_from
    __neg__, __mul__, __rmul__ = _negative, _times, _times


@dataclass(frozen=True)
class Sum:
    """A weighted sum of targets, as `a - b`, `-a` and `0.5 * a` make it."""

    terms: tuple[tuple[float, Target], ...]

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The weighted sum of the terms' scores."""
        return cast(Tensor, sum(weight * target(output, rows) for weight, target in self.terms))

    def gradient(self, output: Any, rows: Rows) -> tuple[Path, Tensor] | None:
        """As `ClassScore.gradient`, where every term is a logit of the same scores."""
        known = [t.gradient(output, rows) if isinstance(t, ClassScore) else None for _, t in self.terms]
        if not all(known) or len({gradient[0] for gradient in known if gradient}) != 1:
            return None
        parts = zip(self.terms, known, strict=True)
        total = sum(weight * gradient[1] for (weight, _), gradient in parts if gradient)
        return next(gradient[0] for gradient in known if gradient), cast(Tensor, total)

    __add__, __radd__, __sub__, __rsub__ = _plus, _plus, _minus, _minus_from
    __neg__, __mul__, __rmul__ = _negative, _times, _times


@dataclass(frozen=True)
class Each:
    """A target of its own for every image: the i-th for the rows that were made from image i."""

    targets: tuple[Target, ...]

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """For every row the score of its image's target."""
        scores = torch.stack([target(output, rows) for target in self.targets])
        return scores.gather(0, rows[None].to(scores.device))[0]

    __add__, __radd__, __sub__, __rsub__ = _plus, _plus, _minus, _minus_from
    __neg__, __mul__, __rmul__ = _negative, _times, _times


def Logit(classes: Class | Sequence[Class]) -> ClassScore:
    """The score before the softmax, y_c: the target of the Grad-CAM paper.

    Args:
        classes: an index or a label, one for all images or a sequence with one for each.
    """
    return ClassScore("logit", _frozen(classes))


def Probability(classes: Class | Sequence[Class]) -> ClassScore:
    """p_c = softmax(y)_c; of a single logit, its sigmoid.

    Its gradient is p_c (dy_c - sum_k p_k dy_k): it vanishes where the model is sure. Prefer the log-probability there.
    """
    return ClassScore("probability", _frozen(classes))


def LogProbability(classes: Class | Sequence[Class]) -> ClassScore:
    """log p_c = log softmax(y)_c: the class against all others; does not vanish where the model is sure of another."""
    return ClassScore("log_probability", _frozen(classes))


def ReST(classes: Class | Sequence[Class]) -> Sum:
    """y_c + log p_c: the residual of the softmax is added to the logit, so that the other classes are heard too.

    Reference:
        Cai, ShapleyCAM and the residual softmax target class, 2025, arXiv:2501.06261.
    """
    return Logit(classes) + LogProbability(classes)


def parse(target: Any, images: int) -> Target:
    """What a user may write for a target, as a target: an index, a label, one of these per image, a function.

    Raises:
        TargetError: a sequence of the wrong length, or nothing that can be a target.
    """
    if isinstance(target, bool):
        raise TargetError(
            f"got {target!r} as a target; give a class index, a label, a target or a function of the output"
        )
    if hasattr(target, "tolist") and not callable(target):  # a tensor, an array, a number of numpy's
        target = target.tolist()
    if isinstance(target, int | str):
        return Logit(target)
    if isinstance(target, list | tuple):
        return _one_each(cast(Sequence[Any], target), images)
    if callable(target):
        return _of_output_alone(target)
    raise TargetError(f"got {type(target).__name__} as a target; give a class index, a label, a target or a function")


def resolve(target: Target, question: Question) -> Target:
    """The target completed for this output: labels become indices, the scores' place is filled in; all is checked.

    Raises:
        TargetError: a class out of range, an unknown or ambiguous label, or an output that has no classes.
    """
    if isinstance(target, Sum):
        return Sum(tuple((weight, resolve(term, question)) for weight, term in target.terms))
    if isinstance(target, Each):
        return Each(tuple(resolve(each, question) for each in target.targets))
    if not isinstance(target, ClassScore):
        return target
    if len(question.shape) > 2:
        raise TargetError(
            f"a class was asked for, but the scores have the shape {question.shape}, not (images, classes); pass a "
            "function of (output, rows) that returns one score per image, or say which output holds class scores"
        )
    listed = target.classes if isinstance(target.classes, tuple) else (target.classes,)
    if len(listed) not in (1, question.images):
        raise TargetError(_wrong_number(len(listed), question.images))
    kind = _SQUASHED.get(target.kind, target.kind) if question.squashed else target.kind
    return replace(target, kind=kind, classes=tuple(_index(each, question) for each in listed), path=question.path)


def describe(target: Target, question: Question, image: int) -> str:
    """A resolved target in words, for one image: `Egyptian cat`, `p(Egyptian cat) - p(tabby)`."""
    if isinstance(target, Sum):
        parts = [f"{_factor(weight)}{describe(term, question, image)}" for weight, term in target.terms]
        return "".join(parts[:1]).removeprefix("+ ") + "".join(f" {part}" for part in parts[1:])
    if isinstance(target, Each):
        return describe(target.targets[image], question, image)
    if not isinstance(target, ClassScore):
        told = getattr(target, "told", None)
        return told(question, image) if told else str(getattr(target, "__name__", type(target).__name__))
    index = class_of(target, image)
    wrap = {"logit": "{}", "probability": "p({})", "log_probability": "log p({})", "log": "log p({})"}[target.kind]
    return wrap.format(question.label(cast(int, index)))


def class_of(target: Target, image: int) -> int | None:
    """The class that a resolved target asks for in one image; None where it is not about a single class."""
    if isinstance(target, Each):
        return class_of(target.targets[image], image)
    if not isinstance(target, ClassScore) or not isinstance(target.classes, tuple):
        return None
    return cast(int, target.classes[image if len(target.classes) > 1 else 0])


def saturates(target: Target, probabilities: Float[Tensor, "b k"], question: Question) -> bool:
    """Whether some part of the target hardly has a gradient, since the model is nearly sure.

    A probability of any class, where one is near 1; the logarithm of one only where it is that of its own class.
    """
    if isinstance(target, Sum):
        return any(saturates(term, probabilities, question) for _, term in target.terms)
    if isinstance(target, Each):
        return any(saturates(each, probabilities, question) for each in target.targets)
    if not isinstance(target, ClassScore):
        return False
    if target.kind == "probability" or (question.squashed and target.kind == "logit"):
        return float(probabilities.max()) > 0.999
    own = [class_of(target, image) for image in range(question.images)]
    sure = [float(p[c]) > 0.999 for p, c in zip(probabilities, own, strict=True) if c is not None]
    return target.kind != "logit" and any(sure)


def _one_each(listed: Sequence[Any], images: int) -> Target:
    if len(listed) != images:
        raise TargetError(_wrong_number(len(listed), images))
    if all(isinstance(each, int | str) and not isinstance(each, bool) for each in listed):
        return Logit(listed)
    return Each(tuple(parse(each, 1) for each in listed))


def _wrong_number(targets: int, images: int) -> str:
    hint = "; did you mean compare, which asks several questions of each image?" if images == 1 else ""
    plural = "s" * (images != 1)
    return f"got {targets} targets for {images} image{plural}; give one for all, or exactly one for each{hint}"


def _of_output_alone(function: Callable[..., Any]) -> Target:
    """Functions of the output alone are targets too: the rows are then not passed on."""
    if isinstance(function, ClassScore | Sum | Each):
        return function
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in signature(function).parameters.values() if p.kind in kinds and p.default is p.empty]
    if len(positional) != 1:
        return function

    def of_output(output: Any, _rows: Rows) -> Scores:
        return function(output)

    of_output.__name__ = getattr(function, "__name__", type(function).__name__)
    return of_output


def _frozen(classes: Class | Sequence[Class]) -> Class | tuple[Class, ...]:
    return classes if isinstance(classes, int | str) else tuple(classes)


def _index(which: Class, question: Question) -> int:
    if isinstance(which, str):
        if question.labels is None:
            raise TargetError(
                f"got the label {which!r}, but this model comes without labels; pass labels=, or an index"
            )
        found = find_label(question.labels, which)
        if question.of_two and found == 0:
            raise TargetError(
                f"the model's only score speaks for {question.labels[1]!r}; what speaks for {which!r} is what speaks "
                "against it: -Logit(0)"
            )
        return 0 if question.of_two else found
    if not 0 <= which < question.classes:
        raise TargetError(
            f"class {which} is out of range; the model has {question.classes} classes: 0 to {question.classes - 1}"
        )
    return int(which)


def _factor(weight: float) -> str:
    sign = "- " if weight < 0 else "+ "
    return sign if abs(weight) == 1 else f"{sign}{abs(weight):g} "


def _logit(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    return scores.gather(1, columns[:, None])[:, 0]


def _probability(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    return _log_probability(scores, columns).exp()


def _log_probability(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    if scores.shape[1] == 1:  # one logit: the class against its absence
        return torch.nn.functional.logsigmoid(scores[:, 0])
    return _logit(scores.log_softmax(1), columns)


def _log(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    return _logit(scores, columns).log()


_READ = {"logit": _logit, "probability": _probability, "log_probability": _log_probability, "log": _log}
_SQUASHED: dict[str, Literal["logit", "log"]] = {"probability": "logit", "log_probability": "log"}
