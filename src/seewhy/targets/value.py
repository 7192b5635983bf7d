"""Questions about numbers: what makes a regression's answer higher, lower, or brings it nearer to a value."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.nested import follow
from seewhy.targets.arguments import Classes, class_index, classes_of, for_each, plain
from seewhy.targets.arithmetic import ARITHMETIC
from seewhy.targets.detections import scores_at
from seewhy.targets.question import Question
from seewhy.targets.reading import OF_LOGS, SURE, probabilities_of
from seewhy.types import Path, Rows, Scores, TargetError


@dataclass(frozen=True)
class Value:
    """A number that the model puts out, as it is: what makes it higher; `-Value()`, what makes it lower.

        y_i,  or with `towards` -|y_i - v|: what brings it nearer to v

    Its slope is 1 below v and -1 above it: the map is that of `Value()` or `-Value()`, whichever leads to v, and says
    nothing of how far it is. At v itself there is none.

    Identity: `Value(towards=v)` is `Value()` up to a constant wherever the number is below v.

    Args:
        index: which of the numbers, by index or label, one for all images or one for each.
        towards: v in the unit of the output, one for all images or one for each.

    Raises:
        TargetError: an argument of another kind.
    """

    index: Classes = 0
    towards: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        classes_of(self.index)
        if self.towards is not None:
            _numbers(self.towards)

    @property
    def fixed(self) -> bool:
        """Whether every image settles it in the same way: it may be asked of the tiles of one."""
        given = (classes_of(self.index), None if self.towards is None else _numbers(self.towards))
        return not any(isinstance(each, tuple) and len(each) > 1 for each in given)

    def of(self, scores: Float[Tensor, "b k"], question: Question, /) -> "Number":
        """The number for images with this clean output.

        Raises:
            TargetError: no number for each image, or not this one.
        """
        path, images = scores_at(question), question.images
        if len(question.shape) > 2:
            raise TargetError(
                f"a number was asked for, but the scores have the shape {question.shape}, not (images,) or (images, "
                "numbers); ask Region() where there is a score at every pixel, or pass a function of (output, rows)"
            )
        which = for_each(classes_of(self.index), images, "indices")
        spread = None if self.towards is None else for_each(_numbers(self.towards), images, "values to go towards")
        settled = Number(tuple(class_index(each, question, "Value") for each in which), spread, path)
        if spread is not None:
            distance = settled(question.output, torch.arange(images, device=scores.device))
            for image in question.asked:
                if distance[image] == 0:
                    raise TargetError(
                        f"image {image} is at {spread[image]:g} already, where nothing brings it nearer; ask Value() "
                        "for what makes it higher, -Value() for lower"
                    )
        return settled

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


@dataclass(frozen=True)
class Number:
    """A number that is settled: its index for each image, and what it shall come nearer to."""

    indices: tuple[int, ...]
    towards: tuple[float, ...] | None
    path: Path = ()

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The number of each row, or minus its distance."""
        own = self._own(follow(output, self.path), rows)
        return own if self.towards is None else -(own - self._goal(own, rows)).abs()

    def gradient(self, output: Any, rows: Rows) -> tuple[Path, Tensor]:
        """Where the gradient with respect to the output is, and it: 1 at the number, or the sign of what it lacks."""
        scores = follow(output, self.path)
        own = self._own(scores.detach(), rows)
        slope = torch.ones_like(own) if self.towards is None else (self._goal(own, rows) - own).sign()
        if scores.ndim == 1:
            return self.path, slope
        return self.path, torch.zeros_like(scores).scatter(1, self._columns(rows)[:, None], slope[:, None])

    @property
    def reads(self) -> Path:
        """The place of the output that is read."""
        return self.path

    def doubts(self, question: Question, _probabilities: Float[Tensor, "b k"]) -> Iterator[str]:
        """That it hardly has a gradient, where it is near the end of what a sigmoid or softmax can put out."""
        images = torch.tensor(list(question.asked))
        own = self._own(follow(question.output, self.path).detach()[images], images)
        p = probabilities_of(own, question.squashed) if question.squashed else own
        ends = p if question.squashed in OF_LOGS else torch.maximum(p, 1 - p)  # log p has but one end
        if question.squashed and bool((ends > SURE).any()):
            yield (
                f"a number is near the end of what the model's last {question.squashed} can put out, so its gradient "
                f"nearly vanishes; explain the model without this {question.squashed}"
            )

    def told(self, question: Question, image: int) -> str:
        """The number in words: `age`, `value 2`, `age towards 30`."""
        index = self.indices[image]
        name = question.labels[index + question.of_two] if question.labels else f"value {index}"
        return name if self.towards is None else f"{name} towards {self.towards[image]:g}"

    def _columns(self, rows: Rows) -> Tensor:
        return torch.tensor(self.indices, device=rows.device)[rows]

    def _own(self, scores: Tensor, rows: Rows) -> Float[Tensor, " m"]:
        return scores if scores.ndim == 1 else scores.gather(1, self._columns(rows)[:, None])[:, 0]

    def _goal(self, own: Float[Tensor, " m"], rows: Rows) -> Float[Tensor, " m"]:
        return torch.tensor(self.towards, device=rows.device, dtype=own.dtype)[rows]


def _numbers(towards: Any) -> tuple[float, ...]:
    given = plain(towards)
    listed: list[Any] = list(cast(Sequence[Any], given)) if isinstance(given, list | tuple) else [given]
    for each in listed:
        if isinstance(each, bool) or not isinstance(each, Real) or not math.isfinite(each):
            raise TargetError(f"got {each!r} to go towards; give a finite number, in the unit of the model's output")
    return tuple(float(each) for each in listed)
