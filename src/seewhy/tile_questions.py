"""One question for all tiles of an image: it is settled once, for the whole image, or alike in every tile."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from seewhy.data.windows import Windows
from seewhy.ensemble import Undo, forth
from seewhy.marks import Marks
from seewhy.observation import Manner, Observation, observe
from seewhy.stitching import Parts, Question, of_tiles
from seewhy.subject import Subject
from seewhy.targets.abilities import Fixed
from seewhy.targets.box import Box
from seewhy.targets.classes import ClassScore, describe, parse
from seewhy.targets.dense import dense_scores, is_bare, is_dense
from seewhy.targets.marked import marked
from seewhy.targets.question import Open, resolve
from seewhy.targets.question import Question as Known
from seewhy.targets.region import Pixels, Region, over_places
from seewhy.targets.walking import changed, leaves, moved
from seewhy.types import Target, TargetError

_LONGEST = 100
"""Of a question as it is written in an error; what is longer goes by its name."""


@dataclass(frozen=True)
class Posed:
    """The question of all tiles.

    Args:
        target: of the whole image if it is about places, else as it was asked.
        title: in words, where these are the whole image's.
        marks: what is asked about in the image, where that is a part of it.
        cells: the share of an output's cells in a tile's pixels, where the question is about places.
    """

    target: Target | Open
    title: str = ""
    marks: Marks = field(default_factory=Marks)
    cells: float = 1.0

    def of(self, parts: Parts, undo: Undo | None) -> Question:
        """The question of some tiles of the image, or of a changed copy of it."""
        if not self.title:
            return lambda _some: self.target
        target = cast(Target, self.target)
        if undo is None:
            return lambda some: _part(target, parts.windows, some, self.cells)
        there = moved(target, forth(undo, parts.whole.inputs.shape[2:]))
        return lambda some: _part(there, parts.windows, some, self.cells)


def posed(target: Any, parts: Parts, manner: Manner) -> Posed:
    """The question, settled where tiles would settle it in different ways.

    Raises:
        TargetError: it would be another one in each tile.
    """
    if isinstance(target, list | tuple):
        raise TargetError(f"got {len(target)} targets; tiles answer one question: call it for each")
    known = _seen(parts.of(slice(0, 1)), manner).question
    if target is None and not is_dense(known):
        return Posed(ClassScore("score", _predicted(parts, manner, known)))
    asked = over_places(Region() if target is None else parse(target, 1), known)
    places = [isinstance(part, Region) for part in leaves(asked)]
    for part, is_place in zip(leaves(asked), places, strict=True):
        if isinstance(part, Open) and not is_place and not (isinstance(part, Fixed) and part.fixed):
            raise TargetError(_not_fixed(part))
    return _over_the_whole(asked, parts, manner, known) if any(places) else Posed(asked)


def _seen(tiles: Subject, manner: Manner) -> Observation:
    """What the model puts out for some tiles."""
    with of_tiles(tiles):
        return observe(tiles, set(), [], replace(manner, ensemble=()))[0]


def _not_fixed(part: Open) -> str:
    if isinstance(part, Box):
        return (
            "got a box, which is found anew in each tile, and cut in two where a tile ends; explain the part of the "
            "image around it by seewhy.explain"
        )
    what = repr(part) if len(repr(part)) <= _LONGEST else type(part).__name__
    return (
        f"got {what}, which the output of each tile would settle in another way; name what is asked for in all of "
        "them, as in seewhy.Logit(3), or seewhy.Logit(3) - seewhy.Logit(5)"
    )


def _predicted(parts: Parts, manner: Manner, known: Known) -> int:
    """The class with the highest mean score of all tiles, each weighed by its share of the image."""
    if known.path is None or len(known.shape) > 2:
        raise TargetError(
            "no class can be predicted by all tiles together, as the output is not one score for each class; say what "
            "is asked: target="
        )
    total: Any = 0
    for some, tiles in parts:
        scores = _seen(tiles, manner).scores
        total = total + parts.windows.shares[some].to(scores) @ scores
    return int(total.argmax())


def _over_the_whole(asked: Target | Open, parts: Parts, manner: Manner, known: Known) -> Posed:
    """A question about places, settled on the stitched scores of all tiles, which are the whole image's prediction."""
    grid, size = dense_scores(known).shape[2:], parts.cut.size
    stitched = _stitched_scores(parts, manner)
    whole = replace(
        known,
        path=(),
        shape=tuple(stitched.shape),
        output=stitched,
        size=tuple(stitched.shape[2:]),
        sights=parts.whole.sights,
    )
    settled = _placed(resolve(asked, whole, stitched.flatten(1)), known)
    return Posed(
        settled, describe(settled, whole, 0), marked(settled, whole, 0), grid.numel() / torch.Size(size).numel()
    )


def _stitched_scores(parts: Parts, manner: Manner) -> Float[Tensor, "1 k *s"]:
    """The tiles' scores at every pixel of the image, weighed as their maps are; an output's cell fills its pixels."""
    canvas: Tensor | None = None
    weighed = zip(parts.windows.places, parts.windows.weights, strict=True)
    for _, tiles in parts:
        scores = dense_scores(_seen(tiles, manner).question)
        if canvas is None:
            canvas = scores.new_zeros(1, scores.shape[1], *parts.whole.inputs.shape[2:])
        for tile, (place, weight) in zip(scores, weighed, strict=False):
            laid = interpolate(tile[None], parts.cut.size, mode="nearest-exact")[0]
            canvas[0][:, *place] += weight.to(laid) * laid
    return cast(Tensor, canvas)


def _placed(target: Target, known: Known) -> Target:
    """The same target, read where the tiles have their scores."""
    return cast(Target, changed(target, lambda leaf: _read_at(leaf, known)))


def _read_at(leaf: Target | Open, known: Known) -> Target | Open:
    return replace(leaf, path=known.place, bare=is_bare(known)) if isinstance(leaf, Pixels) else leaf


def _part(target: Target, windows: Windows, some: slice, cells: float) -> Target:
    """What some tiles have of the pixels that a question is about; a tile without any has the score 0."""

    def cut(pixels: Target | Open) -> Target | Open:
        if not isinstance(pixels, Pixels):
            return pixels
        own = torch.stack([pixels.mask[0][place] for place in windows.places[some]])
        rate = cells * (pixels.count[0] / max(int(pixels.mask.sum()), 1) if pixels.count else 1)
        counts: list[int] = own.flatten(1).sum(1).tolist()
        return replace(
            pixels,
            classes=pixels.classes * len(own),
            mask=own,
            size=windows.size,
            count=tuple(max(1, round(count * rate)) for count in counts),
        )

    return cast(Target, changed(target, cut))
