"""One forward pass of a subject: what the methods need is planned, found, captured, and checked to be numbers."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.asking import question_of, scores_of
from seewhy.backward import Backward
from seewhy.ensemble import Change
from seewhy.evidence import Evidence
from seewhy.facts import FACTS
from seewhy.model.attention import attentions
from seewhy.model.blocks import Attended, attended, spots_of
from seewhy.model.capture import Capture, capture
from seewhy.model.found import Found, together
from seewhy.model.head import Head
from seewhy.model.locate import locate, traced
from seewhy.model.observe import held
from seewhy.model.places import Auto, LayerName, Place
from seewhy.model.replay import Replay
from seewhy.model.run import Run
from seewhy.subject import Subject
from seewhy.targets.question import Open, Question, resolve
from seewhy.targets.reading import probabilities_of
from seewhy.targets.walking import extent, sees, whole
from seewhy.types import MethodError, ModelError, Path, Target

_GRADIENT_BYTES = 32 * 2**20  # of the gradients that exist at one time; more questions than that are asked in chunks

_TRAINED = "the model is in train mode and explained in eval mode: batch norm by its running statistics, no dropout"

Group = tuple[LayerName | Auto, ...]
"""Layers that shall become one map; none for a method that looks at no layer."""


@dataclass(frozen=True)
class Manner:
    """How the answers are wanted: see the arguments of `explain`."""

    align: str = "measured"
    layout: str | None = None
    ensemble: tuple[Change, ...] = ()
    combine: str = "mean"
    output: Path | None = None
    differentiable: bool = False


@dataclass(frozen=True)
class Plan:
    """What a pass must keep for the facts that are asked for."""

    graph: bool
    leaf: bool
    biases: bool
    twice: bool
    tokens: bool

    @staticmethod
    def of(needed: set[str]) -> "Plan":
        """The plan for these facts."""
        kept = {what for name in needed for what in FACTS[name].keeps}
        return Plan(
            graph="graph" in kept,
            leaf="leaf" in kept,
            biases="biases" in kept,
            twice="twice" in kept,
            tokens="tokens" in kept,
        )

    def within(self) -> AbstractContextManager[Any] | None:
        """What the forward pass runs inside of: only one form of attention can be differentiated twice."""
        return sdpa_kernel(SDPBackend.MATH) if self.twice else None


@dataclass(frozen=True)
class Observation:
    """One forward pass of a subject, with what was found about its layers and its output."""

    subject: Subject
    found: Found
    plan: Plan
    manner: Manner
    shown: Capture
    attended: Attended | None
    question: Question
    founds: tuple[Found, ...] = ()

    def views(self) -> Iterator[tuple["Observation", list[int]]]:
        """The same pass as the questions see it, and which do: those with layers of their own see these alone."""
        alike: list[tuple[Found, list[int]]] = []
        for number, found in enumerate(self.founds):
            same = next((numbers for other, numbers in alike if self._shares(other, found)), None)
            if same is None:
                alike.append((found, [number]))
            else:
                same.append(number)
        for found, numbers in alike:
            yield self if found is self.found else self._narrowed(found), numbers

    def _shares(self, some: Found, others: Found) -> bool:
        """Whether two questions look at the same layers."""
        return some.groups == others.groups and (not self.plan.biases or some.biased == others.biased)

    def _narrowed(self, found: Found) -> "Observation":
        known = {place.name for place in found.places} | set(found.biased)
        others = {place.name for place in self.found.places} | set(self.found.biased)
        kept = {name: tensor for name, tensor in self.shown.activations.items() if name in known or name not in others}
        return replace(self, found=found, shown=replace(self.shown, activations=kept))

    @cached_property
    def scores(self) -> Float[Tensor, "b k"]:
        """The model's scores as a matrix, without their graph; without columns where none are known."""
        return scores_of(self.question, self.subject)

    @cached_property
    def probabilities(self) -> Float[Tensor, "b k"]:
        """What the scores say as probabilities; scores that already are, as they are; NaN where that is unclear."""
        p = probabilities_of(self.scores, self.question.squashed)
        return p.new_full(p.shape, float("nan")) if self.question.unclear and self.question.classes > 1 else p

    def evidence(self, asked_now: tuple[Target, ...]) -> list[Evidence]:
        """The evidence of every group of layers for some questions; they share one backward pass."""
        subject, found, known = self.subject, self.found, self.found.known
        linear = subject.module.get_submodule(known.head) if known.head else None
        path = self.question.path
        head = None if path is None else Head(linear if isinstance(linear, nn.Linear) else None, path)
        backward = Backward(self.shown, asked_now, subject.batch.rows)
        spots = {place.name: place.spot for place in found.places} | spots_of(known.blocks or {})
        replay = Replay(subject.module, subject.batch, spots, edits=found.edits, gated=found.gated, questions=asked_now)
        kept = found.biased if self.plan.biases else {}
        biased = {name: subject.module.get_submodule(spot.module) for name, spot in kept.items()}
        made: dict[tuple[Place, ...], Evidence] = {}
        for group in self.groups:
            if group not in made:
                made[group] = Evidence(self.shown, backward, group, biased, self.attended, head, replay)
        return [made[group] for group in self.groups]

    @cached_property
    def groups(self) -> list[tuple[Place, ...]]:
        """The layers of each group, once, as they ran; fusion is from shallow to deep, however they were named."""
        order = list(self.shown.activations)
        return [
            tuple(sorted({place.name: place for place in group}.values(), key=lambda place: order.index(place.name)))
            for group in self.found.groups
        ]

    def questions_at_once(self) -> int:
        """How many questions' gradients fit into the budget."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in self.shown.activations.values())
        return max(1, _GRADIENT_BYTES // max(size, 1))

    def of(self, inputs: Float[Tensor, "b c *s"]) -> "Observation":
        """The same of changed images: layers and questions stay, the pass is new."""
        subject, found = replace(self.subject, batch=self.subject.batch.of(inputs)), self.found
        if inputs.shape != self.subject.inputs.shape:
            run = Run(subject.module, subject.batch, self.manner.output)
            named = [[place.name for place in group] for group in found.groups]
            try:
                found = locate(run, named, self.manner.align, self.manner.layout)
            except ModelError as error:
                own, other = (" x ".join(map(str, x.shape[2:])) for x in (self.subject.inputs, inputs))
                raise MethodError(
                    f"the ensemble asks for images of {other} pixels beside {own}, which this model does not take; "
                    "leave the scales out: ensemble=Flips(), or the method 'sharp' for 'best'"
                ) from error
        shown, attended = _shown(subject, found, self.plan, self.manner)
        return replace(self, subject=subject, found=found, shown=shown, attended=attended)


def observe(
    subject: Subject,
    needed: set[str],
    groups: Sequence[Group],
    manner: Manner,
    asked: Sequence[Target | Open | None] = (None,),
) -> tuple[Observation, list[str]]:
    """Find the layers, run the model, and find its scores; with notes on what was chosen.

    A question that sees what the images show gets layers of its own, found on these; all others share theirs.

    Raises:
        LayerError: as `locate`.
        ModelError: as `score_path`.
        ShapeError: scores that are no numbers, or none for each image.
        TargetError: labels that do not fit the scores.
    """
    run = Run(subject.module, subject.batch, manner.output)
    plan = Plan.of(needed)
    with held(subject.module) as census:
        told = [_TRAINED] if census.by_mode else []
        founds = _founds(run, subject, groups, plan, manner, asked)
        found = together(founds)
        shown, followed = _shown(subject, found, plan, manner)
        if any(shown.activations[place.name].shape[1:] != place.shape[1:] for place in found.places):
            # the model was changed in a way that its parameters do not tell, such as another stride
            founds = _founds(run, subject, groups, plan, manner, asked, anew=True)
            found = together(founds)
            shown, followed = _shown(subject, found, plan, manner)
    question, notes = question_of(subject, shown.output, manner.output, found.known.end)
    return Observation(subject, found, plan, manner, shown, followed, question, tuple(founds)), [*told, *notes]


def _founds(
    run: Run,
    subject: Subject,
    groups: Sequence[Group],
    plan: Plan,
    manner: Manner,
    asked: Sequence[Target | Open | None],
    *,
    anew: bool = False,
) -> list[Found]:
    """The layers that each question looks at."""
    looks = any(groups) or plan.biases
    own = {n: each for n, each in enumerate(asked) if each is not None and sees(each) and looks}

    def read(output: Any) -> list[tuple[Tensor, tuple[float, ...]]]:
        question, _ = question_of(subject, output, manner.output, "")
        settled = [resolve(each, question, scores_of(question, subject)) for each in own.values()]
        return [(whole(target, output, subject.batch.rows), extent(target)) for target in settled]

    found = traced(run, groups, read, manner.align, manner.layout) if own else []
    founds = dict(zip(own, found, strict=True))
    if len(own) < len(asked):
        shared = locate(run, groups, manner.align, manner.layout, anew=anew)
        founds |= dict.fromkeys(set(range(len(asked))) - own.keys(), shared)
    return [founds[n] for n in range(len(asked))]


def _shown(subject: Subject, found: Found, plan: Plan, manner: Manner) -> tuple[Capture, Attended | None]:
    if not plan.tokens or not found.known.blocks:
        return _captured(subject, found, plan, manner), None
    with attentions(len(subject.inputs)) as seen:
        shown = _captured(subject, found, plan, manner)
    return attended(shown, seen, found.known.blocks, len(subject.inputs))


def _captured(subject: Subject, found: Found, plan: Plan, manner: Manner) -> Capture:
    batch = subject.batch.of(subject.inputs.clone()) if found.edits else subject.batch
    spots = {place.name: place.spot for place in found.places}
    if plan.tokens:
        spots |= spots_of(found.known.blocks or {})
    return capture(
        subject.module,
        batch,
        {**(found.biased if plan.biases else {}), **spots},
        head=found.known.head,
        graph=plan.graph,
        differentiable=manner.differentiable,
        gated=found.gated,
        leaf=plan.leaf,
        within=plan.within(),
    )
