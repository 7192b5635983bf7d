"""Finding what a map is made of, once for each model: the layers that a question looks at, and facts of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from seewhy.model.biases import biased
from seewhy.model.blocks import Block, blocks
from seewhy.model.found import Found, Known
from seewhy.model.layers import Candidate, candidates
from seewhy.model.memory import Memory
from seewhy.model.naming import name_of, recorded
from seewhy.model.observe import held
from seewhy.model.places import Auto, LayerName, Place, laid, of_images, places_of
from seewhy.model.run import Reading, Run
from seewhy.model.trace import Trace
from seewhy.types import RUNS_ONLY, LayerError, MethodError, ModelError, ShapeError
from seewhy.wording import some

_KINDS = ("measured", "analytic", "tile")


_Asked = tuple[str | int | Auto, str, str | None]  # which layer (a module by its id), alignment, stated layout
_Layers = Mapping[_Asked, LayerName | Auto]


@dataclass(frozen=True)
class _Remembered:
    """What noise showed: all but the groups, and the layers that were asked for so far; of none, it leads to none."""

    found: Found
    places: Mapping[_Asked, tuple[Place, ...]]


_MEMORY: Memory[_Remembered] = Memory()


@torch.inference_mode(False)
def locate(
    run: Run,
    groups: Sequence[Sequence[LayerName | Auto]],
    align: str = "measured",
    layout: str | None = None,
    *,
    anew: bool = False,
) -> Found:
    """Find the layers of each group, from memory where they were found before.

    The first time costs one recorded forward pass on a single image of noise, and where a layer's cells may be off
    their tiles one backward pass; the recorded graph is dropped at the end.

    With `anew`, nothing is taken from memory.

    Raises:
        LayerError: a layer that is not there, is ambiguous, has no grid, or does not influence the scores.
        MethodError: an unknown kind of alignment.
    """
    _check(groups, align, layout)
    keys = [[(_remembered_as(layer), align, layout) for layer in group] for group in groups]
    asked = {key: layer for row, group in zip(keys, groups, strict=True) for key, layer in zip(row, group, strict=True)}
    seen = _seen(run, asked, anew=anew)
    return replace(seen.found, groups=tuple(tuple(place for key in row for place in seen.places[key]) for row in keys))


@torch.inference_mode(False)
def traced(
    run: Run,
    groups: Sequence[Sequence[LayerName | Auto]],
    read: Reading,
    align: str = "measured",
    layout: str | None = None,
) -> list[Found]:
    """The layers of each group for each of several numbers, whose way depends on what the images show.

    It costs one recorded forward pass on the images for all of them, and a backward pass for each, of which nothing is
    remembered. What is known of the model, and where a layer's cells look, does not depend on the images, and is found
    as in `locate`; where a layer is on no way from noise to the scores, as these images show it.

    Args:
        run: the model with its images.
        groups: as in `locate`.
        read: from the model's output to the numbers, see `Reading`.
        align: as in `locate`.
        layout: as in `locate`.

    Raises:
        LayerError, MethodError: as `locate`; also where a named layer is not on the way to one of the numbers.
    """
    _check(groups, align, layout)
    tokens = (Auto("tokens"), align, layout)
    with held(run.model):
        wanted = any(Auto("tokens") in group for group in groups)
        found = _seen(run, {tokens: Auto("tokens")}, lenient=True).found.known.blocks if wanted else None
        kept = _kept(run)
        own = [
            (_groups(trace, groups, found, kept, align, layout), biased(trace), trace.gated, trace.edited)
            for trace in run.traces(read)
        ]
        names = {place.name for each, *_ in own for group in each for place in group}
        usual = _seen(run, {(name, align, layout): name for name in sorted(names)}, lenient=True)
    known = {key: places[0] for key, places in usual.places.items() if places}
    return [
        Found(
            tuple(tuple(_laid_as(place, known.get((place.name, align, layout))) for place in group) for group in each),
            biases,
            gated,
            edits,
            usual.found.known,
        )
        for each, biases, gated, edits in own
    ]


@torch.inference_mode(False)
def listed(run: Run) -> list[Candidate]:
    """Every layer that a map can be made of, in the order in which they run."""
    return candidates(run.trace())


def _check(groups: Sequence[Sequence[LayerName | Auto]], align: str, layout: str | None) -> None:
    if align not in _KINDS:
        raise MethodError(f"align is {align!r}; choose one of {', '.join(map(repr, _KINDS))}")
    if layout is not None and any(isinstance(layer, Auto) for group in groups for layer in group):
        raise LayerError(f"layout={layout!r} says how a named layer is laid out; name the layer too: layer=...")


def _kept(run: Run) -> _Remembered | None:
    """What is remembered, if the model is as it was then."""
    with held(run.model) as census:
        kept, stamp = _MEMORY.get(run.model, run.key()), census.stamp()
        return kept if kept is not None and kept.found.known.stamp == stamp else None  # training moves where cells look


def _seen(run: Run, asked: _Layers, *, anew: bool = False, lenient: bool = False) -> _Remembered:
    """What is remembered, with these layers too; if `lenient`, those that noise does not lead to are of no places."""
    with held(run.model) as census:
        before = None if anew else _kept(run)
        kept = {} if before is None else before.places
        missing = {key: layer for key, layer in asked.items() if not (key in kept if lenient else kept.get(key))}
        if before is not None and not missing:
            return before
        if missing and census.scripted:
            raise ModelError(
                f"the model holds a {census.scripted}, whose layers cannot be observed; pass the module that it "
                f"was scripted or traced from, or take 'saliency', or {RUNS_ONLY}"
            )
        made = _looked(run, before, census.stamp(), missing, lenient=lenient)
        _MEMORY.put(run.model, run.key(), made)
        return made


def _looked(run: Run, before: _Remembered | None, stamp: int, missing: _Layers, *, lenient: bool) -> _Remembered:
    """What is seen on noise when these layers are looked for too."""
    kept, found = ({}, None) if before is None else (before.places, before.found.known.blocks)
    if found is None and Auto("tokens") in missing.values():
        found = blocks(run.model, run.probe())
    try:
        trace = run.trace()
    except (LayerError, ModelError, ShapeError) as error:
        if not lenient and (missing or not isinstance(error, LayerError)):
            raise
        # scores without a gradient: nothing is known of the way to them, which methods that only run the model bear
        bare = Found((), biased={}, gated=False, edits=True, known=Known(stamp, found))
        return _Remembered(bare, {**kept, **dict.fromkeys(missing, ())})
    if found is not None and (before is None or before.found.known.blocks is None):
        found = of_images(trace, found)
    known = Known(stamp, found, _head(trace), trace.end, trace.headless)
    places = {key: _places(trace, layer, found, key, lenient=lenient) for key, layer in missing.items()}
    return _Remembered(Found((), biased(trace), trace.gated, trace.edited, known), {**kept, **places})


def _places(
    trace: Trace, layer: LayerName | Auto, found: Mapping[int, Block] | None, key: _Asked, *, lenient: bool
) -> tuple[Place, ...]:
    try:
        return places_of(trace, layer, found, *key[1:])
    except LayerError:
        if not lenient:
            raise
        return ()


def _laid_as(place: Place, usual: Place | None) -> Place:
    """The layer with the placement that it has for all images; its own where noise does not lead to it."""
    return place if usual is None else replace(usual, why=place.why)


def _groups(
    trace: Trace,
    groups: Sequence[Sequence[LayerName | Auto]],
    found: Mapping[int, Block] | None,
    kept: _Remembered | None,
    align: str,
    layout: str | None,
) -> list[list[Place]]:
    """The places of each group that lead to what the trace is about, with a note on those that do not.

    Where the cells of those that are kept look is known, and not measured.
    """
    made: dict[LayerName | Auto, tuple[Place, ...]] = {}
    leading = [_leading(trace, group) for group in groups]
    for layer in (layer for group in leading for layer in group):
        if layer not in made:
            places = places_of(trace, layer, found, "tile", layout)
            known = {} if kept is None else kept.places
            made[layer] = tuple(
                place if known.get((place.name, align, layout)) else laid(trace, place, align) for place in places
            )
    own = [[place for layer in group for place in made[layer]] for group in leading]
    for places, group, asked in zip(own, leading, groups, strict=True):
        if len(group) < len(asked):
            off = some(
                [name_of(trace.modules, layer) for layer in asked if not isinstance(layer, Auto) and layer not in group]
            )
            note = f"left out of the layers, as what is asked about does not depend on it: {off}"
            places[0] = replace(places[0], why=(note, *places[0].why))
    return own


def _leading(trace: Trace, group: Sequence[LayerName | Auto]) -> Sequence[LayerName | Auto]:
    """Those layers of one map that lead to the score: of the levels of a pyramid, a box stands in one."""
    return [layer for layer in group if isinstance(layer, Auto) or _leads(trace, layer)] or group


def _leads(trace: Trace, layer: LayerName) -> bool:
    found = trace.outputs.get(recorded(trace, name_of(trace.modules, layer)), ())
    return any(traced.edge is not None and traced.edge[0] in trace.positions for traced in found)


def _remembered_as(layer: LayerName | Auto) -> str | int | Auto:
    return id(layer) if isinstance(layer, nn.Module) else layer


def _head(trace: Trace) -> str | None:
    """The linear layer whose output is the scores."""
    for name, outputs in trace.outputs.items():
        if any(traced.edge == trace.score for traced in outputs) and isinstance(trace.modules.get(name), nn.Linear):
            return name
    return None
