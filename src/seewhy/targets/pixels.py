"""A region that is settled on the clean pass: the pixels of each image, and what is read there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.marks import Marks, is_fitted
from seewhy.nested import follow
from seewhy.targets.abilities import Move
from seewhy.targets.dense import counted, nearest
from seewhy.targets.question import Question, Squashing
from seewhy.targets.reading import UNCLEAR, fading, logits_of
from seewhy.tensor import full
from seewhy.types import Path, Rows, Scores


@dataclass(frozen=True, eq=False)
class Pixels:
    """A region that is settled: for each image its class and its pixels, on the output's grid or that of the images.

    What is summed is the class's logit; where the model puts out p or log p of a softmax, log p, which differs from the
    logit by a number that the classes of a pixel share: in a difference of two classes the same, of one class alone it
    says what speaks for it against the others, and fades where the model is sure; p or log p of sigmoids, the logit.

    Args:
        size: of the images, in pixels.
        bare: the scores have no axis of classes.
        where: how the region was given, in words; empty where it is what the model predicts.
        note: what was chosen, where something was.
        count: how many pixels each image has on the clean pass; an output of another size counts as many.
        point: the pixel that was asked for, as it was given.
    """

    classes: tuple[int, ...]
    mask: Bool[Tensor, "b *_"]
    size: tuple[int, ...]
    path: Path
    bare: bool = False
    squashed: Squashing | None = None
    where: str = ""
    note: str = ""
    count: tuple[int, ...] | None = None
    point: tuple[int, ...] | None = None

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The sum of the class's logits, or what stands for them, over the region of each row's image."""
        own = full(self._classed(follow(output, self.path), rows))
        return (logits_of(own, self.squashed) * self._weights(own, rows)).flatten(1).sum(1)

    def gradient(self, output: Any, rows: Rows) -> tuple[Path, Tensor] | None:
        """Where the gradient with respect to the output is, and it, if that takes no autograd: 1 in the region."""
        scores = follow(output, self.path)
        if self.squashed is not None:
            return None
        weights = self._weights(self._classed(scores.detach(), rows), rows)
        if self.bare:
            return self.path, weights
        gradient = torch.zeros_like(scores)
        gradient[torch.arange(len(rows)), self._columns(rows)] = weights
        return self.path, gradient

    @property
    def reads(self) -> Path:
        """The place of the output that is read."""
        return self.path

    def doubts(self, question: Question, _probabilities: Float[Tensor, "b k"]) -> Iterator[str]:
        """What stands for logits, and that it hardly has a gradient where the model is nearly sure of the region."""
        if question.unclear:
            yield UNCLEAR
        rows = torch.tensor(list(question.asked))
        scores = self._classed(full(follow(question.output, self.path).detach()[rows]), rows)
        yield from fading(scores, nearest(self.mask, scores.shape[1:])[rows], self.squashed)

    def moved(self, move: Move) -> "Pixels":
        """The region on changed copies of the images, which have its parts of the picture elsewhere."""
        return replace(self, mask=move(nearest(self.mask, self.size)), count=self._counts())

    def told(self, question: Question, image: int) -> str:
        """The region in words: `dog over 5231 of 263169 pixels`, `dog at the point (3, 5)`."""
        label = question.label(self.classes[image])
        if self.point is not None:
            return f"{label} at {self.where}"
        size = self._size(image, question)
        return f"{label} {'in' if self.where else 'over'} {size}{self.where and f' of {self.where}'}"

    def marks(self, question: Question, image: int) -> Marks:
        """The region, or the point, as far as it is one."""
        sight = question.sight(image)
        if self.point is not None:
            return Marks(points=(self.point,), sight=sight, size=self.size)
        return Marks(grids=(self.mask[image].clone(),), sight=sight, size=self.size)

    def _size(self, image: int, question: Question) -> str:
        """How many pixels it has: of the photo, where there is one, else of the output."""
        if is_fitted(question.sight(image)):
            (mask,) = self.marks(question, image).masks
            return f"{int(mask.sum())} of {mask.numel()} pixels"
        return f"{self._counts()[image]} of {self.mask[image].numel()} pixels"

    def _counts(self) -> tuple[int, ...]:
        return self.count or tuple(counted(self.mask, self.mask.ndim - 1).tolist())

    def _columns(self, rows: Rows) -> Tensor:
        return torch.tensor(self.classes, device=rows.device)[rows]

    def _classed(self, scores: Tensor, rows: Rows) -> Tensor:
        return scores if self.bare else scores[torch.arange(len(rows)), self._columns(rows)]

    def _weights(self, like: Float[Tensor, "m *grid"], rows: Rows) -> Float[Tensor, "m *grid"]:
        """1 in the region; of an output of another size so much that the region counts as many pixels as before."""
        mask = nearest(self.mask, like.shape[1:])
        if self.count is None and mask.shape == self.mask.shape:
            return mask[rows].to(like)
        now, axes = counted(mask, mask.ndim - 1), (1,) * (mask.ndim - 1)
        share = torch.tensor(self._counts(), device=now.device) / now.clamp_min(1)
        return (mask * share.reshape(-1, *axes))[rows].to(like)
