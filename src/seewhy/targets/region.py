"""Questions about a part of a segmentation: a class over the pixels where it is predicted, in a mask, at a point."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.targets.arguments import Class, classes_of
from seewhy.targets.arithmetic import ARITHMETIC, Each
from seewhy.targets.classes import ClassScore, Logit, class_of
from seewhy.targets.dense import at, background, claims, counted, dense_scores, is_bare, is_dense, nearest
from seewhy.targets.question import Open, Question, Squashing, resolve
from seewhy.targets.ranked import Rank
from seewhy.targets.reading import logits_of
from seewhy.targets.walking import Move
from seewhy.tensor import full
from seewhy.types import Path, Rows, Scores, Target, TargetError, follow
from seewhy.wording import by, some


@dataclass(frozen=True, eq=False)
class Region:
    """Why is this part of the picture segmented so? The question of Seg-Grad-CAM, for every method.

        y = sum over the pixels p of the region of y_c(p)

    of the class's logits; of a model that puts out probabilities, what stands for these (see `Logit`). The region is
    settled on the clean pass: where the class is predicted (the largest of the scores; of a single one, or where each
    class has its sigmoid, above 0 or p > 1/2), or the pixels that are given. Changed copies keep it; those that have
    the pixels elsewhere, such as flipped ones, keep it on the same parts of the picture.

    Identity: the regions of two disjoint masks add up to that of their union.

    Args:
        classes: c, by index or label, one for all images or one for each. None: the class that covers most of the
            region, or of the picture where no region is given; the background, if a label says so, only where there is
            nothing else.
        mask: bool, `(h w)` for all images or `(b h w)`, as large as the images or as the model's output. Output pixel
            j of g takes the mask's pixel floor((j + 1/2) s / g) of s, on every axis.
        point: one pixel of the images, (y, x) from the top left, counted from 0; (z, y, x) in a volume.

    Raises:
        TargetError: an argument of another kind.

    Reference:
        Vinogradova, Dibrov and Myers, Towards Interpretable Semantic Segmentation via Gradient-weighted Class
        Activation Mapping, AAAI 2020, arXiv:2002.11434, section 2: M is one pixel, those of an object, or all of them.
    """

    classes: Class | Sequence[Class] | None = None
    mask: Any = None
    point: Any = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            classes_of(self.classes)
        if self.mask is not None and self.point is not None:
            raise TargetError("got a mask and a point; a region is one of the two: leave the other out")
        if self.mask is not None and _tensor(self.mask).dtype != torch.bool:
            raise TargetError(
                f"got a mask of {_tensor(self.mask).dtype}; a mask holds booleans: labels == 12, or scores > 0.5"
            )
        if self.point is not None:
            _whole(self.point)

    def of(self, _scores: Float[Tensor, "b k"], question: Question, /) -> "Pixels":
        """The region for images with this clean output.

        Raises:
            TargetError: scores without places, an unknown class, a mask of another size, or a region without pixels.
        """
        scores = dense_scores(question)
        axes = len(question.size)
        alone = scores.shape[1] == 1 or question.squashed == "sigmoid"
        threshold = (0.5 if question.squashed else 0.0) if alone else None
        given = self._given(scores, question)
        predicted = claims(scores, threshold if given is None else None)
        covered = counted(predicted if given is None else predicted & given[:, None], axes)
        classes, note = self._classes(covered, question)
        mask = predicted[torch.arange(len(scores)), list(classes)] if given is None else given
        for image in question.asked:
            if not bool(mask[image].any()):
                raise TargetError(_nothing(question.label(classes[image]), image, covered[image], threshold, question))
        where = "" if given is None else self._where()
        return Pixels(classes, mask, question.size, question.place, is_bare(question), question.squashed, where, note)

    def _given(self, scores: Float[Tensor, "b k *grid"], question: Question) -> Bool[Tensor, "b *grid"] | None:
        """The given pixels, on the output's grid."""
        images, size, grid = len(scores), question.size, tuple(scores.shape[2:])
        if self.point is not None:
            mask = scores.new_zeros(grid, dtype=torch.bool)
            mask[tuple(at(_inside(_whole(self.point), size), size, grid))] = True
            return mask.expand(images, *grid)
        if self.mask is None:
            return None
        mask = _tensor(self.mask).to(scores.device)
        several = mask.ndim == len(size) + 1
        if tuple(mask.shape[several:]) not in (size, grid) or (several and len(mask) not in (1, images)):
            raise TargetError(
                f"got a mask of shape {tuple(mask.shape)}; it has the size of the images, {by(size)}, or of the "
                f"model's output, {by(grid)}, and if it has an axis of images, {images} of them: resize it"
            )
        filled = mask.flatten(1).any(1) if several else mask.any()[None]
        if not bool(filled.all()):
            which = f" of image {int((~filled).nonzero()[0])}" * several
            raise TargetError(f"the mask{which} holds no pixel; mark at least one, or leave mask= out")
        return nearest(mask if several else mask[None], grid).expand(images, *grid)

    def _classes(self, covered: Tensor, question: Question) -> tuple[tuple[int, ...], str]:
        """The class of each image, and a note where it was chosen."""
        labels = question.labels[1:] if question.of_two and question.labels else question.labels
        flat = replace(question, shape=tuple(covered.shape), labels=labels)
        if labels and len(labels) != flat.classes:
            raise TargetError(f"got {len(labels)} labels for an output of {flat.classes} classes; give one for each")
        if self.classes is not None:
            found = resolve(Logit(self.classes), flat, covered.float())
            return tuple(cast(int, class_of(found, image)) for image in range(question.images)), ""
        behind = [index for index in background(flat) if flat.classes > 1]
        others = covered.index_fill(1, torch.tensor(behind, dtype=torch.long, device=covered.device), 0)
        chosen = others.where(others.any(1, keepdim=True), covered).argmax(1).tolist()
        return tuple(chosen), self._note(flat, behind)

    def _note(self, question: Question, behind: Sequence[int]) -> str:
        where, given = self._where(), self.mask is not None or self.point is not None
        if self.point is not None:
            return f"target: the class that is predicted at {where}"
        if question.classes == 1:
            return f"target: the output's only class, over {where if given else 'the pixels where it is predicted'}"
        left = f"{question.label(behind[0])!r} left out" if behind else "which may be background: no label says so"
        over = "" if given else ", over the pixels where it is predicted"
        return f"target: the class that covers most of {where} ({left}){over}"

    def _where(self) -> str:
        if self.point is not None:
            return f"the point {_whole(self.point)}"
        return "the image" if self.mask is None else "the mask"

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


@dataclass(frozen=True, eq=False)
class Pixels:
    """A region that is settled: for each image its class and its pixels, on the output's grid or that of the images.

    Args:
        size: of the images, in pixels.
        bare: the scores have no axis of classes.
        where: how the region was given, in words; empty where it is what the model predicts.
        note: what was chosen, where something was.
        count: how many pixels each image has on the clean pass; an output of another size counts as many.
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

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """The sum of the class's logits over the region of each row's image."""
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

    def moved(self, move: Move) -> "Pixels":
        """The region on changed copies of the images, which have its parts of the picture elsewhere."""
        return replace(self, mask=move(nearest(self.mask, self.size)), count=self._counts())

    def told(self, question: Question, image: int) -> str:
        """The region in words: `dog over 5231 of 263169 pixels`, `dog at the point (3, 5)`."""
        label = question.label(self.classes[image])
        if self.where.startswith("the point"):
            return f"{label} at {self.where}"
        return f"{label} {'in' if self.where else 'over'} {self._size(image)}{self.where and f' of {self.where}'}"

    def _size(self, image: int) -> str:
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


def over_places(asked: Target | Open, question: Question) -> Target | Open:
    """A plain class of a dense output means its region, the predicted class the region of the largest."""
    if isinstance(asked, Each):
        return Each(tuple(over_places(each, question) for each in asked.targets))
    if not is_dense(question):
        return asked
    if isinstance(asked, Rank) and asked.place == 1:
        return Region()
    return Region(asked.classes) if isinstance(asked, ClassScore) and asked.kind == "score" else asked


def _nothing(name: str, image: int, covered: Tensor, threshold: float | None, question: Question) -> str:
    """Why a region is empty."""
    order = [index for index in covered.argsort(descending=True).tolist() if covered[index] > 0]
    total = covered.sum().clamp_min(1)
    named = some([f"{question.label(index)!r} ({float(covered[index] / total):.0%})" for index in order], 6)
    instead = f"predicted are {named}: ask for one of these, or" if order else f"no score is above {threshold:g}:"
    return f"no pixel of image {image} is predicted as {name!r}; {instead} say where by mask= or point="


def _tensor(mask: Any) -> Tensor:
    try:
        return torch.as_tensor(mask)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(f"got {type(mask).__name__} as a mask; give a tensor or an array of booleans") from error


def _whole(point: Any) -> tuple[int, ...]:
    point = point.tolist() if hasattr(point, "tolist") else point
    listed = cast(list[Any], list(point)) if isinstance(point, list | tuple) else []
    if not listed or not all(isinstance(place, int) and not isinstance(place, bool) for place in listed):
        raise TargetError(f"got {point!r} as a point; give a pixel of the images by whole numbers: (y, x)")
    return tuple(listed)


def _inside(point: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    if len(point) != len(size) or not all(0 <= place < side for place, side in zip(point, size, strict=True)):
        raise TargetError(
            f"got the point {point}; it has one whole number for each axis of the images of {by(size)} pixels, "
            f"from {(0,) * len(size)} to {tuple(side - 1 for side in size)}: (y, x), from the top left"
        )
    return point
