"""Questions about a part of a segmentation: a class over the pixels where it is predicted, in a mask, at a point."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.targets.arguments import Class, classes_of
from seewhy.targets.arithmetic import ARITHMETIC
from seewhy.targets.classes import ClassScore, Logit, class_of
from seewhy.targets.dense import background, claims, counted, dense_scores, is_bare, is_dense
from seewhy.targets.pixels import Pixels
from seewhy.targets.pointing import cell_under, laid, mask_of, pixel_of
from seewhy.targets.question import Open, Question, resolve
from seewhy.targets.ranked import Rank
from seewhy.targets.reading import HALF, OF_EACH
from seewhy.targets.walking import changed
from seewhy.types import Target, TargetError
from seewhy.wording import by, some

_COARSE = 8
"""Heads of detectors have a cell for so many pixels of the images along each axis, or for more; few segmenters have."""
_OF_BOXES = "ask Box(decode=...), a function from the output to seewhy.Candidates"


@dataclass(frozen=True, eq=False)
class Region:
    """Why is this part of the picture segmented so? The question of Seg-Grad-CAM, for every method.

        y = sum over the pixels p of the region of y_c(p)

    of the class's logits; of a model that puts out p or log p, log p of a softmax, which fades where the model is sure,
    and log-odds of a sigmoid (see `Logit`). The region is settled on the clean pass: where the class is predicted
    (the largest of the scores; of a single one, or where each class has its sigmoid, above 0 or p > 1/2), or the pixels
    that are given. Changed copies keep it; those that have the pixels elsewhere, such as flipped ones, keep it on the
    same parts of the picture.

    Identity: the regions of two disjoint masks add up to that of their union.

    Args:
        classes: c, by index or label, one for all images or one for each. None: the class that covers most of the
            region, or of the picture where no region is given; the background, if a label says so, only where there is
            nothing else.
        mask: bool, `(h w)` for all images or `(b h w)`, as large as the photos, as the images that the model is given,
            or as its output. An output pixel takes the mask's pixel under its middle: of images of s pixels, pixel j of
            g takes floor((j + 1/2) s / g), on every axis; of photos the one that comes to lie there.
        point: one pixel of the photo, as `Item.peak` tells it, or of the images where these were no photos: (y, x) from
            the top left, counted from 0; (z, y, x) in a volume.

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
        if self.mask is not None:
            mask_of(self.mask)
        if self.point is not None:
            pixel_of(self.point)

    def of(self, _scores: Float[Tensor, "b k"], question: Question, /) -> "Pixels":
        """The region for images with this clean output.

        Raises:
            TargetError: scores without places, an unknown class, a mask of another size, or a region without pixels.
        """
        scores = dense_scores(question)
        axes = len(question.size)
        alone = scores.shape[1] == 1 or question.squashed in OF_EACH
        threshold = HALF[question.squashed] if alone else None
        given = self._given(scores, question)
        predicted = claims(scores, threshold if given is None else None)
        covered = counted(predicted if given is None else predicted & given[:, None], axes)
        classes, note = self._classes(covered, question, tuple(scores.shape[2:]))
        mask = predicted[torch.arange(len(scores)), list(classes)] if given is None else given
        for image in question.asked:
            if not bool(mask[image].any()):
                raise TargetError(_nothing(question.label(classes[image]), image, covered[image], threshold, question))
        where = "" if given is None else self._where()
        told = Pixels(classes, mask, question.size, question.place, is_bare(question), question.squashed, where, note)
        return told if self.point is None else replace(told, point=pixel_of(self.point))

    def _given(self, scores: Float[Tensor, "b k *grid"], question: Question) -> Bool[Tensor, "b *grid"] | None:
        """The given pixels, on the output's grid."""
        grid = tuple(scores.shape[2:])
        if self.point is None and self.mask is None:
            return None
        given = torch.zeros(len(scores), *grid, dtype=torch.bool, device=scores.device)
        for image in question.asked:
            if self.point is not None:
                given[(image, *cell_under(pixel_of(self.point), question, image, grid))] = True
            else:
                given[image] = laid(mask_of(self.mask), question, image, grid)
        return given

    def _classes(self, covered: Tensor, question: Question, grid: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        """The class of each image, and a note where it was chosen."""
        labels = question.labels[1:] if question.of_two and question.labels else question.labels
        flat = replace(question, shape=tuple(covered.shape), labels=labels)
        if labels and len(labels) != flat.classes:
            raise TargetError(
                f"got {len(labels)} labels for an output of {flat.classes} classes; give one for each, or if it tells "
                f"of boxes and not of classes, {_OF_BOXES}"
            )
        if self.classes is not None:
            found = resolve(Logit(self.classes), flat, covered.float())
            return tuple(cast(int, class_of(found, image)) for image in range(question.images)), ""
        behind = [index for index in background(flat) if flat.classes > 1]
        others = covered.index_fill(1, torch.tensor(behind, dtype=torch.long, device=covered.device), 0)
        chosen = others.where(others.any(1, keepdim=True), covered).argmax(1).tolist()
        doubt = _doubt(flat, grid) if not behind and self.mask is None and self.point is None else ""
        return tuple(chosen), self._note(flat, behind) + doubt

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
            return f"the point {pixel_of(self.point)}"
        return "the image" if self.mask is None else "the mask"

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


def over_places(asked: Target | Open, question: Question) -> Target | Open:
    """A plain class of a dense output means its region, the predicted class the region of the largest."""
    return changed(asked, _over_places) if is_dense(question) else asked


def _over_places(asked: Target | Open) -> Target | Open:
    if isinstance(asked, Rank) and asked.place == 1:
        return Region()
    return Region(asked.classes) if isinstance(asked, ClassScore) and asked.kind == "score" else asked


def _doubt(question: Question, grid: tuple[int, ...]) -> str:
    """What is said where as few places have as many scores as in the heads of detectors: edges and a score, or more."""
    coarse = all(side >= _COARSE * cells for side, cells in zip(question.size, grid, strict=True))
    seems = coarse and question.classes > 4
    return f"; if the {by(grid)} places are a detector's, whose scores are no classes, {_OF_BOXES}" if seems else ""


def _nothing(name: str, image: int, covered: Tensor, threshold: float | None, question: Question) -> str:
    """Why a region is empty."""
    order = [index for index in covered.argsort(descending=True).tolist() if covered[index] > 0]
    total = covered.sum().clamp_min(1)
    named = some([f"{question.label(index)!r} ({float(covered[index] / total):.0%})" for index in order], 6)
    instead = f"predicted are {named}: ask for one of these, or" if order else f"no score is above {threshold:g}:"
    return f"no pixel of image {image} is predicted as {name!r}; {instead} say where by mask= or point="
