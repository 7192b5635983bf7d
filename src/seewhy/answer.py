"""From a subject and questions to explanations: one forward pass, shared evidence, every choice noted."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy import targets
from seewhy.ensemble import fuse
from seewhy.evidence import FACTS, Backward, Evidence, Head, call, needs, options
from seewhy.explanation import Explanation
from seewhy.model.capture import Capture, capture
from seewhy.model.locate import Found, LayerName, Place, Run, locate
from seewhy.model.observe import held
from seewhy.model.outputs import read_scores, score_path, spell
from seewhy.model.replay import Replay
from seewhy.registry import Method, find
from seewhy.subject import Subject
from seewhy.targets import Question, Rank
from seewhy.tensor import chunked, resize
from seewhy.types import MapWarning, MethodError, Path, ShapeError, Target, TargetError, follow

_SATURATED = "the model is nearly sure, so the gradient of a probability nearly vanishes; a logit keeps it"
_GRADIENT_BYTES = 32 * 2**20  # of the gradients that exist at one time; more questions than that are asked in chunks


@dataclass(frozen=True)
class Manner:
    """How the answers are wanted: see the arguments of `explain`."""

    align: str = "measured"
    layout: str | None = None
    output: Path | None = None
    differentiable: bool = False


@dataclass(frozen=True)
class Asked:
    """A method with all its options; `signed` where its signed form was asked for by name."""

    method: Method
    options: Mapping[str, Any]
    signed: bool = False


@dataclass(frozen=True)
class Maps:
    """One method's maps of one group of layers for some questions (one, if it is the same for all).

    `blank[q][image]` says in words what makes that map meaningless, layer by layer.
    """

    raw: Mapping[str, Float[Tensor, "q b *_"]]
    resized: Sequence[Float[Tensor, "b *s"]]
    blank: Sequence[Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Observation:
    """One forward pass of a subject, with what was found about its layers and its output."""

    subject: Subject
    found: Found
    shown: Capture
    question: Question

    @cached_property
    def scores(self) -> Float[Tensor, "b k"]:
        """The model's scores as a matrix, without their graph."""
        return follow(self.shown.output, self.question.path).detach().float().reshape(self.question.images, -1)

    @cached_property
    def probabilities(self) -> Float[Tensor, "b k"]:
        """What the scores say as probabilities; scores that already are, as they are."""
        if self.question.squashed:
            return self.scores
        return self.scores.sigmoid() if self.scores.shape[1] == 1 else self.scores.softmax(1)

    @property
    def saturated(self) -> bool:
        """Whether the model puts out probabilities and is nearly sure, so that their gradients vanish."""
        return self.question.squashed and float(self.scores.max()) > 0.999

    def evidence(self, asked_now: tuple[Target, ...]) -> dict[str, Evidence]:
        """The evidence of every layer for some questions; they share one backward pass."""
        subject = self.subject
        known = self.found.known
        linear = subject.module.get_submodule(known.head) if known.head else None
        head = Head(linear if isinstance(linear, nn.Linear) else None, self.question.path)
        rows = torch.arange(len(subject.inputs), device=subject.inputs.device)
        backward = Backward(self.shown, asked_now, rows)
        spots = {place.name: place.spot for place in self.found.places}
        replay = Replay(subject.module, subject.inputs, subject.args, subject.kwargs, spots, edits=known.edits)
        return {p.name: Evidence(self.shown, backward, p.name, p.layout, head, replay) for p in self.found.places}

    def questions_at_once(self) -> int:
        """How many questions' gradients fit into the budget."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in self.shown.activations.values())
        return max(1, _GRADIENT_BYTES // max(size, 1))


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
        if name not in FACTS:
            raise MethodError(
                f"{row.name} asks for {name!r}, which is no fact; positional parameters of a method name facts: "
                f"{', '.join(sorted(FACTS))}"
            )
    defaults = {name: option.default for name, option in known.items()}
    return Asked(row, {**defaults, **chosen}, signed=chosen.get("rectify") is False)


def answer(
    subject: Subject,
    questions: Sequence[Any],
    methods: Sequence[Asked],
    layers: Sequence[Sequence[LayerName | None]],
    manner: Manner,
) -> list[Explanation]:
    """All explanations, in the order questions x methods x layers."""
    run = Run(subject.module, subject.inputs, subject.args, subject.kwargs, manner.output)
    with held(subject.module):
        found = locate(run, layers, manner.align, manner.layout)
        graph = any(each.method.class_specific for each in methods)
        shown = _shown(subject, found, graph, manner)
        if any(shown.activations[place.name].shape[1:] != place.shape[1:] for place in found.places):
            # the model was changed in a way that its parameters do not tell, such as another stride
            found = locate(run, layers, manner.align, manner.layout, anew=True)
            shown = _shown(subject, found, graph, manner)
    question, notes = _question(subject, shown, manner.output, found.known.squashed)
    seen = Observation(subject, found, shown, question)
    resolved = [_resolved(each, seen) for each in questions]
    order = list(shown.activations)  # as they ran; fusion is from shallow to deep, whatever order they were named in
    ran = [sorted({p.name: p for p in group}.values(), key=lambda p: order.index(p.name)) for group in found.groups]
    pairs = list(product(methods, ran))
    explanations: list[Explanation] = []
    constant: dict[int, Maps] = {}
    with torch.inference_mode(False), torch.set_grad_enabled(manner.differentiable):
        for part in chunked(len(resolved), seen.questions_at_once()):
            evidence = seen.evidence(tuple(target for target, _ in resolved[part]))
            maps = [constant.get(n) or _maps(evidence, *pair, subject) for n, pair in enumerate(pairs)]
            constant |= {n: each for n, each in enumerate(maps) if not pairs[n][0].method.class_specific}
            scores = next(iter(evidence.values())).scores.detach()
            explanations += [
                _explanation(seen, target, scores[q], pair, maps[n], q, [*subject.notes, *notes, *said])
                for q, (target, said) in enumerate(resolved[part])
                for n, pair in enumerate(pairs)
            ]
    return explanations


def _shown(subject: Subject, found: Found, graph: bool, manner: Manner) -> Capture:
    inputs = subject.inputs.clone() if found.known.edits else subject.inputs
    return capture(
        subject.module,
        (inputs, *subject.args),
        subject.kwargs,
        {place.name: place.spot for place in found.places},
        head=found.known.head,
        graph=graph,
        differentiable=manner.differentiable,
        gated=found.known.gated,
    )


def _question(subject: Subject, shown: Capture, output: Path | None, squashed: bool) -> tuple[Question, list[str]]:
    """Where the scores are and what they are; checked to be numbers."""
    if output:
        path, note = output, f"scores read from output{spell(output)}"
    else:
        path, note = score_path(shown.output, len(subject.inputs))
    scores = read_scores(shown.output, path)
    if scores.ndim == 0 or len(scores) != len(subject.inputs):
        raise ShapeError(
            f"the model returned scores of shape {tuple(scores.shape)} for {len(subject.inputs)} images; the first "
            "axis must be the images: give a model, or an output=, with one row of scores for each"
        )
    question = Question(path, tuple(scores.shape), subject.labels, len(subject.inputs), squashed or _sum_to_1(scores))
    _check_labels(question)
    return question, [note] if note else []


def _sum_to_1(scores: Tensor) -> bool:
    several = scores.ndim == 2 and scores.shape[1] > 1
    return several and bool((scores >= 0).all()) and bool((scores.sum(1) - 1).abs().max() < 1e-3)


def _check_labels(question: Question) -> None:
    fits = question.labels is None or len(question.labels) == question.classes or question.of_two
    if question.labels is not None and not fits and len(question.shape) < 3:
        plural = "es" * (question.classes != 1)
        raise TargetError(
            f"got {len(question.labels)} labels for a model of {question.classes} class{plural}; give one for each"
        )


def _resolved(given: Any, seen: Observation) -> tuple[Target, list[str]]:
    """The target of one question, checked against the output; with a note where it was chosen or is doubtful."""
    rank, question = Rank() if given is None else given, seen.question
    if isinstance(rank, Rank):
        if len(question.shape) > 2:
            raise TargetError(
                f"scores of shape {question.shape} have no predicted class; give a target: a function of (output, rows)"
            )
        place = "that the model predicts" if rank.place == 1 else f"at place {rank.place} of the model's scores"
        by = "probability, which the model puts out" if question.squashed else "logit"
        said = f"target: the class {place}, by its {by}"
        if question.classes == 1:
            said = "target: the model's only score; the map shows what speaks for it, -Logit(0) what speaks against it"
        return targets.resolve(rank.of(seen.scores), question), [said, *([_SATURATED] if seen.saturated else [])]
    target = targets.resolve(targets.parse(given, question.images), question)
    certain = float(seen.probabilities.max()) > 0.999 and (question.squashed or targets.reads_probabilities(target))
    return target, [_SATURATED] if certain else []


def _maps(evidence: Mapping[str, Evidence], each: Asked, places: Sequence[Place], subject: Subject) -> Maps:
    """The method's map of every layer of the group, and the one at the model's input size."""
    raw = {place.name: call(each.method.function, evidence[place.name], each.options) for place in places}
    blank = _blanks(raw, evidence, each.method.name)
    questions = range(len(next(iter(raw.values()))))
    return Maps(raw, [_at_input_size(raw, places, each, subject, q) for q in questions], blank)


def _at_input_size(
    raw: Mapping[str, Tensor], places: Sequence[Place], each: Asked, subject: Subject, q: int
) -> Float[Tensor, "b *s"]:
    """One question's map, each in memory of its own: a single one that is kept shall not hold all."""
    size = tuple(subject.inputs.shape[2:])
    large: list[Tensor] = []
    for place in places:
        map = raw[place.name][q]
        large.append(resize(map, place.placement.matrices(size, map.shape[1:], dtype=map.dtype, device=map.device)))
    return large[0] if len(large) == 1 else fuse(large, each.method.fusion)


def _blanks(
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
            raise ShapeError(_not_finite(evidence[name], name, method))
        for q, image in (spread == 0).nonzero().tolist():
            what = "zero" if float(low[q, image]) == 0 else "the same"
            found[q][image].append(f"the map of layer {name!r} is {what} everywhere")
    return found


def _not_finite(evidence: Evidence, layer: str, method: str) -> str:
    if not bool(evidence.activations.isfinite().all()):
        return f"layer {layer!r} put out NaN or infinite activations; check the model's weights and precision"
    if not bool(evidence.gradients.isfinite().all()):
        return (
            f"the gradients at layer {layer!r} hold NaN or infinite values; check the score and the model's precision"
        )
    return f"{method} of layer {layer!r} is not finite, though activations and gradients are; try double precision"


def _explanation(
    seen: Observation,
    target: Target,
    scores: Float[Tensor, " b"],
    pair: tuple[Asked, Sequence[Place]],
    maps: Maps,
    q: int,
    notes: Sequence[str],
) -> Explanation:
    (each, places), question = pair, seen.question
    q = min(q, len(maps.resized) - 1)  # a class-agnostic method has one map for all questions
    images = range(question.images)
    classes = tuple(targets.class_of(target, image) for image in images)
    told = [*notes, *(note for place in places for note in place.notes), *_about_method(each, places, notes)]
    told += [_warned(f"image {n}: {what}; it says nothing about places") for n in images for what in maps.blank[q][n]]
    signed = not each.options["rectify"] if "rectify" in each.options else each.method.signed
    return Explanation(
        map=maps.resized[q],
        raw={name: values[q].clone() for name, values in maps.raw.items()},
        scores=scores,
        target=tuple(targets.describe(target, question, image) for image in images),
        class_indices=classes,
        probabilities=tuple(None if c is None else float(seen.probabilities[n, c]) for n, c in enumerate(classes)),
        method=each.method.name,
        title=each.method.title,
        options=each.options,
        placements={place.name: place.placement.kind for place in places},
        signed=signed and len(places) == 1,
        asked_signed=each.signed,
        notes=tuple(dict.fromkeys(told)),
        model=seen.subject.name,
        pictures=seen.subject.pictures,
    )


def _about_method(each: Asked, places: Sequence[Place], notes: Sequence[str]) -> Iterator[str]:
    if not each.method.class_specific and not any(note.startswith("target:") for note in notes):
        yield f"{each.method.title} does not look at the question: the target has no influence on this map"
    if len(places) > 1:
        yield f"{len(places)} layers fused ({each.method.fusion}): the unit is relative, each layer's maximum is 1"


def _warned(text: str) -> str:
    """What makes a map meaningless is a note and a warning, never a picture drawn as if it were a finding."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("seewhy"):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, MapWarning, stacklevel=level)  # at the user's own line
    return text
