"""Images larger than a model takes: a map of each tile, stitched to one of the whole image."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy import given
from seewhy.answer import answer
from seewhy.data.image import read
from seewhy.data.preprocess import Preprocess
from seewhy.data.windows import Size, Windows
from seewhy.explanation import Explanation
from seewhy.maps import Asked, asked
from seewhy.model.locate import LayerName
from seewhy.model.receptive import receptive_fields
from seewhy.model.run import Run
from seewhy.observation import Manner, observe
from seewhy.subject import Subject, subject
from seewhy.targets.classes import ClassScore, parse
from seewhy.targets.question import Open
from seewhy.targets.walking import leaves
from seewhy.tensor import chunked
from seewhy.types import LayerError, MapWarning, Path, ShapeError, Target, TargetError
from seewhy.wording import by
from seewhy.zoo import Loaded

_BLANK = "the map is zero everywhere; it says nothing about places"


@dataclass(frozen=True, eq=False, repr=False)
class Tiled:
    """The map of a whole image, made of those of its tiles.

    Args:
        whole: the explanation of the whole image. Its score is the mean of the tiles' scores, each weighed by the share
            of the image that it stands for; it has no maps of layers.
        starts: where each tile begins, in pixels along each axis.
        size: of a tile.
        scores: of the same question in each tile.
        shares: of the image that each tile stands for; they sum to 1.
    """

    whole: Explanation
    starts: Int[Tensor, "n axes"]
    size: Size
    scores: Float[Tensor, " n"]
    shares: Float[Tensor, " n"]

    @property
    def map(self) -> Float[Tensor, "*s"]:
        """The map of the whole image, raw units."""
        return self.whole.map[0]

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        return f"<Tiled: {len(self)} tiles of {by(self.size)}, {self.whole!r}>"


@dataclass(frozen=True)
class _Asking:
    """What is asked of each tile, and how."""

    question: Any
    way: Asked
    group: list[LayerName | None]
    manner: Manner

    def of(self, tiles: Subject) -> Explanation:
        """The explanation of some tiles."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MapWarning)  # that a tile is dark is no news
            try:
                return answer(tiles, [self.question], [self.way], [self.group], self.manner)[0]
            except LayerError as error:
                size = by(tiles.inputs.shape[2:])
                raise LayerError(f"of tiles of {size}, which size= and overlap= make: {error}") from error


def tiles(
    model: nn.Module | Loaded,
    image: Any,
    target: Any = None,
    method: str | Callable[..., Tensor] = "grad_cam",
    layer: LayerName | Sequence[LayerName] | None = None,
    *,
    size: int | Sequence[int] | None = None,
    overlap: float = 0.5,
    margin: int = 0,
    at_once: int = 4,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    rectify: bool | None = None,
    align: str = "measured",
    layout: str | None = None,
    output: str | int | Path | None = None,
    labels: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
) -> Tiled:
    """A map of an image that is larger than the model takes: those of overlapping tiles, stitched.

        map(p) = sum_i w_i(p) map_i(p),    sum_i w_i(p) = 1 at every pixel p

    where w_i falls linearly towards those sides of tile i that another one overlaps. Maps stay in the method's raw
    units: a tile without evidence stays dark. The question is the same in every tile: where none is asked, it is the
    class that the tiles predict together, by the mean of their scores, each weighed by its share of the image.

    Identity: of an image that is one tile, it is `explain`.

    Args:
        model: as in `explain`.
        image: one image as the model takes it, but larger: a tensor `(1 c h w)`, `(1 c l)` or `(1 c d h w)`; or a
            photo, of which a pixel becomes a pixel of the model's input: it is not resized.
        target: as in `explain`, but for questions that the scores of each tile would settle in another way.
        method: as in `explain`.
        layer: as in `explain`.
        size: of a tile in pixels, one number or one for each axis; None: what the model's preprocessing makes.
        overlap: of neighboring tiles at least, as a share of their length, from 0 to below 1.
        margin: pixels along a tile's inner sides that do not count, since what a network pads there is not the image;
            at most half of the overlap.
        at_once: how many tiles run together, and are in memory.
        args: as in `explain`.
        kwargs: as in `explain`.
        options: as in `explain`.
        rectify: as in `explain`.
        align: as in `explain`.
        layout: as in `explain`.
        output: as in `explain`.
        labels: as in `explain`.
        preprocess: how photos become inputs; its size is that of a tile.

    Returns:
        The map of the whole image, and the scores of the tiles.

    Raises:
        LayerError: a tile is so small that no layer has a grid of more than one cell.
        ShapeError: not one image, tiles that do not lie within it, or an overlap or margin that is none.
        TargetError: a question that each tile would settle in another way.
        SeewhyError: as `explain`.
    """
    manner = given.manner_of(align, layout, (), "mean", output)
    way = asked(given.method_of(method), given.options_of(options), rectify)
    how = preprocess or (model.preprocess if isinstance(model, Loaded) else None)
    image, whole_photo = _at_its_own_size(image, how)
    ready = subject(
        model,
        image,
        args=args,
        kwargs=given.keywords_of(kwargs),
        labels=given.labels_of(labels),
        preprocess=whole_photo,
    )
    windows = Windows.over(ready.inputs.shape[2:], _size(size, how, ready), overlap, margin)
    if at_once < 1:
        raise ShapeError(f"got at_once={at_once}; at least one tile runs at a time: give 1 or more")
    parts = _Parts(ready, windows, at_once)
    asking = _Asking(_question(target, parts, manner), way, given.layers_of(layer), manner)
    tiled = _stitched(parts, asking)
    if not tiled.map.any():
        warnings.warn(_BLANK, MapWarning, stacklevel=2)
    return tiled


@dataclass(frozen=True)
class _Parts:
    """The tiles of an image, made a few at a time, each with what else the model is given for the image."""

    whole: Subject
    windows: Windows
    at_once: int

    def __iter__(self) -> Iterator[Subject]:
        for some in chunked(len(self.windows), self.at_once):
            cut = torch.cat([self.whole.inputs[..., *place] for place in self.windows.places[some]])
            batch = self.whole.batch.of_rows(cut, self.whole.batch.rows.expand(len(cut)))
            yield replace(self.whole, batch=batch, pictures=(None,) * len(cut))


def _at_its_own_size(image: Any, how: Preprocess | None) -> tuple[Any, Preprocess | None]:
    """A photo with a preprocessing that leaves its pixels where they are; a tensor as it is."""
    if how is None or (isinstance(image, Tensor) and image.is_floating_point()):
        return image, how
    single: Any = image[0] if isinstance(image, list | tuple) and len(cast(Sequence[Any], image)) == 1 else image
    photo = read(single)
    return photo, replace(how, size=photo.size, fit="squash", resize=None)


def _size(size: int | Sequence[int] | None, how: Preprocess | None, ready: Subject) -> Size:
    if len(ready.inputs) != 1:
        raise ShapeError(f"got {len(ready.inputs)} images; tiles are cut from one: call it for each")
    if size is None and how is None:
        raise ShapeError("the size of a tile is not known; give size=, the pixels that the model takes")
    wanted = how.size if size is None and how is not None else size
    return (wanted,) * (ready.inputs.ndim - 2) if isinstance(wanted, int) else tuple(wanted or ())


def _question(target: Any, parts: _Parts, manner: Manner) -> Target | Open:
    """The question, the same for all tiles.

    Raises:
        TargetError: it would be another one in each tile.
    """
    if target is None:
        return ClassScore("score", _predicted(parts, manner))
    if isinstance(target, list | tuple):
        raise TargetError(f"got {len(target)} targets; tiles answer one question: call it for each")
    question = parse(target, 1)
    for part in leaves(question):
        if isinstance(part, Open) and not isinstance(part, ClassScore):
            raise TargetError(
                f"got {part!r}, which the output of each tile would settle in another way; name what is asked for in "
                "all of them, as in seewhy.Logit(3)"
            )
    return question


def _predicted(parts: _Parts, manner: Manner) -> int:
    """The class with the highest mean score of all tiles, each weighed by its share of the image."""
    total: Any = 0
    shares = parts.windows.shares.split(parts.at_once)
    for some, part in zip(shares, parts, strict=True):
        seen, _ = observe(part, set(), [], manner)
        if seen.question.path is None or len(seen.question.shape) > 2:
            raise TargetError(
                "no class can be predicted by all tiles together, as the output is not one score for each class; say "
                "what is asked: target="
            )
        total = total + some.to(seen.scores) @ seen.scores
    return int(total.argmax())


def _stitched(parts: _Parts, asking: _Asking) -> Tiled:
    """One map of the tiles' maps, which come a few at a time."""
    windows = parts.windows
    weighed = zip(windows.places, windows.weights, strict=True)
    explained = map(asking.of, parts)
    first = next(explained)
    canvas = first.map.new_zeros(parts.whole.inputs.shape[2:])
    scores: list[Tensor] = []
    for part in chain([first], explained):
        scores.append(part.scores)
        for tile, (place, weight) in zip(part.map, weighed, strict=False):
            canvas[place] += weight.to(tile) * tile
    told = torch.cat(scores)
    notes = _notes(parts, asking.manner, first)
    whole = replace(
        first,
        map=canvas[None],
        raw={},
        scores=(windows.shares.to(told) @ told)[None],
        target=first.target[:1],
        class_indices=first.class_indices[:1],
        probabilities=(None,),
        notes=notes if canvas.any() else (*notes, _BLANK),
        pictures=parts.whole.pictures,
        residual=None,
    )
    starts = torch.tensor([[along.start for along in place] for place in windows.places])
    return Tiled(whole, starts, windows.size, told, windows.shares)


def _notes(parts: _Parts, manner: Manner, first: Explanation) -> tuple[str, ...]:
    """What was told of the first tiles, but for what is about one of them; and what tiles do to the map."""
    count, size = len(parts.windows), parts.windows.size
    told = [note for note in first.notes if not note.startswith("image ")]
    plural = "s" * (count > 1)
    told.append(f"{count} tile{plural} of {by(size)}, stitched; the score is the mean of theirs, weighed by area")
    if count > 1 and first.layers:
        tile = next(iter(replace(parts, at_once=1)))
        trace = Run(tile.module, tile.batch, manner.output).trace()
        for layer in first.layers:
            fields = receptive_fields(trace.edge(layer)[0], trace.image, len(size)) or ()
            seen = [field.high - field.low + 1 for field in fields]
            if any(pixels > length for pixels, length in zip(seen, size, strict=False)):
                told.append(
                    f"a cell of layer {layer} could see {by(seen)} pixels, more than a tile's {by(size)}: larger "
                    "tiles, where the model takes them, let it see more of what is around"
                )
    return tuple(told)
