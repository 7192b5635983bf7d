"""Questions about a part of a segmentation: a class over the pixels where it is predicted, in a mask, at a point."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.marks import Marks, Sight, cell_of, is_fitted, on_grid, photo_size
from seewhy.nested import follow
from seewhy.targets.abilities import Move
from seewhy.targets.arguments import Class, classes_of
from seewhy.targets.arithmetic import ARITHMETIC
from seewhy.targets.classes import ClassScore, Logit, class_of
from seewhy.targets.dense import background, claims, counted, dense_scores, is_bare, is_dense, nearest
from seewhy.targets.question import Open, Question, Squashing, resolve
from seewhy.targets.ranked import Rank
from seewhy.targets.reading import fading, logits_of
from seewhy.targets.walking import changed
from seewhy.tensor import full
from seewhy.types import Path, Rows, Scores, Target, TargetError
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
        told = Pixels(classes, mask, question.size, question.place, is_bare(question), question.squashed, where, note)
        return told if self.point is None else replace(told, point=_whole(self.point))

    def _given(self, scores: Float[Tensor, "b k *grid"], question: Question) -> Bool[Tensor, "b *grid"] | None:
        """The given pixels, on the output's grid."""
        grid = tuple(scores.shape[2:])
        if self.point is None and self.mask is None:
            return None
        given = torch.zeros(len(scores), *grid, dtype=torch.bool, device=scores.device)
        for image in question.asked:
            if self.point is not None:
                given[(image, *_cell(_whole(self.point), question, image, grid))] = True
            else:
                given[image] = _laid(_tensor(self.mask), question, image, grid)
        return given

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

    def doubts(self, question: Question, _probabilities: Float[Tensor, "b k"]) -> Iterator[str]:
        """What stands for logits, and that it hardly has a gradient where the model is nearly sure of the region."""
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


def over_places(asked: Target | Open, question: Question) -> Target | Open:
    """A plain class of a dense output means its region, the predicted class the region of the largest."""
    return changed(asked, _over_places) if is_dense(question) else asked


def _over_places(asked: Target | Open) -> Target | Open:
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


def _axes(size: Sequence[int]) -> str:
    return {1: "(x,)", 3: "(z, y, x)"}.get(len(size), "(y, x)")


def _cell(point: tuple[int, ...], question: Question, image: int, grid: tuple[int, ...]) -> list[int]:
    """The output's pixel that a given one lies in."""
    sight, size = question.sight(image), question.size
    whole = photo_size(sight, size)
    if len(point) != len(whole) or not all(0 <= place < side for place, side in zip(point, whole, strict=True)):
        raise TargetError(
            f"got the point {point}; it has one whole number for each axis of {_pixels(question, image)}, "
            f"from {(0,) * len(whole)} to {tuple(side - 1 for side in whole)}: {_axes(whole)}, from the top left"
        )
    cell = cell_of(point, sight, size, grid)
    if cell is None:
        raise TargetError(f"the model does not see the point {point}{_seen(question, image)}; choose a point there")
    return cell


def _laid(mask: Tensor, question: Question, image: int, grid: tuple[int, ...]) -> Bool[Tensor, "*grid"]:
    """The output's pixels that a given mask has in one image."""
    sight, size = question.sight(image), question.size
    several, whole = mask.ndim == len(size) + 1, photo_size(sight, size)
    shape = tuple(mask.shape[several:])
    differ = "mark the photo's pixels; for photos of several sizes ask [Region(mask=one), Region(mask=other)]"
    way_out = differ if is_fitted(sight) else "resize it"
    if shape not in (whole, size, grid) or (several and len(mask) not in (1, question.images)):
        raise TargetError(
            f"got a mask of shape {tuple(mask.shape)}; it has the size of {_pixels(question, image)}, or of the "
            f"model's output, {by(grid)}, and if it has an axis of images, {question.images} of them: {way_out}"
        )
    own = mask[image if len(mask) > 1 else 0] if several else mask
    which = f" of image {image}" * several
    if not bool(own.any()):
        raise TargetError(f"the mask{which} holds no pixel; mark at least one, or leave mask= out")
    if shape != whole:
        return nearest(own[None], grid)[0]
    laid = on_grid(own, sight, size, grid)
    if not bool(laid.any()):
        raise TargetError(f"the model sees no pixel of the mask{which}{_seen(question, image)}; mark some there")
    return laid


def _pixels(question: Question, image: int) -> str:
    """What is given in pixels, and how many it has."""
    if not is_fitted(question.sight(image)):
        return f"the images of {by(question.size)} pixels"
    return f"the photo of {by(photo_size(question.sight(image), question.size))} pixels"


def _seen(question: Question, image: int) -> str:
    """What of the photo the model is given."""
    x0, y0, x1, y1 = (round(edge) for edge in cast(Sight, question.sight(image)).view)
    return (
        f": of {_pixels(question, image)} it is given rows {y0} to {y1 - 1} and columns {x0} to {x1 - 1}, made "
        f"{by(question.size)} pixels"
    )
