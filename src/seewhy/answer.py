"""From a subject and questions to explanations: one forward pass, shared evidence, every choice noted."""

import inspect
import math
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.ensemble import Change, changed, forth
from seewhy.evidence import Evidence
from seewhy.explanation import Explanation
from seewhy.maps import Asked, Maps, Members, has_form, maps_of
from seewhy.marks import Marks
from seewhy.model.locate import LayerName, Place
from seewhy.observation import Manner, Observation, observe
from seewhy.subject import Subject
from seewhy.targets.abilities import CHOSEN, SCORES_AT, Reads, can
from seewhy.targets.classes import ClassScore, class_of, describe, parse
from seewhy.targets.marked import marked, nearby
from seewhy.targets.question import Question, resolve
from seewhy.targets.ranked import Rank
from seewhy.targets.region import over_places
from seewhy.targets.walking import is_chosen, leaves, moved, notes
from seewhy.tensor import chunked
from seewhy.types import MapWarning, Target

_COMPLETE = 0.05
"""Up to this share of the score, what parts miss of it is no news."""


_NEARBY = 0.5
"""From this share of the heat on that lies around a point, its map shows little but where the point is."""
_DARK = "the map is positive nowhere, so that its picture shows no heat"


def answer(
    subject: Subject,
    questions: Sequence[Any],
    methods: Sequence[Asked],
    layers: Sequence[Sequence[LayerName | None]],
    manner: Manner,
) -> list[Explanation]:
    """All explanations, in the order questions x methods x layers."""
    ways = [(each, each.group(group)) for each, group in product(methods, layers)]
    named = [group != [None] for _, group in product(methods, layers)]
    needed = {name for each in methods for name in each.needed}
    parsed = [None if each is None else parse(each, len(subject.inputs)) for each in questions]
    seen, found = observe(subject, needed, [group for _, group in ways], manner, parsed)
    resolved = [_resolved(each, seen) for each in parsed]
    explanations: dict[tuple[int, int], Explanation] = {}
    with torch.inference_mode(False), torch.set_grad_enabled(manner.differentiable):
        for view, numbers in seen.views():
            constant: dict[int, Maps] = {}
            for part in chunked(len(numbers), view.questions_at_once()):
                asked_now = tuple(resolved[number][0] for number in numbers[part])
                evidence = view.evidence(asked_now)
                maps = {**constant, **_maps(view, evidence, asked_now, [each for each, _ in ways], constant)}
                constant |= {n: found for n, found in maps.items() if not ways[n][0].method.class_specific}
                scores = evidence[0].scores.detach()
                for q, number in enumerate(numbers[part]):
                    target, said = resolved[number]
                    told = [*subject.notes, *_about_reading(found, target, view.question), *said]
                    for n, (each, _) in enumerate(ways):
                        explained = _explanation(view, target, scores[q], n, each, maps[n], q, told)
                        variant = _variant(each, view.groups[n] if named[n] else (), manner)
                        explanations[number, n] = replace(explained, variant=variant)
    return [explanations[key] for key in sorted(explanations)]


def _maps(
    seen: Observation,
    clean: list[Evidence],
    asked_now: tuple[Target, ...],
    ways: Sequence[Asked],
    known: Container[int],
) -> dict[int, Maps]:
    """The maps of each way that is not known yet, of the images themselves or of the ensemble that was asked for."""
    of_ensemble: dict[tuple[Change, ...], list[int]] = {}
    for n, each in enumerate(ways):
        if n not in known:
            of_ensemble.setdefault(seen.manner.ensemble or each.method.ensemble, []).append(n)
    found = {n: maps_of(clean[n], ways[n]) for n in of_ensemble.pop((), [])}
    for changes, numbers in of_ensemble.items():
        members = {n: Members(seen.manner.combine) for n in numbers}
        for inputs, undo in changed(seen.subject.inputs, changes):
            move = forth(undo, inputs.shape[2:])
            evidence = seen.of(inputs).evidence(tuple(moved(target, move) for target in asked_now))
            for n in numbers:
                members[n].add(maps_of(evidence[n], ways[n]), undo)
        found |= {n: members[n].result(ways[n].method.name) for n in numbers}
    return found


def _resolved(given: Any, seen: Observation) -> tuple[Target, list[str]]:
    """The target of one question, checked against the output; with a note where it was chosen or is doubtful."""
    question = seen.question
    asked_for = over_places(Rank() if given is None else parse(given, question.images), question)
    target = resolve(asked_for, question, seen.scores)
    said = notes(target, question, seen.probabilities)
    if any(isinstance(each, ClassScore) and each.note.startswith(CHOSEN) for each in leaves(target)):
        said += _doubted(seen)
    return target, said


def _doubted(seen: Observation) -> list[str]:
    """What is said where classes are ranked that may be none."""
    if not seen.found.known.headless or seen.question.labels is not None or len(seen.question.shape) != 2:
        return []
    return [
        f"no weights come between the model's features and these {seen.question.classes} numbers, which may be an "
        "embedding and no scores of classes: Similarity(...) asks about one"
    ]


def _probability(seen: Observation, image: int, index: int | None) -> float | None:
    """Of one class; None where that is not known."""
    p = None if index is None else float(seen.probabilities[image, index])
    return None if p is None or math.isnan(p) else p


def _explanation(
    seen: Observation,
    target: Target,
    scores: Float[Tensor, " b"],
    way: int,
    each: Asked,
    maps: Maps,
    q: int,
    said: Sequence[str],
) -> Explanation:
    places, question = seen.groups[way], seen.question
    q = min(q, len(maps.resized) - 1)  # a class-agnostic method has one map for all questions
    images = range(question.images)
    classes = tuple(class_of(target, image) for image in images)
    told = [*said, *(note for place in places for note in place.notes)]
    told += [*_about_method(each, places, target), *_about_ensemble(each, seen.manner), *maps.remarks]
    told += [warned(place.doubt) for place in places if place.doubt]
    blank, resized = maps.blank[q], maps.resized[q]
    told += [warned(f"image {n}: {what}") for n in images for what in about_heat(blank[n], resized[n], each)]
    asked = tuple(marked(target, question, image) for image in images)
    told += _about_places(asked, {place.name: maps.raw[place.name][q] for place in places if place.name in maps.raw})
    residual = maps.residual[q] if maps.residual else None
    told += _about_residual(each, residual, scores)
    squared = seen.manner.combine != "mean" and bool(seen.manner.ensemble or each.method.ensemble)
    return Explanation(
        map=resized,
        raw={name: values[q].clone() for name, values in maps.raw.items()},
        scores=scores,
        target=tuple(describe(target, question, image) for image in images),
        class_indices=classes,
        probabilities=tuple(_probability(seen, n, c) for n, c in enumerate(classes)),
        method=each.method.name,
        title=each.title,
        options=each.options,
        placements={place.name: place.placement.kind for place in places},
        signed=each.has_sign and len(maps.raw) == 1 and not squared,
        units="relative" if len(maps.raw) > 1 or each.method.relative else "squared" if squared else "raw",
        asked_signed=each.signed,
        offset=each.method.offset,
        of_pixels=each.method.of_pixels,
        notes=tuple(dict.fromkeys(told)),
        model=seen.subject.name,
        pictures=seen.subject.pictures,
        residual=residual,
        asked=asked,
    )


def _variant(each: Asked, named: Sequence[Place], manner: Manner) -> str:
    """What was chosen beyond the usual, for the names of files."""
    asked = ["+".join(place.name for place in named), "signed" if each.signed else ""]
    asked += [
        manner.align if manner.align != "measured" else "",
        *(type(change).__name__ for change in manner.ensemble),
    ]
    return "_".join(filter(None, asked))


def _about_method(each: Asked, places: Sequence[Place], target: Target) -> Iterator[str]:
    if not each.method.class_specific and not is_chosen(target):
        yield f"{each.method.title} does not look at the question: the target has no influence on this map"
    if each.method.offset:
        yield f"{each.method.title} gives scores, not shares of one: its heat is what exceeds the map's mean"
    if len(places) > 1 and not each.together:
        yield f"{len(places)} layers fused ({each.method.fusion}): the unit is relative, each layer's maximum is 1"


def about_heat(blank: Sequence[str], map: Float[Tensor, "*s"], each: Asked) -> Iterator[str]:
    """What makes a map meaningless, see `maps.blanks`; or that its picture has no heat, where no signs were asked."""
    for what in blank:
        yield f"{what}; it says nothing about places{_way_out(what, each)}"
    if not (blank or each.signed or each.method.offset) and float(map.detach().max()) <= 0:
        yield f"{_DARK}{_way_out(_DARK, each)}"


def _way_out(blank: str, each: Asked) -> str:
    """What shows the evidence against what was asked, where there may be any that is not shown."""
    if blank.endswith("the same everywhere") or each.signed or not has_form(each.method.function, False):
        return ""
    hidden = blank == _DARK or each.options.get("rectify") is True
    return "; rectify=False shows what speaks against it" if hidden else ""


def _about_reading(found: Sequence[str], target: Target, question: Question) -> list[str]:
    """What was found, but for where the scores are, if the target reads another place of the output."""
    elsewhere = can(target, Reads) and target.reads not in (None, question.path)
    return [note for note in found if not (elsewhere and note.startswith(SCORES_AT))]


def _about_places(asked: Sequence[Marks], raw: Mapping[str, Float[Tensor, "b *grid"]]) -> Iterator[str]:
    """Where a layer's map shows little of a point, or of a small region, but where it is."""
    for image, marks in enumerate(asked):
        for layer, own in raw.items():
            share = nearby(marks, own[image]) or 0.0
            if share > _NEARBY:
                yield (
                    f"image {image}: {share:.0%} of the heat lies within a cell of what was asked about, so that the "
                    f"map may show little but where that is; a layer ahead of {layer}, named with layer=, shows what "
                    "it is told by"
                )


def _about_residual(each: Asked, residual: Float[Tensor, " b"] | None, scores: Float[Tensor, " b"]) -> Iterator[str]:
    share = 0.0 if residual is None else float((residual.abs() / scores.abs().clamp_min(1e-12)).max())
    if share > _COMPLETE:
        missing = f"its parts miss what they should sum to by {share:.0%} of the score"
        yield f"{each.method.title} is not complete here: {missing}; {each.method.incomplete}"


def _about_ensemble(each: Asked, manner: Manner) -> Iterator[str]:
    changes = manner.ensemble or each.method.ensemble
    if changes:
        yield f"{manner.combine.replace('_', ' ')} of the maps under {', '.join(map(repr, changes))}"


def warned(text: str) -> str:
    """What makes a map meaningless is a note and a warning, never a picture drawn as if it were a finding."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "seewhy":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, MapWarning, stacklevel=level)  # at the user's own line
    return text
