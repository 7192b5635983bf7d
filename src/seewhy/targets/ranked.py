"""Questions about classes that the clean pass decides: the predicted one, and those most like another.

They become targets of fixed classes once; changed copies of an image never take new ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, SupportsIndex, cast

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.nested import follow
from seewhy.targets.abilities import CHOSEN
from seewhy.targets.arguments import Classes, classes_of, whole
from seewhy.targets.arithmetic import ARITHMETIC
from seewhy.targets.classes import ClassScore, Logit, class_of
from seewhy.targets.dense import instead_of_a_class
from seewhy.targets.detections import is_detector, scores_at
from seewhy.targets.embedding import embedding_in
from seewhy.targets.question import Question, Squashing, resolve
from seewhy.targets.reading import OF_LOGS, UNCLEAR, logits_of, made
from seewhy.types import Path, Rows, Scores, Target, TargetError

_NEAREST = 3
"""How many classes a contrast is with, where there are as many and nobody says."""


@dataclass(frozen=True)
class Rank:
    """The score of the class that comes in at this place with each image: 1 is the predicted class."""

    place: SupportsIndex = 1

    def __post_init__(self) -> None:
        if (whole(self.place) or 0) < 1:
            raise TargetError(f"got {self.place!r} as a place; give a whole number, where 1 is the predicted class")

    def of(self, scores: Float[Tensor, "b k"], question: Question, /) -> ClassScore:
        """The classes at this place, as a target.

        Raises:
            TargetError: there are not that many classes.
        """
        _check_ranked(question)
        place = cast(int, whole(self.place))
        if place > scores.shape[1]:
            count = scores.shape[1]
            told = f"{count} classes, so give 1 to {count}" if count > 1 else "a single score, so give 1"
            raise TargetError(f"got place {place} among the scores; the model has {told}")
        indices = scores.topk(place, dim=1).indices[:, -1]
        settled = ClassScore("score", tuple(int(index) for index in indices)).of(scores, question)
        return replace(settled, note=CHOSEN + _chosen(place, question))

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


@dataclass(frozen=True)
class Contrast:
    """Why this class rather than those most like it? The target of Finer-CAM, for every method.

    mean:     y_c - gamma mean_d y_d
    softmax:  sum_d p_d (y_c - gamma y_d) / sum_d p_d,  p = softmax(y) over all classes

    over the `references` d whose logits are nearest to y_c on the clean pass, or that are named.

    Identity: gamma = 0 is the logit of c; with one reference and gamma = 1, c and d exchanged is the negative. With
    gamma = 1 a softmax at the model's end changes nothing, since it keeps the differences of logits (see `Logit`).

    Args:
        classes: c, by index or label, one for all images or one for each; None: the predicted class.
        references: how many of the nearest classes, or which ones; None: three, or as many as there are.
        gamma: how much the references count: the authors' code has 1, torch-cam .6.
        weighting: "softmax" as the authors' code and pytorch-grad-cam have it, where p has a gradient too; or "mean",
            as in the paper's text and torch-cam.

    Raises:
        TargetError: an argument of another kind.

    Reference:
        Zhang et al., Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation, CVPR 2025,
        arXiv:2501.11309.
    """

    classes: Classes | None = None
    references: Classes | None = None
    gamma: float = 1.0
    weighting: str = "softmax"

    def __post_init__(self) -> None:
        if self.classes is not None:
            classes_of(self.classes)
        if self.references is not None:
            classes_of(self.references)
        if not isinstance(cast(object, self.gamma), Real) or isinstance(self.gamma, bool):
            raise TargetError(f"gamma is {self.gamma!r}; it is a number, such as 1: how much the references count")
        if not isinstance(cast(object, self.weighting), str) or self.weighting not in ("mean", "softmax"):
            raise TargetError(f"weighting is {self.weighting!r}; it is 'mean' or 'softmax': choose one of them")

    @property
    def fixed(self) -> bool:
        """Whether every image settles it in the same way: it may be asked of the tiles of one."""
        named = None not in (self.classes, self.references) and whole(self.references) is None
        own = classes_of(self.classes) if named else ()
        return named and (not isinstance(own, tuple) or len(own) == 1)

    def of(self, scores: Float[Tensor, "b k"], question: Question, /) -> Target:
        """The contrast for images with these scores.

        Raises:
            TargetError: an unknown class, or no reference.
        """
        _check_ranked(question)
        own = self._own(scores, question)
        others = self._others(logits_of(scores, question.squashed), own, question)
        if self.weighting == "softmax":
            return Weighed(own, others, float(self.gamma), question.place, question.squashed)
        total: Any = Logit(own)
        for place in range(len(others[0])):
            total = total - (self.gamma / len(others[0])) * Logit([row[place] for row in others])
        return resolve(total, question, scores)

    def _own(self, scores: Float[Tensor, "b k"], question: Question) -> tuple[int, ...]:
        if self.classes is None:
            return tuple(int(index) for index in scores.argmax(1))
        given = resolve(Logit(self.classes), question, scores)
        return tuple(cast(int, class_of(given, image)) for image in range(question.images))

    def _others(
        self, logits: Float[Tensor, "b k"], own: tuple[int, ...], question: Question
    ) -> tuple[tuple[int, ...], ...]:
        asked_for = whole(self.references)
        if self.references is not None and asked_for is None:
            return (self._named(logits, own, question),) * question.images
        rivals = question.classes - 1
        if rivals == 0:
            raise TargetError(
                "a contrast is with other classes, and the model has a single score; ask for Logit(0), or -Logit(0) "
                "for what speaks against it"
            )
        count = min(_NEAREST, rivals) if asked_for is None else asked_for
        if not 1 <= count <= rivals:
            raise TargetError(f"asked for {count} classes to contrast with; the model has {rivals} others")
        distance = (logits - logits.gather(1, torch.tensor(own, device=logits.device)[:, None])).abs()
        distance[torch.arange(len(own)), list(own)] = torch.inf
        nearest: list[list[int]] = distance.topk(count, largest=False).indices.tolist()
        return tuple(tuple(row) for row in nearest)

    def _named(self, logits: Float[Tensor, "b k"], own: tuple[int, ...], question: Question) -> tuple[int, ...]:
        given = classes_of(self.references)
        targets = [resolve(Logit(each), question, logits) for each in (given if isinstance(given, tuple) else (given,))]
        named = tuple(cast(int, class_of(target, 0)) for target in targets)
        if not named:
            raise TargetError("got no references to contrast with; name at least one class, or say how many")
        if set(named) & set(own):
            label = question.label(next(iter(set(own) & set(named))))
            raise TargetError(f"got {label!r} as a reference of itself; name other classes to contrast it with")
        return named

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


@dataclass(frozen=True)
class Weighed:
    """The softmax form of `Contrast`, its classes fixed for each image; `squashed`: what made p or log p of logits."""

    own: tuple[int, ...]
    others: tuple[tuple[int, ...], ...]
    gamma: float
    path: Path
    squashed: Squashing | None = None

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """sum_d p_d (y_c - gamma y_d) / sum_d p_d for each row."""
        scores = follow(output, self.path)
        own = torch.tensor(self.own, device=rows.device)[rows][:, None]
        others = torch.tensor(self.others, device=rows.device)[rows]
        own, others = (logits_of(scores.gather(1, classes), self.squashed) for classes in (own, others))
        weights = others.softmax(1)  # p_d / sum p_d: in a softmax the other classes cancel
        return (weights * (own - self.gamma * others)).sum(1)

    @property
    def reads(self) -> Path:
        """The place of the output that is read."""
        return self.path

    @property
    def note(self) -> str:
        """What stands for logits."""
        return made(self.squashed, logits=True) if self.squashed else ""

    def doubts(self, question: Question, _probabilities: Float[Tensor, "b k"]) -> Iterator[str]:
        """That it is not known what the scores are."""
        if question.unclear:
            yield UNCLEAR

    def told(self, question: Question, image: int) -> str:
        """The contrast in words: `Egyptian cat against tabby, tiger cat`."""
        others = ", ".join(question.label(index) for index in self.others[image])
        return f"{question.label(self.own[image])} against {others}"


def _chosen(place: int, question: Question) -> str:
    where = "" if question.about is None else f" (image {question.about})"
    if question.classes == 1:
        return f"the model's only score; the map shows what speaks for it, -Logit(0) what speaks against it{where}"
    which = "that the model predicts" if place == 1 else f"at place {place} of the model's scores"
    by = "log p" if question.squashed in OF_LOGS else "probability"
    read = f"{by}, which the model puts out" if question.squashed else "score" if question.unclear else "logit"
    return f"the class {which}, by its {read}{where}"


def _check_ranked(question: Question) -> None:
    why = None if is_detector(question.output) else embedding_in(question)
    if why is not None:
        raise TargetError(
            f"no class is predicted: {why}; ask for Similarity(...) to a vector or to another image, for a number by "
            "its index, or say which output holds scores of classes: output=..."
        )
    scores_at(question)
    if len(question.shape) > 2:
        raise TargetError(
            f"scores of shape {question.shape} have no predicted class of the image; {instead_of_a_class(question)}, "
            "or give a function of (output, rows)"
        )
