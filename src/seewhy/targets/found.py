"""A box of the clean pass, in the outputs of changed copies: known by its place there, or by its likeness."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.marks import Marks, Sight, box_to_photo
from seewhy.targets.abilities import Move
from seewhy.targets.detections import Candidates, Decode, Pick, decoded, overlaps
from seewhy.targets.question import Question
from seewhy.types import Rows, Scores, TargetError

Read = Literal["class", "objectness", "score", "x0", "y0", "x1", "y1"]
"""What of a box shall be explained."""
_EDGES = ("x0", "y0", "x1", "y1")
_WORDS: Mapping[Read, str] = {
    "class": "{}",
    "objectness": "objectness of {}",
    "score": "score of {}",
    "x0": "left edge of {}",
    "y0": "upper edge of {}",
    "x1": "right edge of {}",
    "y1": "lower edge of {}",
}
_MIXED = (1.0, -1.4, 1.7, -2.2, 2.6, 3.3, -4.1)
"""Weights of a sum of several readings: no two edges cancel, as x0 and x1 of a width would."""
_NEAR = 0.01
"""A detection of a copy whose edges are off by no more pixels is the very one of the clean pass."""


@runtime_checkable
class _Boxes(Protocol):
    """Settled boxes: one for each image that is asked about, what is read of them, and the images' size."""

    @property
    def picks(self) -> Mapping[int, Pick]: ...

    @property
    def read(self) -> Read: ...

    @property
    def size(self) -> tuple[int, ...]: ...

    @property
    def sights(self) -> tuple[Sight | None, ...]: ...


_Same = TypeVar("_Same", bound=_Boxes)


def _extent(self: _Boxes) -> Mapping[int, tuple[float, ...]]:
    """Height and width of each box, as far as it lies in the image."""
    height, width = self.size
    boxes = {image: pick.box for image, pick in self.picks.items()}
    return {n: (min(y1, height) - max(y0, 0), min(x1, width) - max(x0, 0)) for n, (x0, y0, x1, y1) in boxes.items()}


def _told(self: _Boxes, question: Question, image: int) -> str:
    """The box in words."""
    return _WORDS[self.read].format(self.picks[image].told(question, image)) if image in self.picks else "no box"


def _doubts(self: _Boxes, question: Question, _probabilities: Float[Tensor, "b k"]) -> Iterator[str]:
    """That a box is of a class without a label, where there are labels."""
    last = max((pick.label for pick in self.picks.values()), default=-1)
    if question.labels is not None and last >= len(question.labels):
        yield (
            f"a box is of class {last}, and labels= names {len(question.labels)} classes, 0 to "
            f"{len(question.labels) - 1}; give one for each that the model has, or all names may be wrong"
        )


def _photo(self: _Boxes, image: int) -> tuple[float, float]:
    """Where on the photo the edge 0 that is read lies, and how long a pixel of the image is there; 0 of no box."""
    if image not in self.picks:
        return 0.0, 0.0
    sight = self.sights[image] if self.sights else None
    start, end = (box_to_photo((edge,) * 4, sight, self.size)[_EDGES.index(self.read)] for edge in (0.0, 1.0))
    return start, end - start


def _marks(self: _Boxes, question: Question, image: int) -> Marks:
    """The box, on the photo."""
    if image not in self.picks:
        return Marks()
    box = self.picks[image].corners(question, image)
    return Marks(boxes=(box,), sight=question.sight(image), size=self.size)


def _moved(self: _Same, move: Move) -> _Same:
    """Itself, where changed copies have the image's pixels where they were.

    Raises:
        TargetError: they have them elsewhere.
    """
    pixels = torch.rand(1, *self.size, generator=torch.Generator().manual_seed(0)) < 0.5
    there = move(pixels)
    if there.shape != pixels.shape or not torch.equal(there.cpu(), pixels):
        raise TargetError(
            "a box is known by its place, and flipped or scaled copies have it elsewhere; take ensemble=Noise(), or "
            "none, and a method without flips and scales, such as 'hires_cam'"
        )
    return self


@dataclass(frozen=True)
class Kept:
    """Boxes of a head that puts out a number of candidates: on every copy the same candidate of the same class.

    Args:
        picks: the box of each image; images that are not asked about answer 0.
        read: what is read of it.
        size: of the images, (h, w).
        decode: from the output to its candidates.
        count: how many there are.
        sights: what the model sees of each image's photo: edges are read in the photo's pixels.
    """

    picks: Mapping[int, Pick]
    read: Read
    size: tuple[int, ...]
    decode: Decode
    count: int
    sights: tuple[Sight | None, ...] = ()

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """What is read of each row's box."""
        found = self._read(self._candidates(output), (self.read,), rows)
        if self.read not in _EDGES:
            return found
        start, step = torch.tensor([_photo(self, n) for n in cast(list[int], rows.tolist())]).to(found).T
        return start + step * found

    def whole(self, output: Any, rows: Rows) -> Scores:
        """A sum of all that the output tells of each row's box."""
        candidates = self._candidates(output)
        told = ("class", "score", *_EDGES, *(() if candidates.objectness is None else ("objectness",)))
        return self._read(candidates, cast(tuple[Read, ...], told), rows)

    extent, moved, told, marks, doubts = property(_extent), _moved, _told, _marks, _doubts

    def _candidates(self, output: Any) -> Candidates:
        found = decoded(self.decode, output)
        if found.boxes.shape[1] != self.count:
            raise TargetError(
                f"a changed copy has {found.boxes.shape[1]} candidates, the image {self.count}; a box is known by its "
                "place among them, so leave changes of the size out, such as Scales()"
            )
        return found

    def _read(self, found: Candidates, several: tuple[Read, ...], rows: Rows) -> Scores:
        images = cast(list[int], rows.tolist())
        known = [n in self.picks for n in images]
        picks = [self.picks.get(n, next(iter(self.picks.values()))) for n in images]
        at = torch.tensor([[j, pick.candidate, pick.label] for j, pick in enumerate(picks)], device=rows.device).T
        parts = [weight * self._number(found, each, at) for weight, each in zip(_MIXED, several, strict=False)]
        return cast(Tensor, sum(parts)) * torch.tensor(known, device=rows.device)

    def _number(self, found: Candidates, read: Read, at: Tensor) -> Scores:
        row, candidate, label = at
        if read in _EDGES:
            return found.pixels(self.size)[row, candidate, _EDGES.index(read)]
        if read == "objectness":
            return cast(Tensor, found.objectness)[row, candidate]
        return (found.scores if read == "class" else found.ranked())[row, candidate, label]


@dataclass(frozen=True)
class Matched:
    """Boxes of a model that puts out a list of what it found: on every copy the likest of the same class, see `Box`.

    Args:
        picks: the box of each image; images that are not asked about answer 0.
        read: what is read of it.
        size: of the images, (h, w).
        sights: as of `Kept`.
    """

    picks: Mapping[int, Pick]
    read: Read
    size: tuple[int, ...]
    sights: tuple[Sight | None, ...] = ()

    def __call__(self, output: Any, rows: Rows) -> Scores:
        """How well each row's box is found; or an edge of the likest detection."""
        images = cast(list[int], rows.tolist())
        return torch.stack([self._of(output[j], n) for j, n in enumerate(images)])

    def whole(self, output: Any, rows: Rows) -> Scores:
        """A sum of all that the output tells of each row's box, on the clean pass."""
        asked = [(j, self.picks[n]) for j, n in enumerate(cast(list[int], rows.tolist())) if n in self.picks]
        total = torch.stack([0 * of["scores"].sum() for of in output])
        for j, pick in asked:
            read = (*output[j]["boxes"][pick.candidate], output[j]["scores"][pick.candidate])
            mixed = cast(Tensor, sum(weight * part for weight, part in zip(_MIXED, read, strict=False)))
            total = total.index_add(0, torch.tensor([j], device=total.device), mixed[None])
        return total

    extent, moved, told, marks, doubts = property(_extent), _moved, _told, _marks, _doubts

    def _of(self, found: Mapping[str, Tensor], image: int) -> Float[Tensor, ""]:
        pick = self.picks.get(image)
        scores, nothing = found["scores"], 0 * found["scores"].sum()
        if pick is None:
            return nothing
        boxes, own = found["boxes"].detach(), found["labels"] == pick.label
        box = boxes.new_tensor([pick.box])
        same = ((boxes - box).abs() <= _NEAR).all(1)  # also without an area, where there is no IoU
        alike = torch.where(same, torch.ones_like(scores.detach()), overlaps(box, boxes)[0]) * own
        likeness = alike * scores.detach() + 2 * (same & own)
        best = int(likeness.argmax()) if len(scores) else 0
        lost = not len(scores) or float(likeness[best]) <= 0
        if self.read in _EDGES:
            if lost:
                raise TargetError(
                    f"on a changed copy the detector finds no such box any more, so it has no edge {self.read!r}; use "
                    "a method that goes by gradients, or read the 'class'"
                )
            start, step = _photo(self, image)
            return start + step * found["boxes"][best, _EDGES.index(self.read)]
        return nothing if lost else alike[best] * scores[best]
