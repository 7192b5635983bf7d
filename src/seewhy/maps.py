"""Maps: a method with its options, applied to the evidence of its layers, and laid over the image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.ensemble import Running, Undo, fuse
from seewhy.evidence import Evidence, arguments, call
from seewhy.facts import FACTS, asked_by, looks_at_layers, maps_the_image, needs, options
from seewhy.method import Method
from seewhy.model.places import Auto, LayerName
from seewhy.registry import find, row_of
from seewhy.types import MethodError, Scores, ShapeError

IMAGE = "image"
"""What the raw map of a method is called whose maps are of the image, not of a layer."""


@dataclass(frozen=True)
class Asked:
    """A method with all its options; `signed` where its signed form was asked for by name."""

    method: Method
    options: Mapping[str, Any]
    signed: bool = False

    @property
    def has_sign(self) -> bool:
        """Whether its map may be negative, with these options."""
        if "rectify" in self.options:
            return not self.options["rectify"]
        return self.options["channels"] == "sum" if "channels" in self.options else self.method.signed

    @property
    def title(self) -> str:
        """The method's, with the options that are not its defaults, but for those that a picture shows."""
        usual = {name: option.default for name, option in options(self.method.function).items()}
        plain = {name: value for name, value in self.options.items() if isinstance(value, str | int | float)}
        changed = {name for name, value in plain.items() if value != usual[name]} - {"rectify", "chunk"}
        told = [f"{name}={value}" for name, value in plain.items() if name in changed]
        return f"{self.method.title} ({', '.join(told)})" if told else self.method.title

    @property
    def needed(self) -> set[str]:
        """The facts that its map, and what is told of it, are made of."""
        functions = (self.method.function, *((self.method.residual,) if self.method.residual else ()))
        return {name for function in functions for name in needs(function)} - {"map"}

    @property
    def together(self) -> bool:
        """Whether there is one map of all layers of a group, or of none, rather than one of each."""
        function = self.method.function
        return any(fact.of == "layers" for fact in asked_by(function)) or not looks_at_layers(function)

    def group(self, layers: Sequence[LayerName | None]) -> tuple[LayerName | Auto, ...]:
        """The layers that it is to look at, where these were asked for."""
        if not looks_at_layers(self.method.function):
            return ()
        if self.method.layers == "tokens":
            return (Auto("tokens"),)
        return tuple(Auto(self.method.layers) if layer is None else layer for layer in layers)


@dataclass(frozen=True)
class Maps:
    """One method's maps of one group of layers for some questions (one, if it is the same for all).

    `blank[q][image]` says in words what makes that map meaningless, layer by layer; `remarks` is about its facts;
    `residual`, for each question, by how much the parts of a complete method miss the score.
    """

    raw: Mapping[str, Float[Tensor, "q b *_"]]
    resized: Sequence[Float[Tensor, "b *s"]]
    blank: Sequence[Sequence[Sequence[str]]]
    remarks: Sequence[str] = ()
    residual: Sequence[Scores] = ()


def asked(method: str | Callable[..., Tensor], chosen: Mapping[str, Any], rectify: bool | None = None) -> Asked:
    """The method with its options, checked; `rectify` False asks for its signed form, True for its positive one.

    Raises:
        MethodError: an unknown method or option, or a function that asks for something that is no fact.
    """
    row = _row(method)
    known = options(row.function)
    chosen = {**chosen, **({} if rectify is None else _form(row, rectify, chosen))}
    for name, value in chosen.items():
        if name not in known:
            raise MethodError(f"{row.name} has no option {name!r}; its options are: {', '.join(known) or 'none'}")
        if not known[name].takes(value):
            kind = getattr(known[name].type, "__name__", str(known[name].type))
            raise MethodError(f"the option {name} of {row.name} is {value!r}; it takes {kind}")
    for name in needs(row.function):
        if name not in FACTS:
            raise MethodError(
                f"{row.name} asks for {name!r}, which is no fact; positional parameters of a method name facts: "
                f"{', '.join(sorted(FACTS))}"
            )
    defaults = {name: option.default for name, option in known.items()}
    return Asked(row, {**defaults, **chosen}, signed=rectify is False or chosen.get("rectify") is False)


def has_form(method: str | Callable[..., Tensor], rectify: bool) -> bool:
    """Whether a method has a signed form, or (`rectify`) one that was made positive."""
    return _has_form(_row(method), rectify)


def _row(method: str | Callable[..., Tensor]) -> Method:
    return find(method) if isinstance(method, str) else row_of(method)


def _has_form(row: Method, rectify: bool) -> bool:
    known = options(row.function)
    return "rectify" in known or (not rectify and (row.signed or "channels" in known))


def _form(row: Method, rectify: bool, chosen: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that ask for the signed or the positive form of a method's map.

    Raises:
        MethodError: it has none.
    """
    known = options(row.function)
    if "rectify" in known:
        return {"rectify": rectify}
    if not _has_form(row, rectify):
        form = "positive" if rectify else "signed"
        raise MethodError(f"{row.name} has no {form} form, which rectify={rectify} asks for; leave it out")
    return {"channels": "sum"} if "channels" in known and "channels" not in chosen else {}


def maps_of(evidence: Evidence, each: Asked) -> Maps:
    """The method's map of every layer of the group, and the one at the model's input size.

    Raises:
        ShapeError: a map is not finite.
    """
    alone = {found.place.name: found for found in evidence.alone if found.places}
    of_image = each.together or (maps_the_image(each.method.function) and len(alone) == 1)
    sources = {IMAGE: evidence} if of_image else alone
    raw = {name: call(each.method.function, source, each.options) for name, source in sources.items()}
    blank = blanks(raw, sources, each.method.name)
    questions = range(len(next(iter(raw.values()))))
    resized = [_laid(raw, sources, each.method, q) for q in questions]
    return Maps(
        raw,
        resized,
        blank,
        [remark for source in sources.values() for remark in source.remarks_on(needs(each.method.function))],
        _residual(each, evidence, resized),
    )


def _residual(each: Asked, evidence: Evidence, maps: Sequence[Float[Tensor, "b *s"]]) -> Sequence[Scores]:
    """By how much each question's map is not complete; nothing where that is not promised."""
    function = each.method.residual
    if function is None or each.options.get("channels", "sum") != "sum":
        return ()
    chosen = {name: each.options[name] for name in options(function)}
    own = [{"map": map} if "map" in needs(function) else {} for map in maps]
    given = arguments(function, evidence, besides="map")
    return [function(**facts, **map, **chosen).detach() for facts, map in zip(given, own, strict=True)]


class Members:
    """The maps of an ensemble's members, brought back onto the images and made one as they come."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._running: list[Running] = []
        self._remarks: Sequence[str] = ()

    def add(self, maps: Maps, undo: Undo) -> None:
        """One more member's maps, with the way back."""
        self._running = self._running or [Running(self._how) for _ in maps.resized]
        self._remarks = maps.remarks
        for running, map in zip(self._running, maps.resized, strict=True):
            running.add(undo(map))

    def result(self, method: str) -> Maps:
        """The one map of each question."""
        resized = [running.result() for running in self._running]
        raw = {IMAGE: torch.stack(resized)}
        return Maps(raw, resized, blanks(raw, {}, method), self._remarks)


def _laid(raw: Mapping[str, Tensor], sources: Mapping[str, Evidence], method: Method, q: int) -> Float[Tensor, "b *s"]:
    """One question's map, each in memory of its own: a single one that is kept shall not hold all."""
    if maps_the_image(method.function):
        large = [values[q].clone() for values in raw.values()]
    else:
        large = [sources[name].upsample(values[q]) for name, values in raw.items()]
    return large[0] if len(large) == 1 else fuse(large, method.fusion)


def blanks(
    raw: Mapping[str, Float[Tensor, "q b *_"]], evidence: Mapping[str, Evidence], method: str
) -> list[list[list[str]]]:
    """For each question and image, what makes its maps meaningless, in words.

    Raises:
        ShapeError: a map is not finite.
    """
    first = next(iter(raw.values()))
    found: list[list[list[str]]] = [[[] for _ in range(first.shape[1])] for _ in range(first.shape[0])]
    for name, values in raw.items():
        low, high = torch.aminmax(values.detach().flatten(2), dim=-1)
        spread = high - low  # NaN or infinite where a value is
        if not bool((spread < torch.inf).all()):
            raise ShapeError(_not_finite(evidence.get(name), name, method))
        for q, image in (spread == 0).nonzero().tolist():
            what = "zero" if float(low[q, image]) == 0 else "the same"
            which = "the map" if name == IMAGE else f"the map of layer {name!r}"
            found[q][image].append(f"{which} is {what} everywhere")
    return found


def _not_finite(evidence: Evidence | None, layer: str, method: str) -> str:
    if layer == IMAGE or evidence is None:
        return f"{method} is not finite; check the model's weights and the score, and try double precision"
    if not bool(evidence.activations.isfinite().all()):
        return f"layer {layer!r} put out NaN or infinite activations; check the model's weights and precision"
    if not bool(evidence.gradients.isfinite().all()):
        return (
            f"the gradients at layer {layer!r} hold NaN or infinite values; check the score and the model's precision"
        )
    return f"{method} of layer {layer!r} is not finite, though activations and gradients are; try double precision"
