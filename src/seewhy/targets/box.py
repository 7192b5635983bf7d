"""Why is this box there? A question about one box of a detector, settled on the clean pass."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from numbers import Real
from operator import index
from typing import Any, SupportsIndex, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.labels import find_label
from seewhy.marks import photo_size, to_input
from seewhy.targets.arguments import plain
from seewhy.targets.arithmetic import ARITHMETIC
from seewhy.targets.detections import Decode, Listed, Pick, decoded, decoder, is_list, listed, named, standing
from seewhy.targets.found import Kept, Matched, Read
from seewhy.targets.question import Question
from seewhy.types import TargetError
from seewhy.wording import by, some


@dataclass(frozen=True)
class Box:
    """Why is this box there, and why is it called so? A box is chosen on the clean pass, and stays that one.

    Without `index`, `point` and `label` it is the best of all. On changed copies of the image, heads that put out a
    number of candidates keep this candidate. Models that end in suppression (lists of boxes, scores and labels) are
    asked how well they still find it, and answer 0 where they do not:

        max over the copy's detections d of the same class of  IoU(d, box) score_d

    Identity: on the clean pass that is the box's own score, and only the score has a gradient, not the IoU.

    Args:
        index: its place among the model's boxes, 0 the best. Of the candidates of raw heads that overlap by an IoU over
            .5, the best of a class counts alone.
        point: (row, column) in pixels of the photo, or of the images where these were no photos; the best box that
            holds it.
        label: a class by index or label; the best box of that class.
        read: what shall be explained: the score of its `class` (the logit where the output has it), its `objectness`,
            the `score` by which the model ranks, or one of its edges `x0`, `y0`, `x1`, `y1`, in pixels,
            as `point`.
        decode: for raw heads, a function from the output to `Candidates`; None: lists of dictionaries (torchvision),
            and `logits` with `pred_boxes` (DETR, YOLOS) are read by themselves.
        threshold: of candidates, what ranks less is no box. Lists hold what the model itself lets pass.

    Raises:
        TargetError: two ways to choose at once, or an argument of another kind.

    Reference:
        Petsiuk et al., Black-box Explanation of Object Detectors via Saliency Maps (D-RISE), CVPR 2021,
        arXiv:2006.03204, equation 2. Lists tell no probabilities of other classes, so that the similarity of classes is
        1 for the same class, else 0. A detection with the very same box is taken, even if a better one overlaps it.
    """

    index: SupportsIndex | None = None
    point: tuple[float, float] | None = None
    label: SupportsIndex | str | None = None
    read: Read = "class"
    decode: Decode | None = None
    threshold: float = 0.25

    def __post_init__(self) -> None:
        for name in ("index", "point", "label", "threshold"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        ways = {"index": self.index, "point": self.point, "label": self.label}
        given = [f"{name}={value!r}" for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise TargetError(f"got {' and '.join(given)}; a box is chosen in one way: leave the others out")
        for name, number in (("index", self.index), ("threshold", self.threshold)):
            if number is not None and not _is_number(number, whole=name == "index"):
                raise TargetError(f"{name} is {number!r}; it is a number from 0 on")
        if self.point is not None and not _is_point(self.point):
            raise TargetError(f"point is {self.point!r}; it is a row and a column in pixels: point=(120, 80)")
        if isinstance(self.label, bool) or not isinstance(cast(object, self.label), int | str | None):
            raise TargetError(f"label is {self.label!r}; it is the index of a class, or its label")
        if self.read not in get_args(Read):
            raise TargetError(f"read is {self.read!r}; choose one of {', '.join(map(repr, get_args(Read)))}")
        if self.decode is not None and not callable(self.decode):
            raise TargetError(f"decode is {self.decode!r}; it is a function from the output to seewhy.Candidates")

    @property
    def sees(self) -> bool:
        """Whether what it reads depends on what the images show: its layers are then found on these, not on noise."""
        return True

    @property
    def prefers(self) -> str:
        """HiResCAM: a box is read at few places, and methods that weigh whole channels show what else these see."""
        return "hires_cam"

    def of(self, _scores: Float[Tensor, "b k"], question: Question, /) -> Kept | Matched:
        """The box in each image, as a target.

        Raises:
            TargetError: the output is of no detector, has no such box, or no such number of it.
        """
        if self.decode is None and is_list(question.output):
            if self.read == "objectness":
                raise TargetError("a list of boxes tells no objectness; read 'class', or an edge such as 'x0'")
            lists = {n: listed(question.output, n) for n in question.asked}
            return Matched(
                {n: self._picked(of, n, question) for n, of in lists.items()}, self.read, question.size, question.sights
            )
        decode = self.decode or decoder(question.output, question.stated or len(question.labels or ()))
        candidates = decoded(decode, question.output)
        if self.read == "objectness" and candidates.objectness is None:
            raise TargetError("this model tells no objectness; read 'class', 'score', or an edge such as 'x0'")
        if len(candidates.boxes) != question.images:
            raise TargetError(f"decode= returned boxes of {len(candidates.boxes)} images; here are {question.images}")
        found = {n: standing(candidates, question.size, n, self.threshold) for n in question.asked}
        for n, of in found.items():
            if not len(of):
                best = float(candidates.ranked()[n].detach().max())
                raise TargetError(
                    f"image {n}: no box ranks {self.threshold:g} or more, the best {best:.2g}; choose another image, "
                    "or lower threshold="
                )
        picks = {n: self._picked(of, n, question) for n, of in found.items()}
        return Kept(picks, self.read, question.size, decode, candidates.boxes.shape[1], question.sights)

    def _picked(self, found: Listed, image: int, question: Question) -> Pick:
        """The box that is asked for among those of one image."""
        fits = self._fitting(found, question, image)
        wanted = index(self.index or 0)
        if wanted >= len(fits):
            raise TargetError(f"image {image}: {self._missing(found, question, image)}")
        return found.pick(fits[wanted])

    def _fitting(self, found: Listed, question: Question, image: int) -> list[int]:
        """The places of those that may be meant, best first."""
        fits = torch.ones(len(found), dtype=torch.bool, device=found.boxes.device)
        if self.label is not None:
            fits = found.labels == _class(self.label, question)
        if self.point is not None:
            fits = self._distances(found, question, image) == 0
        return cast(list[int], fits.nonzero()[:, 0].tolist())

    def _distances(self, found: Listed, question: Question, image: int) -> Float[Tensor, " n"]:
        """How far the point that was asked for is from each box, in the model's pixels; 0 inside."""
        point, whole = cast(tuple[float, float], self.point), photo_size(question.sight(image), question.size)
        if any(place > side for place, side in zip(point, whole, strict=True)):
            raise TargetError(
                f"image {image}: the point {self.point} lies outside of its {by(whole)} pixels; a point is (row, "
                "column), from the top left"
            )
        row, column = to_input(point, question.sight(image), question.size)
        return found.distances((row, column))

    def _missing(self, found: Listed, question: Question, image: int) -> str:
        if not len(found):
            return "the detector found no box at all; choose another image, or lower the detector's own threshold"
        order, nearest = range(len(found)), ""
        if self.point is not None:
            distances = cast(list[float], self._distances(found, question, image).tolist())
            order, nearest = sorted(order, key=lambda place: distances[place]), ", the nearest first"
            of = photo_size(question.sight(image), question.size)
            what = f"no box holds the point {self.point} (row, column) of {by(of)} pixels"
        elif self.label is not None:
            what = f"no box is called {named(_class(self.label, question), question)!r}"
        else:
            what = f"there is no box {self.index}, they are counted from 0"
        told = [f"{place}: {found.pick(place).told(question, image)}" for place in order]
        return f"{what}; choose one of these {len(found)}{nearest}: {some(told, 5)}"

    __add__, __radd__, __sub__, __rsub__, __neg__, __mul__, __rmul__, __truediv__ = ARITHMETIC


def _class(label: SupportsIndex | str, question: Question) -> int:
    if not isinstance(label, str):
        return index(label)
    if question.labels is None:
        raise TargetError(f"got the label {label!r}, but this model comes without labels; pass labels=, or an index")
    return find_label(question.labels, label)


def _is_number(given: Any, *, whole: bool = False) -> bool:
    kind = int if whole else Real
    return isinstance(given, kind) and not isinstance(given, bool) and 0 <= cast(float, given) < inf


def _is_point(given: Any) -> bool:
    listed = cast(Iterable[Any], given) if isinstance(given, tuple | list) else ()
    return [_is_number(each) for each in listed] == [True, True]
