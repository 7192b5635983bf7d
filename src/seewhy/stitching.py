"""The tiles of an image, a few at a time, and their raw maps stitched; scaled and fused over the whole image."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.answer import answer
from seewhy.data.windows import Cut, Windows
from seewhy.ensemble import Running, Undo, changed, fuse
from seewhy.explanation import Explanation
from seewhy.maps import Asked, asked
from seewhy.model.places import LayerName
from seewhy.observation import Manner
from seewhy.subject import Subject
from seewhy.tensor import chunked
from seewhy.types import LayerError, MapWarning, MethodError, ModelError, Scores
from seewhy.wording import by

Map = Float[Tensor, "b *s"]


@dataclass(frozen=True)
class Parts:
    """The tiles of an image, made a few at a time, each with what else the model is given for the image."""

    whole: Subject
    cut: Cut
    at_once: int

    @cached_property
    def windows(self) -> Windows:
        """Where the tiles are."""
        return self.cut.over(self.whole.inputs.shape[2:])

    def __iter__(self) -> Iterator[tuple[slice, Subject]]:
        return ((some, self.of(some)) for some in chunked(len(self.windows), self.at_once))

    def of(self, some: slice) -> Subject:
        """Some of the tiles."""
        cut = torch.cat([self.whole.inputs[..., *place] for place in self.windows.places[some]])
        batch = self.whole.batch.of_rows(cut, self.whole.batch.rows.expand(len(cut)))
        return replace(self.whole, batch=batch, pictures=(None,) * len(cut))

    def changed(self, inputs: Float[Tensor, "1 c *s"]) -> "Parts":
        """The tiles of a changed copy of the image, as large on it as these are on the image."""
        cut = self.cut.scaled(self.whole.inputs.shape[2:], inputs.shape[2:])
        return Parts(replace(self.whole, batch=self.whole.batch.of(inputs)), cut, self.at_once)


Question = Callable[[slice], Any]
"""What is asked of some of the tiles, by their numbers."""


@dataclass(frozen=True)
class Asking:
    """How tiles are asked: a method, its layers, and the manner."""

    way: Asked
    group: list[LayerName | None]
    manner: Manner

    @property
    def changes(self) -> Sequence[Any]:
        """The changes of the image that the map is taken over."""
        return self.manner.ensemble or self.way.method.ensemble

    def of(self, tiles: Subject, question: Any) -> Explanation:
        """The explanation of some tiles, as `explain` would have it."""
        return answered(tiles, question, [self.way], [self.group], self.manner)[0]

    def alone(self) -> "Asking":
        """The same of the images themselves, without an ensemble."""
        method = replace(self.way.method, ensemble=())
        return replace(self, way=replace(self.way, method=method), manner=replace(self.manner, ensemble=()))

    def pieces(self, layers: Sequence[str]) -> tuple[list[Asked], list[list[LayerName | None]], list[int]]:
        """Methods and layers whose raw maps the map is made of, and which of their products these are, layer by layer.

        Raises:
            MethodError: the method scales its map by what is in a tile.
        """
        method = self.way.method
        each: list[list[LayerName | None]] = [[layer] for layer in layers]
        if method.layered:
            last, finer = (asked(formula, {}) for formula in (method.layered.last, method.layered.finer))
            return [finer, last], each, [*range(len(each) - 1), 2 * len(each) - 1]
        if method.relative or method.batchwise:
            why = "depends on which tiles run together" if method.batchwise else "is scaled by what is in a tile"
            raise MethodError(
                f"the map of {method.name} {why}, so that one without evidence would shine like any other; take "
                "hires_cam, whose tiles have one unit, or sharp, which is scaled over the whole image"
            )
        if self.way.together or len(each) < 2:
            return [self.way], [self.group], [0]
        return [self.way], each, list(range(len(each)))

    def joined(self, maps: Sequence[Map]) -> Map:
        """The stitched maps of all layers as one."""
        method = self.way.method
        if method.layered:
            return method.layered.joined(maps)
        return maps[0] if len(maps) == 1 else fuse(maps, method.fusion)


def stitched(
    parts: Parts, question: Callable[[Parts, Undo | None], Question], asking: Asking, layers: Sequence[str]
) -> tuple[Map, Scores]:
    """The map of the whole image, and each tile's score; of an ensemble, of changed copies of the whole image.

    Args:
        parts: its tiles.
        question: of these, or of those of a changed copy, from the way back of its map.
        asking: how they are asked.
        layers: what the method looks at by itself, shallow to deep.
    """
    clean = question(parts, None)
    if not asking.changes:
        return _joined(parts, clean, asking, layers)
    running = Running(asking.manner.combine)
    for inputs, undo in changed(parts.whole.inputs, asking.changes):
        copy = parts.changed(inputs)
        running.add(undo(_joined(copy, question(copy, undo), asking.alone(), layers)[0]))
    plain, manner = asked(_nothing, {}), asking.alone().manner
    scored = [answered(tiles, clean(some), [plain], [[None]], manner)[0].scores for some, tiles in parts]
    return running.result(), torch.cat(scored)


def _nothing(inputs: Float[Tensor, "b c *s"]) -> Float[Tensor, "b *s"]:
    """A map that costs nothing, where scores alone are wanted."""
    return torch.zeros_like(inputs[:, 0])


def _joined(parts: Parts, question: Question, asking: Asking, layers: Sequence[str]) -> tuple[Map, Scores]:
    """The map of all tiles: layer by layer raw and stitched, and then made one; with their scores."""
    ways, groups, which = asking.pieces(layers)
    canvases: list[Tensor] = []
    scores: list[Tensor] = []
    weighed = zip(parts.windows.places, parts.windows.weights, strict=True)
    for some, tiles in parts:
        found = answered(tiles, question(some), ways, groups, asking.manner)
        maps = [found[number].map for number in which]
        scores.append(found[0].scores)
        canvases = canvases or [map.new_zeros(1, *parts.whole.inputs.shape[2:]) for map in maps]
        for tile, (place, weight) in zip(range(len(tiles.inputs)), weighed, strict=False):
            for canvas, map in zip(canvases, maps, strict=True):
                canvas[0][place] += weight.to(map) * map[tile]
    return asking.joined(canvases), torch.cat(scores)


def answered(
    tiles: Subject,
    question: Any,
    ways: Sequence[Asked],
    groups: Sequence[Sequence[LayerName | None]],
    manner: Manner,
) -> list[Explanation]:
    """The explanations of some tiles.

    Raises:
        SeewhyError: as `of_tiles`.
    """
    with warnings.catch_warnings(), of_tiles(tiles):
        warnings.simplefilter("ignore", MapWarning)  # that a tile is dark is no news
        return answer(tiles, [question], ways, groups, manner)


@contextmanager
def of_tiles(tiles: Subject) -> Iterator[None]:
    """Says that it is tiles that do not fit, and what makes them.

    Raises:
        LayerError: no layer has a grid of more than one cell for tiles of this size.
        ModelError: the model does not run on them.
    """
    try:
        yield
    except (LayerError, ModelError) as error:
        size = by(tiles.inputs.shape[2:])
        raise type(error)(f"of tiles of {size}, which size= and overlap= make: {error}") from error
