"""From a subject and questions to explanations: one forward pass, shared evidence, every choice noted."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy import targets
from seewhy.ensemble import fuse
from seewhy.evidence import PER_QUESTION, Backward, Evidence, Head, call, needs, options
from seewhy.explanation import Explanation
from seewhy.model.capture import Capture, capture
from seewhy.model.locate import Align, Found, LayerName, Place, Run, locate
from seewhy.model.outputs import score_path, spell
from seewhy.model.replay import Replay
from seewhy.registry import Method, find
from seewhy.subject import Subject
from seewhy.targets import ClassScore, Question, Rank
from seewhy.tensor import chunked, resize
from seewhy.types import MapWarning, MethodError, Path, ShapeError, Target, TargetError, follow

_GRADIENT_BYTES = 64 * 2**20  # of the gradients that exist at one time; more questions than that are asked in chunks


@dataclass(frozen=True)
class Manner:
    """How the answers are wanted: see the arguments of `explain`."""

    align: Align = "measured"
    layout: str | None = None
    output: Path | None = None
    differentiable: bool = False


@dataclass(frozen=True)
class Asked:
    """A method with all its options."""

    method: Method
    options: Mapping[str, Any]

    @property
    def per_question(self) -> bool:
        """Whether its map depends on the question at all."""
        return bool(PER_QUESTION & set(needs(self.method.function)))


@dataclass(frozen=True)
class Maps:
    """One method's maps of one group of layers for some questions (one, if it is the same for all)."""

    raw: Mapping[str, Float[Tensor, "q b *grid"]]
    resized: Float[Tensor, "q b *s"]


def asked(method: str | Callable[..., Tensor], chosen: Mapping[str, Any]) -> Asked:
    """The method with its options, checked.

    Raises:
        MethodError: an unknown method or option, or a function that asks for something that is no fact.
    """
    row = find(method) if isinstance(method, str) else Method.of(method)
    known = options(row.function)
    for name in chosen:
        if name not in known:
            raise MethodError(f"{row.name} has no option {name!r}; its options are: {', '.join(known) or 'none'}")
    for name in needs(row.function):
        if not hasattr(Evidence, name):
            raise MethodError(
                f"{row.name} asks for {name!r}, which is no fact; positional parameters of a method name facts"
            )
    return Asked(row, {**{name: option.default for name, option in known.items()}, **chosen})


def answer(
    subject: Subject,
    questions: Sequence[Any],
    methods: Sequence[Asked],
    layers: Sequence[Sequence[LayerName | None]],
    manner: Manner,
) -> list[Explanation]:
    """All explanations, in the order questions x methods x layers."""
    run = Run(subject.module, subject.inputs, subject.args, subject.kwargs, manner.output)
    found = locate(run, layers, manner.align, manner.layout)
    shown = capture(
        subject.module,
        (subject.inputs, *subject.args),
        subject.kwargs,
        {place.name: place.spot for place in found.places},
        head=found.head,
        graph=any(each.per_question for each in methods),
        differentiable=manner.differentiable,
    )
    question, notes = _question(subject, shown, manner.output)
    resolved = [_resolved(each, question, shown) for each in questions]
    pairs = list(product(methods, found.groups))
    explanations: list[list[Explanation]] = []
    constant: dict[int, Maps] = {}
    with torch.inference_mode(False), torch.set_grad_enabled(manner.differentiable):
        for part in chunked(len(resolved), _questions_at_once(shown)):
            evidence = _evidence(subject, shown, found, question, tuple(target for target, _ in resolved[part]))
            maps = [constant.get(n) or _maps(evidence, *pair, subject) for n, pair in enumerate(pairs)]
            constant |= {n: each for n, each in enumerate(maps) if not pairs[n][0].per_question}
            scores = next(iter(evidence.values())).scores.detach()
            for q, (target, said) in enumerate(resolved[part]):
                told = (*subject.notes, *notes, *said)
                explanations.append([
                    _explanation(subject, question, shown, target, scores[q], each, place_group, maps[n], q, told)
                    for n, (each, place_group) in enumerate(pairs)
                ])  # fmt: skip
    return [each for row in explanations for each in row]


def _question(subject: Subject, shown: Capture, output: Path | None) -> tuple[Question, list[str]]:
    """Where the scores are and what they are; checked to be numbers."""
    path, note = (
        (output, f"scores read from output{spell(output)}") if output else score_path(shown.output, len(subject.inputs))
    )
    try:
        scores = follow(shown.output, path)
    except (KeyError, IndexError, TypeError) as error:
        raise TargetError(
            f"the model's output has nothing at {spell(path)}; output= takes its keys and indices"
        ) from error
    if not bool(scores.isfinite().all()):
        raise ShapeError(
            "the model's scores hold NaN or infinite values, which no map can explain; check its input and weights"
        )
    return Question(path, tuple(scores.shape), subject.labels, len(subject.inputs)), [note] if note else []


def _resolved(given: Any, question: Question, shown: Capture) -> tuple[Target, list[str]]:
    """The target of one question, checked against the output; with a note where it was chosen."""
    rank = Rank() if given is None else given
    if not isinstance(rank, Rank):
        target = targets.resolve(targets.parse(given, question.images), question)
        return target, _doubts(target, question, shown)
    if len(question.shape) > 2:
        raise TargetError(
            f"scores of shape {question.shape} have no predicted class; give a target: a function of (output, rows)"
        )
    scores = follow(shown.output, question.path).detach()
    target = targets.resolve(rank.of(scores.reshape(question.images, -1)), question)
    place = "that the model predicts" if rank.place == 1 else f"at place {rank.place} of the model's scores"
    return target, [f"target: the class {place}, by its logit"]


def _doubts(target: Target, question: Question, shown: Capture) -> list[str]:
    if not isinstance(target, ClassScore) or target.kind == "logit":
        return []
    sure = float(_probabilities(shown, question).amax()) > 0.999
    return (
        ["the model is nearly sure, so the gradient of this probability nearly vanishes; the logit keeps it"]
        if sure
        else []
    )


def _questions_at_once(shown: Capture) -> int:
    size = sum(tensor.numel() * tensor.element_size() for tensor in shown.activations.values())
    return max(1, _GRADIENT_BYTES // max(size, 1))


def _evidence(
    subject: Subject, shown: Capture, found: Found, question: Question, asked_now: tuple[Target, ...]
) -> dict[str, Evidence]:
    rows = torch.arange(len(subject.inputs), device=subject.inputs.device)
    linear = subject.module.get_submodule(found.head) if found.head else None
    head = Head(linear if isinstance(linear, nn.Linear) else None, question.path)
    backward = Backward(shown, asked_now, rows)
    spots = {place.name: place.spot for place in found.places}
    replay = Replay(subject.module, subject.inputs, subject.args, subject.kwargs, spots)
    return {p.name: Evidence(shown, backward, p.name, p.layout, head, replay) for p in found.places}


def _maps(evidence: Mapping[str, Evidence], each: Asked, places: Sequence[Place], subject: Subject) -> Maps:
    """The method's map of every layer of the group, and the one at the model's input size."""
    size = tuple(subject.inputs.shape[2:])
    raw = {place.name: call(each.method.function, evidence[place.name], each.options) for place in places}
    large: list[Tensor] = []
    for place in places:
        flat = raw[place.name].flatten(0, 1)
        if not bool(flat.detach().isfinite().all()):
            raise ShapeError(_not_finite(evidence[place.name], place.name, each.method.name))
        large.append(
            resize(flat, place.placement.matrices(size, tuple(flat.shape[1:]), dtype=flat.dtype, device=flat.device))
        )
    whole = large[0] if len(large) == 1 else fuse(large, each.method.fusion)
    return Maps(raw, whole.unflatten(0, (-1, len(subject.inputs))))


def _not_finite(evidence: Evidence, layer: str, method: str) -> str:
    if not bool(evidence.activations.isfinite().all()):
        return f"layer {layer!r} put out NaN or infinite activations; check the model's weights and precision"
    return f"{method} of layer {layer!r} is not finite, since the gradients are not; check the score and the precision"


def _explanation(
    subject: Subject,
    question: Question,
    shown: Capture,
    target: Target,
    scores: Float[Tensor, " b"],
    each: Asked,
    places: Sequence[Place],
    maps: Maps,
    q: int,
    notes: Sequence[str],
) -> Explanation:
    q = min(q, len(maps.resized) - 1)  # a class-agnostic method has one map for all questions
    raw = {name: values[q] for name, values in maps.raw.items()}
    images = range(len(subject.inputs))
    classes = tuple(targets.class_of(target, image) for image in images)
    told = [*notes, *(note for place in places for note in place.notes), *_about_method(each, places, notes)]
    told += _about_values(raw)
    signed = not each.options["rectify"] if "rectify" in each.options else each.method.signed
    probabilities = _probabilities(shown, question) if any(c is not None for c in classes) else None
    return Explanation(
        map=maps.resized[q],
        raw=raw,
        scores=scores,
        target=tuple(targets.describe(target, question, image) for image in images),
        class_indices=classes,
        probabilities=tuple(
            None if c is None or probabilities is None else float(probabilities[image, c])
            for image, c in enumerate(classes)
        ),
        method=each.method.name,
        title=each.method.title,
        options=each.options,
        placements={place.name: place.placement.kind for place in places},
        signed=signed and len(places) == 1,
        notes=tuple(dict.fromkeys(told)),
        model=subject.name,
        pictures=subject.pictures,
    )


def _probabilities(shown: Capture, question: Question) -> Float[Tensor, "b k"]:
    """What the scores say as probabilities; scores that already are, as they are."""
    scores = follow(shown.output, question.path).detach().float().reshape(question.images, -1)
    if scores.shape[1] == 1:
        return scores.sigmoid()
    already = bool((scores >= 0).all()) and bool((scores.sum(1) - 1).abs().max() < 1e-3)
    return scores if already else scores.softmax(1)


def _about_method(each: Asked, places: Sequence[Place], notes: Sequence[str]) -> Iterator[str]:
    if not each.per_question and not any(note.startswith("target:") for note in notes):
        yield f"{each.method.title} does not look at the question: the target has no influence on this map"
    if len(places) > 1:
        yield f"{len(places)} layers fused ({each.method.fusion}): the unit is relative, each layer's maximum is 1"


def _about_values(raw: Mapping[str, Float[Tensor, "b *grid"]]) -> Iterator[str]:
    """What makes a map meaningless is a note and a warning, never a picture drawn as if it were a finding."""
    for name, values in raw.items():
        flat = values.detach().flatten(1)
        spread = flat.amax(1) - flat.amin(1)
        empty = [n for n, positive in enumerate((flat != 0).any(1).tolist()) if not positive]
        constant = [n for n, wide in enumerate((spread > 0).tolist()) if not wide and n not in empty]
        for which, what in ((empty, "zero everywhere"), (constant, "the same everywhere")):
            if which:
                images = ", ".join(map(str, which))
                text = f"the map of layer {name!r} is {what} for image {images}: it says nothing about places"
                warnings.warn(text, MapWarning, stacklevel=6)
                yield text
