"""Finding what a map is made of, once for each model: the layers, how they are laid out, where their cells look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from seewhy.model import alignment
from seewhy.model.alignment import Placement
from seewhy.model.biases import biased
from seewhy.model.blocks import Block, blocks
from seewhy.model.layers import Candidate, Choice, Memory, candidates, resolve
from seewhy.model.naming import name_of, recorded
from seewhy.model.observe import held, passed_back
from seewhy.model.run import Reading, Run
from seewhy.model.selection import select
from seewhy.model.spot import Spot
from seewhy.model.tokens import Layout
from seewhy.model.trace import Trace
from seewhy.types import RUNS_ONLY, LayerError, MethodError, ModelError, Selection
from seewhy.wording import some

LayerName = str | nn.Module

_KINDS = ("measured", "analytic", "tile")


@dataclass(frozen=True)
class Auto:
    """Layers that shall be found by themselves."""

    which: Selection = "last"


@dataclass(frozen=True)
class Place:
    """A layer that maps are made of: its tensor, how that is laid out, and where its cells look."""

    name: str
    spot: Spot
    shape: tuple[int, ...]
    layout: Layout
    placement: Placement
    notes: tuple[str, ...]


_Asked = tuple[str | int | Auto, str, str | None]  # which layer (a module by its id), alignment, stated layout


@dataclass(frozen=True)
class Known:
    """What was found about a model while its weights had this stamp.

    Args:
        stamp: of its modules and weights, see `Census.stamp`.
        head: the linear layer whose output is the scores.
        gated: it runs a part inside a `no_grad` or `enable_grad` block of its own.
        edits: it writes into its input.
        squashed: its scores are what a sigmoid or softmax put out.
        headless: no weights come between its features and its scores.
        biased: where biases are added.
        blocks: its attentions' blocks, by the attention's number; None: not looked for.
        places: the layers that were asked for so far.
    """

    stamp: int
    biased: Mapping[str, Spot]
    blocks: Mapping[int, Block] | None
    places: Mapping[_Asked, tuple[Place, ...]]
    head: str | None = None
    gated: bool = False
    edits: bool = False
    squashed: bool = False
    headless: bool = False


_MEMORY: Memory[Known] = Memory()


@dataclass(frozen=True)
class Found:
    """The layers of each group that shall become one map, and what is known of the model."""

    groups: tuple[tuple[Place, ...], ...]
    known: Known

    @property
    def places(self) -> tuple[Place, ...]:
        """Every layer once."""
        return tuple({place.name: place for group in self.groups for place in group}.values())


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
    with held(run.model) as census:
        known, stamp = _MEMORY.get(run.model, run.key()), census.stamp()
        if known is None or anew or known.stamp != stamp:  # training moves where cells look
            known = None
        missing = {key: layer for key, layer in asked.items() if known is None or key not in known.places}
        if known is None or missing:
            if missing and census.scripted:
                raise ModelError(
                    f"the model holds a {census.scripted}, whose layers cannot be observed; pass the module that it "
                    f"was scripted or traced from, or take 'saliency', or {RUNS_ONLY}"
                )
            known = _looked(run, known, stamp, missing, align, layout)
            _MEMORY.put(run.model, run.key(), known)
    return Found(tuple(tuple(place for key in row for place in known.places[key]) for row in keys), known)


def _looked(
    run: Run,
    known: Known | None,
    stamp: int,
    missing: Mapping[_Asked, LayerName | Auto],
    align: str,
    layout: str | None,
) -> Known:
    """What is known when these layers have been looked for too."""
    before, found = ({}, None) if known is None else (known.places, known.blocks)
    try:
        trace = run.trace()
    except LayerError:
        if missing:
            raise
        # scores without a gradient: nothing is known of the way to them, which methods that only run the model bear
        return Known(stamp, biased={}, blocks=None, places=before, edits=True)
    if found is None and Auto("tokens") in missing.values():
        found = _of_images(trace, blocks(run.model, run.probe()))
    places = {key: _places(trace, layer, found, align, layout) for key, layer in missing.items()}
    return _known(trace, stamp, found, {**before, **places})


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
    remembered. Where a layer's cells look does not depend on the images, and is found as in `locate` if it can be.

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
    with held(run.model) as census:
        wanted = {layer for group in groups for layer in group}
        found = blocks(run.model, run.probe()) if Auto("tokens") in wanted else None
        own = [_found(trace, groups, found, census.stamp(), align, layout) for trace in run.traces(read)]
        return [replace(each, groups=_laid_alike(run, each.groups, align, layout)) for each in own]


def _laid_alike(
    run: Run, groups: Sequence[Sequence[Place]], align: str, layout: str | None
) -> tuple[tuple[Place, ...], ...]:
    """The layers with the placement that they have for all images; their own where these do not run on noise."""
    names = list(dict.fromkeys(place.name for group in groups for place in group))
    try:
        usual = locate(run, [[name] for name in names], align, layout).places
    except LayerError:
        return tuple(map(tuple, groups))
    known = {place.name: place for place in usual}
    return tuple(
        tuple(replace(known[place.name], notes=(*place.notes[:1], *known[place.name].notes)) for place in group)
        for group in groups
    )


def together(founds: Sequence[Found]) -> Found:
    """Everything that several questions look at, to be captured in one pass."""
    founds = list({id(found): found for found in founds}.values())
    if len(founds) == 1:
        return founds[0]
    biases = {name: spot for found in founds for name, spot in found.known.biased.items()}
    known = replace(founds[0].known, biased=biases)
    return Found(tuple(group for found in founds for group in found.groups), known)


@torch.inference_mode(False)
def listed(run: Run) -> list[Candidate]:
    """Every layer that a map can be made of, in the order in which they run."""
    return candidates(run.trace())


def _check(groups: Sequence[Sequence[LayerName | Auto]], align: str, layout: str | None) -> None:
    if align not in _KINDS:
        raise MethodError(f"align is {align!r}; choose one of {', '.join(map(repr, _KINDS))}")
    if layout is not None and any(isinstance(layer, Auto) for group in groups for layer in group):
        raise LayerError(f"layout={layout!r} says how a named layer is laid out; name the layer too: layer=...")


def _found(
    trace: Trace,
    groups: Sequence[Sequence[LayerName | Auto]],
    found: Mapping[int, Block] | None,
    stamp: int,
    align: str,
    layout: str | None,
) -> Found:
    made: dict[LayerName | Auto, tuple[Place, ...]] = {}
    leading = [_leading(trace, group) for group in groups]
    for layer in (layer for group in leading for layer in group):
        if layer not in made:
            made[layer] = _places(trace, layer, found, align, layout)
    own = [[place for layer in group for place in made[layer]] for group in leading]
    for places, group, asked in zip(own, leading, groups, strict=True):
        if len(group) < len(asked):
            off = some(
                [name_of(trace.modules, layer) for layer in asked if not isinstance(layer, Auto) and layer not in group]
            )
            note = f"left out of the layers, as what is asked about does not depend on it: {off}"
            places[0] = replace(places[0], notes=(note, *places[0].notes))
    return Found(tuple(map(tuple, own)), _known(trace, stamp, found, {}))


def _leading(trace: Trace, group: Sequence[LayerName | Auto]) -> Sequence[LayerName | Auto]:
    """Those layers of one map that lead to the score: of the levels of a pyramid, a box stands in one."""
    return [layer for layer in group if isinstance(layer, Auto) or _leads(trace, layer)] or group


def _leads(trace: Trace, layer: LayerName) -> bool:
    found = trace.outputs.get(recorded(trace, name_of(trace.modules, layer)), ())
    return any(traced.edge is not None and traced.edge[0] in trace.positions for traced in found)


def _remembered_as(layer: LayerName | Auto) -> str | int | Auto:
    return id(layer) if isinstance(layer, nn.Module) else layer


def _known(
    trace: Trace, stamp: int, found: Mapping[int, Block] | None, places: Mapping[_Asked, tuple[Place, ...]]
) -> Known:
    return Known(
        stamp=stamp,
        head=_head(trace),
        gated=trace.gated,
        edits=trace.edited,
        squashed=trace.squashed,
        headless=trace.headless,
        biased=biased(trace),
        blocks=found,
        places=places,
    )


def _places(
    trace: Trace, layer: LayerName | Auto, found: Mapping[int, Block] | None, align: str, layout: str | None
) -> tuple[Place, ...]:
    if layer == Auto("tokens") and found is not None:
        chosen = [_last_block(trace, found)]
    else:
        chosen = select(trace, layer.which) if isinstance(layer, Auto) else [resolve(trace, layer, layout)]
    return tuple(_place(trace, choice, align, told=isinstance(layer, Auto)) for choice in chosen)


def _of_images(trace: Trace, found: Mapping[int, Block]) -> Mapping[int, Block]:
    """The blocks that the image has a part in: those of a text beside it, where there are as many texts, are none."""
    return {
        number: block
        for number, block in found.items()
        if any(each.edge and each.edge[0] in trace.positions for each in trace.outputs.get(_name(trace, block), ()))
    } or found


def _name(trace: Trace, block: Block) -> str:
    spot = block.spot
    return spot.module if trace.calls[spot.module] == 1 else f"{spot.module}@{spot.call}"


def _last_block(trace: Trace, found: Mapping[int, Block]) -> Choice:
    name = _name(trace, found[max(found)])
    return replace(resolve(trace, name), reason=f"the last of {len(found)} blocks with attention")


def _place(trace: Trace, choice: Choice, align: str, *, told: bool) -> Place:
    placement, notes = _placement(trace, choice, align)
    reason = (f"layer {choice.name}: {choice.reason}",) if told and choice.reason else ()
    return Place(choice.name, choice.spot, choice.shape, choice.layout, placement, (*reason, *choice.notes, *notes))


def _placement(trace: Trace, choice: Choice, align: str) -> tuple[Placement, tuple[str, ...]]:
    tiles = alignment.tile(choice.grid, trace.size)
    if align == "tile":
        return tiles, ()
    edge, shape = trace.edge(choice.name, choice.spot.index)
    if align == "analytic":
        placement = alignment.analytic(edge, trace.image, choice.grid)
        missing = (
            f"layer {choice.name}: receptive fields cannot be reckoned through this model; cells are laid as tiles"
        )
        return (placement, ()) if placement else (tiles, (missing,))
    with passed_back(trace.model):
        placement = alignment.place(edge, shape, trace.image, choice.grid, choice.layout.to_cells)
    return placement, () if placement.kind == "tile" else (
        _moved(choice.name, placement, tiles, trace.size, choice.grid),
    )


def _moved(name: str, placement: Placement, tiles: Placement, size: Sequence[int], grid: Sequence[int]) -> str:
    moved = placement.shift(size, grid)
    said: list[str] = []
    if any(abs(pixels) > 0.05 for pixels in moved):
        shift = ", ".join(f"{pixels:+.1f}" for pixels in moved)
        said.append(f"look ({shift}) pixels off their tiles, as measured")
    if placement.stride != tiles.stride:
        said.append(f"lie {_pixels(placement.stride)} pixels apart instead of {_pixels(tiles.stride)}, as it strides")
    return f"layer {name}: its cells {' and '.join(said)}; the map is laid accordingly"


def _pixels(lengths: Sequence[float]) -> str:
    return ", ".join(dict.fromkeys(f"{length:.3g}" for length in lengths))


def _head(trace: Trace) -> str | None:
    """The linear layer whose output is the scores."""
    for name, outputs in trace.outputs.items():
        if any(traced.edge == trace.score for traced in outputs) and isinstance(trace.modules.get(name), nn.Linear):
            return name
    return None
