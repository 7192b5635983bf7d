"""Images larger than a model takes: a map of each tile, stitched to one of the whole image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy import given
from seewhy.answer import about_heat, warned
from seewhy.data.image import read
from seewhy.data.preprocess import Preprocess
from seewhy.data.windows import Cut, Size, size_of
from seewhy.ensemble import Change
from seewhy.explanation import Explanation
from seewhy.labels import Labels
from seewhy.maps import IMAGE, asked, blanks
from seewhy.model.choice import starved
from seewhy.model.places import LayerName
from seewhy.model.receptive import receptive_fields
from seewhy.model.run import Run
from seewhy.model.trace import Trace
from seewhy.observation import Manner
from seewhy.stitching import Asking, Parts, stitched
from seewhy.subject import Subject, subject
from seewhy.tile_questions import Posed, posed
from seewhy.types import LayerError, Path, ShapeError
from seewhy.wording import by
from seewhy.zoo import Loaded


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
        """The map of the whole image, in the units of `whole`."""
        return self.whole.map[0]

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        return f"<Tiled: {len(self)} tiles of {by(self.size)}, {self.whole!r}>"


def tiles(
    model: nn.Module | Loaded,
    image: Any,
    target: Any = None,
    method: str | Callable[..., Tensor] | None = None,
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
    ensemble: Change | Sequence[Change] = (),
    combine: str = "mean",
    output: str | int | Path | None = None,
    labels: Labels | None = None,
    preprocess: Preprocess | None = None,
) -> Tiled:
    """A map of an image that is larger than the model takes: those of overlapping tiles, stitched.

        map(p) = sum_i w_i(p) map_i(p),    sum_i w_i(p) = 1 at every pixel p

    where w_i falls linearly towards those sides of tile i that another one overlaps. Maps stay in the method's raw
    units: a tile without evidence stays dark. What is scaled (several layers, `sharp`, `best`) is scaled once stitched,
    over the whole image. The question is the same in every tile: where none is asked, it is the class that the tiles
    predict together, by the mean of their scores, each weighed by its share of the image. A region of a segmentation is
    that of the whole image; a tile that has nothing of it has a map and a score of 0.

    Identity: of an image that is one tile, it is `explain`.

    Args:
        model: as in `explain`.
        image: one image as the model takes it, but larger: a tensor `(1 c h w)`, `(1 c l)` or `(1 c d h w)`; or a
            photo, of which a pixel becomes a pixel of the model's input: it is not resized.
        target: as in `explain`, but for questions that the scores of each tile would settle in another way, such as
            `Rank(2)` and `Box()`. Points and masks of a `Region` are those of the whole image.
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
        ensemble: as in `explain`; of changed copies of the whole image, each cut into tiles.
        combine: as in `explain`.
        output: as in `explain`.
        labels: as in `explain`.
        preprocess: how photos become inputs; its size is that of a tile.

    Returns:
        The map of the whole image, and the scores of the tiles.

    Raises:
        LayerError: a tile is so small that no layer has a grid of more than one cell.
        MethodError: a method that scales its map by what is in a tile.
        ShapeError: not one image, tiles that do not lie within it, or an overlap or margin that is none.
        TargetError: a question that each tile would settle in another way.
        SeewhyError: as `explain`.
    """
    manner = given.manner_of(align, layout, ensemble, combine, output)
    way = asked("grad_cam" if method is None else given.method_of(method), given.options_of(options), rectify)
    how = preprocess or (model.preprocess if isinstance(model, Loaded) else None)
    image, whole_photo = _at_its_own_size(image, how)
    keywords, names = given.keywords_of(kwargs), given.labels_of(labels)
    ready = subject(model, image, args=args, kwargs=keywords, labels=names, preprocess=whole_photo)
    if len(ready.inputs) != 1:
        raise ShapeError(f"got {len(ready.inputs)} images; tiles are cut from one: call it for each")
    if not isinstance(cast(object, at_once), int) or at_once < 1:
        raise ShapeError(f"got at_once={at_once!r}; at least one tile runs at a time: give 1 or more")
    parts = Parts(ready, Cut(_size(size, how, ready.inputs.ndim - 2), overlap, margin), at_once)
    return _tiled(parts, posed(target, parts, manner), Asking(way, given.layers_of(layer), manner))


def _at_its_own_size(image: Any, how: Preprocess | None) -> tuple[Any, Preprocess | None]:
    """A photo with a preprocessing that leaves its pixels where they are; a tensor as it is."""
    if how is None or (isinstance(image, Tensor) and image.is_floating_point()):
        return image, how
    single: Any = image[0] if isinstance(image, list | tuple) and len(cast(Sequence[Any], image)) == 1 else image
    photo = read(single)
    return photo, replace(how, size=photo.size, fit="squash", resize=None)


def _size(size: Any, how: Preprocess | None, axes: int) -> Size:
    if size is None and (how is None or how.size is None):
        raise ShapeError("the size of a tile is not known; give size=, the pixels that the model takes")
    return size_of(how.size if size is None and how is not None else size, axes)


def _tiled(parts: Parts, question: Posed, asking: Asking) -> Tiled:
    """One map of the tiles' maps, and what the first of them tells about all."""
    one, alone = slice(0, 1), len(parts.windows) == 1
    first = asking.of(parts.of(one), question.of(parts, None)(one))
    trace = _trace(parts.of(one), asking.manner) if first.layers and not alone else None
    if trace and asking.group == [None]:
        _check_grid(trace, parts.cut.size)
    map, scores = (first.map, first.scores) if alone else stitched(parts, question.of, asking, first.layers)
    heat = about_heat(blanks({IMAGE: map[None]}, {}, first.method)[0][0], map[0], asking.way)
    notes = dict.fromkeys((*_notes(parts, trace, first), *(warned(f"image 0: {what}") for what in heat)))
    whole = replace(
        first,
        map=map,
        raw=first.raw if alone else {},
        scores=(parts.windows.shares.to(scores) @ scores)[None],
        target=(question.title,) if question.title else first.target,
        probabilities=first.probabilities if alone else (None,),
        notes=tuple(notes),
        pictures=parts.whole.pictures,
        asked=(question.marks,),
        residual=first.residual if alone else None,
    )
    starts = torch.tensor([[along.start for along in place] for place in parts.windows.places])
    return Tiled(whole, starts, parts.cut.size, scores, parts.windows.shares)


def _trace(tile: Subject, manner: Manner) -> Trace:
    return Run(tile.module, tile.batch, manner.output).trace()


def _check_grid(trace: Trace, size: Size) -> None:
    """That a tile is more than one cell of the layers that the model has for larger images.

    Raises:
        LayerError: it is not.
    """
    for too_small in starved(trace):
        raise LayerError(
            f"for tiles of {by(size)} {too_small}; give larger tiles by size=, or name a layer of a finer grid: layer="
        )


def _notes(parts: Parts, trace: Trace | None, first: Explanation) -> tuple[str, ...]:
    """What was told of the first tile, but for what is about it alone; and what tiles do to the map."""
    count, size = len(parts.windows), by(parts.cut.size)
    of_it = [note for note in first.notes if note.startswith("image 0: ") and note not in parts.whole.notes]
    told = [note for note in first.notes if count == 1 or note not in of_it]
    plural = "s" * (count > 1)
    told.append(f"{count} tile{plural} of {size}, stitched; the score is the mean of theirs, weighed by area")
    return (*told, *(_seen(trace, parts.cut.size, first.layers) if trace else ()))


def _seen(trace: Trace, size: Size, layers: Sequence[str]) -> Iterator[str]:
    """Which layers' cells could see more than a tile shows."""
    for layer in layers:
        fields = receptive_fields(trace.edge(layer)[0], trace.image, len(size))
        pixels = [field.high - field.low + 1 for field in fields or ()]
        if any(seen > length for seen, length in zip(pixels, size, strict=False)):
            what = f"could see {by(pixels)} pixels, more than a tile's {by(size)}"
        elif fields is None:
            what = f"may see more pixels than a tile's {by(size)}, how many its operations do not tell"
        else:
            continue
        more = "larger tiles, where the model takes them, let it see more of what is around"
        yield f"a cell of layer {layer} {what}: {more}"
