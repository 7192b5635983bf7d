"""What detectors put out: candidates, each with a box and scores, or a list for each image, after suppression."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.marks import Corners, box_to_photo
from seewhy.nested import tensors
from seewhy.targets.question import Question
from seewhy.types import ModelError, Path, TargetError

OVERLAP = 0.5
"""From this IoU on, the worse of two candidates of one class is no box of its own."""
_LISTED = 1000  # of raw heads, as many of the best candidates are looked at


@dataclass(frozen=True)
class Candidates:
    """What a detector says about all its candidates: always as many for images of one size, always in the same order.

    `Candidates.queries`, `Candidates.sigmoid_queries` and `Candidates.yolo` read usual outputs as such; a function of
    the output that returns these is one more `decode=` of `Box`.

    Args:
        boxes: x0, y0, x1, y1.
        scores: of each class, what shall be explained: logits where there are any.
        objectness: that there is something; None where the model does not tell.
        ranking: how the model ranks each candidate for each class, 0..1; None: scores times objectness.
        fractions: the boxes are fractions of the image, 0..1, not pixels of it as the model takes it.
        distinct: no two of them are about one object, as queries learn it; of others only the best counts.
    """

    boxes: Float[Tensor, "b n 4"]
    scores: Float[Tensor, "b n k"]
    objectness: Float[Tensor, "b n"] | None = None
    ranking: Float[Tensor, "b n k"] | None = None
    fractions: bool = False
    distinct: bool = False

    @staticmethod
    def queries(output: Any) -> "Candidates":
        """DETR and YOLOS: `logits` (b n k+1), whose last class is "no object" of a softmax, and `pred_boxes`."""
        logits = output["logits"]
        boxes = _corners(output["pred_boxes"])
        return Candidates(boxes, logits[..., :-1], None, logits.softmax(-1)[..., :-1], True, True)

    @staticmethod
    def sigmoid_queries(output: Any) -> "Candidates":
        """Deformable and conditional DETR, RT-DETR: `logits` (b n k), each class with its sigmoid, and `pred_boxes`."""
        logits = output["logits"]
        return Candidates(_corners(output["pred_boxes"]), logits, None, logits.sigmoid(), True, True)

    @staticmethod
    def yolo(output: Any, classes: int | None = None) -> "Candidates":
        """YOLOv8 and later: (b 4+k+m n), center and size in pixels, class probabilities; the first of nested tuples.

        What comes after the class probabilities (coefficients of a mask, keypoints, an angle) is left out.

        Args:
            output: as of Ultralytics' models in eval mode.
            classes: k; None: as many as the "scores" beside it have, and where there are none, all that follow.

        Raises:
            TargetError: a list of the best, which stand in another order for every image.
        """
        found, beside = output, _scores_beside(output)
        while isinstance(found, tuple | list):
            found = found[0]
        raw = cast(Tensor, found).transpose(1, 2)
        if beside is not None and beside.shape[2] != raw.shape[1]:
            raise TargetError(
                f"got boxes {tuple(found.shape)} of {beside.shape[2]} candidates: a list of the best, in another order "
                "for every image; have the model return all of them (Ultralytics: model.end2end = False)"
            )
        count = beside.shape[1] if classes is None and beside is not None else classes
        return Candidates(_corners(raw[..., :4]), raw[..., 4 : None if count is None else 4 + count])

    def ranked(self) -> Float[Tensor, "b n k"]:
        """How good each candidate is for each class.

        Raises:
            TargetError: that is no probability.
        """
        product = self.scores if self.objectness is None else self.scores * self.objectness[..., None]
        found = product if self.ranking is None else self.ranking
        low, high = float(found.detach().amin()), float(found.detach().amax())
        if not (low >= 0 and high <= 1):
            raise TargetError(
                f"the candidates rank from {low:.3g} to {high:.3g}; that is 0 to 1: where the class scores are logits, "
                "decode= returns their probabilities as the ranking= of its Candidates"
            )
        return found

    def pixels(self, size: Sequence[int]) -> Float[Tensor, "b n 4"]:
        """The boxes in pixels of images of this size (h, w)."""
        return self.boxes * self.boxes.new_tensor([size[1], size[0]] * 2) if self.fractions else self.boxes


Decode = Callable[[Any], Candidates]


@dataclass(frozen=True)
class Pick:
    """A box of the clean pass: where it stands in the output, its class, score, and x0, y0, x1, y1 in pixels."""

    candidate: int
    label: int
    score: float
    box: tuple[float, ...]

    def corners(self, question: Question, image: int) -> Corners:
        """Its edges on the photo, or on the image where this was no photo."""
        return box_to_photo(self.box, question.sight(image), question.size)

    def told(self, question: Question, image: int) -> str:
        """In words: `dog 0.92 at x 34-160 y 50-210`."""
        x0, y0, x1, y1 = (f"{edge:.0f}" for edge in self.corners(question, image))
        score = f"{self.score:.2f}" if self.score >= 0.005 else f"{self.score:.1g}"
        return f"{named(self.label, question)} {score} at x {x0}-{x1} y {y0}-{y1}"


@dataclass(frozen=True)
class Listed:
    """The boxes that a detector found in one image, best first; `candidates` says where each stands in the output."""

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    candidates: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.scores)

    def pick(self, place: int) -> Pick:
        """One of them."""
        box = tuple(cast(list[float], self.boxes[place].tolist()))
        return Pick(int(self.candidates[place]), int(self.labels[place]), float(self.scores[place]), box)

    def distances(self, point: tuple[float, float]) -> Float[Tensor, " n"]:
        """How far a point (row, column) is from each box, in pixels; 0 inside."""
        at = self.boxes.new_tensor([point[1], point[0]])
        return torch.maximum(self.boxes[:, :2] - at, at - self.boxes[:, 2:]).clamp_min(0).norm(dim=1)


def named(label: int, question: Question) -> str:
    """How a class is called: its first label, or its number."""
    known = question.labels is not None and 0 <= label < len(question.labels)
    return question.labels[label].split(",")[0] if known and question.labels else f"class {label}"


def is_list(output: Any) -> bool:
    """Whether it is a list with a dictionary of boxes, scores and labels for each image, as of torchvision."""
    listed = cast(Sequence[Any], output) if isinstance(output, tuple | list) else ()
    return bool(listed) and all(isinstance(e, Mapping) and {"boxes", "scores", "labels"} <= e.keys() for e in listed)


def is_detector(output: Any) -> bool:
    """Whether it is of a detector that `Box` reads by itself."""
    return is_list(output) or (isinstance(output, Mapping) and {"logits", "pred_boxes"} <= output.keys())


def scores_at(question: Question) -> Path:
    """Where scores are that are no detector's.

    Raises:
        ModelError: there are none.
        TargetError: they are of boxes.
    """
    if is_detector(question.output):
        raise TargetError(
            "this model is a detector, whose scores are of boxes; ask about one of them: Box() is the best, "
            "Box(label='dog') the best of a class, Box(point=(y, x)) the one at a place"
        )
    if question.path is None and _may_be_boxes(question.output):
        raise ModelError(
            f"{question.missing}; or if it tells of boxes, ask Box(decode=...), a function from the output to "
            "seewhy.Candidates, such as Candidates.yolo"
        )
    return question.place


def _may_be_boxes(output: Any) -> bool:
    """Whether somewhere in it stands what heads of detectors put out: a row of numbers for each of many candidates."""
    return any(tensor.ndim == 3 and min(tensor.shape[1:]) > 3 for _, tensor in tensors(output))


def decoder(output: Any, classes: int) -> Decode:
    """How candidates are read from an output of this form.

    Args:
        output: of the model.
        classes: how many the model has, 0 where that is not known; of as many logits, none is "no object".

    Raises:
        TargetError: it is of no detector that is known.
    """
    if isinstance(output, Mapping) and {"logits", "pred_boxes"} <= output.keys():
        several = "init_reference_points" in output or cast(Tensor, output["logits"]).shape[-1] == classes
        return Candidates.sigmoid_queries if several else Candidates.queries
    what = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    raise TargetError(
        f"a box was asked for, but the model returned {what}; that is a list of boxes, scores and labels for each "
        "image, or logits with pred_boxes: for a detector of another kind pass decode=, a function from the output to "
        "seewhy.Candidates, such as Candidates.yolo"
    )


def decoded(decode: Decode, output: Any) -> Candidates:
    """The candidates of an output.

    Raises:
        TargetError: the function does not take this output, or returns something else.
    """
    name = getattr(decode, "__name__", type(decode).__name__)
    try:
        found: Any = decode(output)
    except TargetError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise TargetError(f"decode={name} does not take this output ({error}); pass another function") from error
    if not isinstance(found, Candidates):
        raise TargetError(f"decode={name} returned {type(found).__name__}; return seewhy.Candidates")
    return found


def listed(output: Any, image: int) -> Listed:
    """What a list of dictionaries says about one image."""
    of = output[image]
    order = of["scores"].detach().argsort(descending=True, stable=True)
    return Listed(of["boxes"].detach()[order], of["scores"].detach()[order], of["labels"][order], order)


def standing(candidates: Candidates, size: Sequence[int], image: int, threshold: float) -> Listed:
    """The candidates of one image that rank this high for their best class, without those that overlap a better one."""
    scores, labels = candidates.ranked()[image].detach().max(-1)
    order = scores.argsort(descending=True, stable=True)[:_LISTED]
    order = order[scores[order] >= threshold]
    boxes = candidates.pixels(size)[image].detach()[order]
    if candidates.distinct:
        return Listed(boxes, scores[order], labels[order], order)
    alike = (labels[order][:, None] == labels[order]) & (overlaps(boxes, boxes) > OVERLAP)
    kept: list[int] = []
    for place in range(len(order)):
        if not bool(alike[place, kept].any()):
            kept.append(place)
    order = order[kept]
    return Listed(boxes[kept], scores[order], labels[order], order)


def overlaps(some: Float[Tensor, "n 4"], others: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """The intersection over union of each of some boxes with each of others; 0 where both have no area."""
    low = torch.maximum(some[:, None, :2], others[None, :, :2])
    high = torch.minimum(some[:, None, 2:], others[None, :, 2:])
    common = (high - low).clamp_min(0).prod(-1)
    union = _areas(some)[:, None] + _areas(others)[None] - common
    return common / union.clamp_min(torch.finfo(some.dtype).tiny)


def _areas(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    return (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(-1)


def _corners(boxes: Float[Tensor, "b n 4"]) -> Float[Tensor, "b n 4"]:
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), -1)


def _scores_beside(output: Any) -> Tensor | None:
    """The raw scores (b k n) that stand somewhere beside the decoded boxes."""
    if isinstance(output, Mapping):
        named = cast(Mapping[str, Any], output)
        return named["scores"] if "scores" in named else _scores_beside(list(named.values()))
    parts = cast(Sequence[Any], output) if isinstance(output, tuple | list) else ()
    return next((found for part in parts if (found := _scores_beside(part)) is not None), None)
