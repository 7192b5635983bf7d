"""Questions about classes that the clean pass decides: the predicted one, and those most like another.

They become targets of fixed classes once; changed copies of an image never take new ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy import targets
from seewhy.targets import Class, Logit, Question
from seewhy.types import Path, Rows, Scores, Target, TargetError, follow


@runtime_checkable
class Ranked(Protocol):
    """A question that becomes a target when the clean scores are known."""

    def of(self, scores: Float[Tensor, "b k"], question: Question, /) -> Target:
        """The target for images with these scores."""
        ...


@dataclass(frozen=True)
class Rank:
    """The logit of the class that comes in at this place with each image: 1 is the predicted class."""

    place: int = 1

    def of(self, scores: Float[Tensor, "b k"], _question: Question, /) -> Target:
        """The classes at this place, as a target.

        Raises:
            TargetError: there are not that many classes.
        """
        if not 1 <= self.place <= scores.shape[1]:
            raise TargetError(f"asked for the class at place {self.place}; the model has {scores.shape[1]} classes")
        return Logit([int(index) for index in scores.topk(self.place, dim=1).indices[:, -1]])


@dataclass(frozen=True)
class Contrast:
    """Why this class rather than those most like it? The target of Finer-CAM, for every method.

    mean:     y_c - gamma mean_d y_d
    softmax:  sum_d p_d (y_c - gamma y_d) / sum_d p_d,  p = softmax(y) over all classes

    over the `references` d whose logits are nearest to y_c on the clean pass, or that are named.

    Identity: gamma = 0 is the logit of c; with one reference and gamma = 1, c and d exchanged is the negative.

    Args:
        classes: c, by index or label, one for all images or one for each; None: the predicted class.
        references: how many of the nearest classes, or which ones.
        gamma: how much the references count: the authors' code has 1, torch-cam .6.
        weighting: "softmax" as the authors' code and pytorch-grad-cam have it, where p has a gradient too; or "mean",
            as in the paper's text and torch-cam.

    Reference:
        Zhang et al., Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation, CVPR 2025,
        arXiv:2501.11309.
    """

    classes: Class | Sequence[Class] | None = None
    references: int | Sequence[Class] = 3
    gamma: float = 1.0
    weighting: str = "softmax"

    def of(self, scores: Float[Tensor, "b k"], question: Question, /) -> Target:
        """The contrast for images with these scores.

        Raises:
            TargetError: an unknown class or weighting, or no reference.
        """
        if self.weighting not in ("mean", "softmax"):
            raise TargetError(f"weighting is {self.weighting!r}; it is 'mean' or 'softmax': choose one of them")
        own = self._own(scores, question)
        others = self._others(scores, own, question)
        if self.weighting == "softmax":
            return Weighed(own, others, self.gamma, question.path, question.squashed)
        fixed = [targets.resolve(Logit([row[place] for row in others]), question) for place in range(len(others[0]))]
        total: Any = targets.resolve(Logit(list(own)), question)
        for other in fixed:
            total = total - (self.gamma / len(fixed)) * cast(Any, other)
        return total

    def _own(self, scores: Float[Tensor, "b k"], question: Question) -> tuple[int, ...]:
        if self.classes is None:
            return tuple(int(index) for index in scores.argmax(1))
        given = targets.resolve(Logit(self.classes), question)
        classes = [targets.class_of(given, image) for image in range(question.images)]
        return tuple(cast(list[int], classes))

    def _others(
        self, scores: Float[Tensor, "b k"], own: tuple[int, ...], question: Question
    ) -> tuple[tuple[int, ...], ...]:
        if not isinstance(self.references, int):
            named = [targets.class_of(targets.resolve(Logit(each), question), 0) for each in self.references]
            if not named:
                raise TargetError("got no references to contrast with; name at least one class, or say how many")
            if set(named) & set(own):
                label = question.label(next(iter(set(own) & set(cast(list[int], named)))))
                raise TargetError(f"got {label!r} as a reference of itself; name other classes to contrast it with")
            return (tuple(cast(list[int], named)),) * question.images
        if not 1 <= self.references < scores.shape[1]:
            raise TargetError(
                f"asked for {self.references} classes to contrast with; the model has {scores.shape[1] - 1} others"
            )
        distance = (scores - scores.gather(1, torch.tensor(own, device=scores.device)[:, None])).abs()
        distance[torch.arange(len(own)), list(own)] = torch.inf
        nearest: list[list[int]] = distance.topk(self.references, largest=False).indices.tolist()
        return tuple(tuple(row) for row in nearest)


@dataclass(frozen=True)
class Weighed:
    """The softmax form of `Contrast`, its classes fixed for each image; `squashed`: the scores are probabilities."""

    own: tuple[int, ...]
    others: tuple[tuple[int, ...], ...]
    gamma: float
    path: Path
    squashed: bool = False

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """sum_d p_d (y_c - gamma y_d) / sum_d p_d for each row."""
        scores = follow(output, self.path)
        own = torch.tensor(self.own, device=rows.device)[rows][:, None]
        others = torch.tensor(self.others, device=rows.device)[rows]
        given = scores.gather(1, others)
        # p_d / sum p_d: in a softmax the other classes cancel
        weights = given / given.sum(1, keepdim=True) if self.squashed else given.softmax(1)
        return (weights * (scores.gather(1, own) - self.gamma * scores.gather(1, others))).sum(1)

    def told(self, question: Question, image: int) -> str:
        """The contrast in words: `Egyptian cat against tabby, tiger cat`."""
        others = ", ".join(question.label(index) for index in self.others[image])
        return f"{question.label(self.own[image])} against {others}"
