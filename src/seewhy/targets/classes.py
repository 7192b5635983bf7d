"""Questions about a model's output: which number, for each image, shall be explained.

A target is any function of (the model's output, rows) that returns one score per row; `rows[j]` says which image row j
was made from. The targets here compose: `Logit("cat") - Logit("dog")`, `-Logit(3)`, `0.5 * Probability(7)`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.nested import follow
from seewhy.targets.abilities import Told, can
from seewhy.targets.arguments import Class, Classes, class_index, classes_of, for_each, plain, wrong_number
from seewhy.targets.arithmetic import ARITHMETIC, Each, Sum
from seewhy.targets.dense import instead_of_a_class
from seewhy.targets.detections import scores_at
from seewhy.targets.question import Open, Question, as_target, is_question
from seewhy.targets.reading import (
    COMPETING,
    KINDS,
    OF_EACH,
    READ,
    SURE,
    UNCLEAR,
    WORDS,
    Kind,
    column,
    made,
    nearly_sure,
)
from seewhy.types import Path, Rows, Scores, Target, TargetError

_OF_ALL = ("probability", "log_probability")
"""What depends on the scores of all classes, where these are logits."""


@dataclass(frozen=True)
class ClassScore:
    """The score of a class: as the model puts it out, its logit, probability or log-probability.

    Made by the functions of these names; an index or a label alone is the score as the model puts it out.
    """

    kind: Kind
    classes: Class | tuple[Class, ...]
    path: Path = ()
    note: str = field(default="", repr=False, compare=False)

    @property
    def fixed(self) -> bool:
        """Whether every image settles it in the same way: it may be asked of the tiles of one."""
        return not isinstance(self.classes, tuple) or len(self.classes) == 1

    def of(self, _scores: Float[Tensor, "b k"], question: Question, /) -> "ClassScore":
        """With indices for labels, the scores' place, and what is to be read of these scores.

        Raises:
            TargetError: a class out of range, an unknown or ambiguous label, an output that has no classes, or a
                probability of scores that may be probabilities or logits.
        """
        path = scores_at(question)
        if len(question.shape) > 2:
            raise TargetError(
                f"a class was asked for, but the scores have the shape {question.shape}, not (images, classes); "
                f"{instead_of_a_class(question)}, pass a function of (output, rows) that returns one score per image, "
                "or say by output= which tensor holds class scores"
            )
        listed = for_each(self.classes, question.images, "targets")
        indices = tuple(class_index(each, question) for each in listed)
        if question.unclear and question.classes > 1 and self.kind in _OF_ALL:
            raise TargetError(
                "a probability was asked for, but every score is between 0 and 1 and those of an image do not sum to "
                "1, so that they may be probabilities already, or logits; ask "
                f"Value({indices[0]}) for the number as it is, or a function such as lambda output: "
                f"output.softmax(1)[:, {indices[0]}] if these are logits"
            )
        kind = KINDS[question.squashed].get(self.kind, self.kind)
        said = [self._said(question, indices[0])]
        if question.of_two and question.labels and not all(isinstance(each, str) for each in listed):
            against = f"what speaks for {question.labels[0]!r} is -Logit(0)"
            said.append(f"the model's only score, index 0, speaks for {question.labels[1]!r}; {against}")
        return replace(self, kind=kind, classes=indices, path=path, note="; ".join(filter(None, said)))

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The score of each row's class."""
        scores = follow(output, self.path)
        return READ[self.kind](scores if scores.ndim > 1 else scores[:, None], self._columns(rows))

    def gradient(self, output: Any, rows: Rows) -> tuple[Path, Tensor] | None:
        """Where the gradient with respect to the output is, and it, if that takes no autograd: 1 at the class."""
        if READ[self.kind] is not column:
            return None
        zeros = torch.zeros_like(follow(output, self.path))
        return self.path, zeros.reshape(len(zeros), -1).scatter(1, self._columns(rows)[:, None], 1).reshape(zeros.shape)

    @property
    def reads(self) -> Path:
        """The place of the output that is read."""
        return self.path

    def told(self, question: Question, image: int) -> str:
        """What is read of the class in words: `log p(Egyptian cat)`."""
        return WORDS[self.kind].format(question.label(cast(int, class_of(self, image))))

    def doubts(self, question: Question, probabilities: Float[Tensor, "b k"]) -> Iterator[str]:
        """That it is not known what the scores are, or that it hardly has a gradient, since the model is nearly sure.

        A probability of any class, where one is near 1 (where each class has its sigmoid: where its own is near 0 or
        1); the logarithm of one only where it is that of its own class.
        """
        if question.unclear:
            yield UNCLEAR
        own = torch.stack([probabilities[n, cast(int, class_of(self, n))] for n in question.asked])
        flat = False
        if self.kind in ("log", "log_output", "log_probability"):
            flat = bool((own > SURE).any())
        elif self.kind in ("output", "exp", "probability"):
            alone = question.squashed in OF_EACH or question.classes == 1
            flat = bool((torch.maximum(own, 1 - own) > SURE).any()) if alone else _most(probabilities, question) > SURE
        if flat:
            yield nearly_sure(question.squashed)

    def _said(self, question: Question, first: int) -> str:
        """How probabilities are read, or made of logits."""
        if question.squashed is not None:
            return made(question.squashed, self.kind == "logit")
        return COMPETING.format(first) if self.kind in _OF_ALL and question.classes > 1 else ""

    def _columns(self, rows: Rows) -> Int[Tensor, " m"]:
        which = self.classes if isinstance(self.classes, tuple) else (self.classes,)
        for each in which:
            if isinstance(each, str):
                raise TargetError(
                    f"the label {each!r} is looked up where explain gets this target itself; in a function of your own "
                    "give the index"
                )
        columns = torch.tensor(which, device=rows.device)
        return columns[rows] if len(which) > 1 else columns.expand(len(rows))

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


def Logit(classes: Classes) -> ClassScore:
    """The score before the softmax, y_c: the target of the Grad-CAM paper.

    Of a model that puts out probabilities p, or log p: of a sigmoid's, log p_c - log(1 - p_c), which is y_c; of a
    softmax's, log p_c, which is y_c up to a number that all classes of an image share: differences are exact.

    Args:
        classes: an index or a label, one for all images or a sequence with one for each.
    """
    return ClassScore("logit", classes_of(classes))


def Probability(classes: Classes) -> ClassScore:
    """p_c = softmax(y)_c; of a single logit, its sigmoid; of a model that puts out p or log p, this p.

    Its gradient is p_c (dy_c - sum_k p_k dy_k): it vanishes where the model is sure. Prefer the log-probability there.
    """
    return ClassScore("probability", classes_of(classes))


def LogProbability(classes: Classes) -> ClassScore:
    """log p_c = log softmax(y)_c: the class against all others; does not vanish where the model is sure of another."""
    return ClassScore("log_probability", classes_of(classes))


def ReST(classes: Classes) -> Sum:
    """y_c + log p_c: the residual of the softmax is added to the logit, so that the other classes are heard too.

    Of a model that puts out the probabilities of a softmax it is 2 log p_c: these do not tell y_c alone (see `Logit`).

    Reference:
        Cai, ShapleyCAM and the residual softmax target class, 2025, arXiv:2501.06261.
    """
    return Logit(classes) + LogProbability(classes)


def parse(target: Any, images: int) -> Target | Open:
    """What a user may write for a target, as a question: an index, a label, one of these per image, a function.

    Raises:
        TargetError: a sequence of the wrong length, or nothing that can be a target.
    """
    target = plain(target)
    if isinstance(target, bool):
        raise TargetError(
            f"got {target!r} as a target; give a class index, a label, a target or a function of the output"
        )
    if isinstance(target, int | str):
        return ClassScore("score", target)
    if isinstance(target, list | tuple):
        return _one_each(cast(Sequence[Any], target), images)
    if not is_question(target):
        what = f"the class {target.__name__}" if isinstance(target, type) else type(target).__name__
        raise TargetError(f"got {what} as a target; give a class index, a label, a target or a function")
    return target if isinstance(target, Open) else as_target(target)


def describe(target: Target | Open, question: Question, image: int) -> str:
    """A resolved target in words, for one image: `Egyptian cat`, `p(Egyptian cat) - p(tabby)`."""
    if isinstance(target, Sum):
        parts = [f"{_factor(weight)}{_part(term, question, image)}" for weight, term in target.terms]
        return "".join(parts[:1]).removeprefix("+ ") + "".join(f" {part}" for part in parts[1:])
    if isinstance(target, Each):
        return describe(target.targets[image], question, image)
    if can(target, Told):
        return target.told(question, image)
    return str(getattr(target, "__name__", type(target).__name__))


def class_of(target: Target | Open, image: int) -> int | None:
    """The class that a resolved target asks for in one image; None where it is not about a single class."""
    if isinstance(target, Each):
        return class_of(target.targets[image], image)
    if not isinstance(target, ClassScore) or not isinstance(target.classes, tuple):
        return None
    return cast(int, target.classes[image if len(target.classes) > 1 else 0])


def _most(probabilities: Float[Tensor, "b k"], question: Question) -> float:
    return float(probabilities[list(question.asked)].max())


def _one_each(listed: Sequence[Any], images: int) -> Target | Open:
    if len(listed) != images:
        hint = "; did you mean compare, which asks several questions of each image?" if images == 1 else ""
        raise TargetError(wrong_number(len(listed), images, "targets") + hint)
    listed = [plain(each) for each in listed]
    if all(isinstance(each, int | str) and not isinstance(each, bool) for each in listed):
        return ClassScore("score", tuple(listed))
    return Each(tuple(parse(each, 1) for each in listed))


def _part(term: Target | Open, question: Question, image: int) -> str:
    """A term in words; in parentheses where the sum's sign might seem to be for its first word alone."""
    words = describe(term, question, image)
    return f"({words})" if " " in words and not isinstance(term, ClassScore) else words


def _factor(weight: float) -> str:
    sign = "- " if weight < 0 else "+ "
    return sign if abs(weight) == 1 else f"{sign}{abs(weight):g} "
