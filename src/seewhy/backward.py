"""The backward pass of some questions: from the model's output to every layer that a capture kept."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.model.capture import INPUT, Capture
from seewhy.model.rules import Rectified, ruled
from seewhy.nested import follow, tensors
from seewhy.types import RUNS_ONLY, Path, Target, TargetError


@dataclass(frozen=True)
class Backward:
    """The backward pass of some questions, run once, when the first layer asks for its gradients."""

    capture: Capture
    questions: tuple[Target, ...]
    rows: Tensor

    @cached_property
    def answers(self) -> list[Float[Tensor, " b"]]:
        """The scores, one vector for each question, with their graph back to the output."""
        with torch.enable_grad():
            given = [target(self.capture.output, self.rows) for target in self.questions]
        for score in cast(list[Any], given):  # a user's function may return anything
            if not isinstance(score, Tensor) or score.shape != self.rows.shape:
                got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
                what = "" if isinstance(score, Tensor) else "a tensor with "
                count = len(self.rows)
                raise TargetError(f"the target returned {got}; return {what}one score per image, here ({count},)")
        return given

    @cached_property
    def told(self) -> tuple[Path, Tensor] | None:
        """Where the scores are read and their gradients with respect to it `(q ...)`, where the targets can tell.

        Never by autograd with respect to several outputs: one may be computed from another, and would count twice.
        """
        known = [_known_gradient(target, self.capture.output, self.rows) for target in self.questions]
        places = {gradient[0] for gradient in known if gradient}
        if len(places) == 1 and all(known):
            return next(iter(places)), torch.stack([gradient[1] for gradient in known if gradient])
        return None

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """The scores' gradients `(q ...)` with respect to every captured layer, as the layer's tensor is laid out."""
        return self.toward(tuple(self.capture.activations))

    def ruled(self, rule: str) -> "Ruled":
        """What comes back to the images where every rectifier follows a rule."""
        read = [follow(self.capture.output, self.told[0])] if self.told else self.answers
        with ruled(rule, read, self.capture.activations[INPUT]) as rectified:
            gradients, mixture = self.toward((INPUT,))[INPUT], None
            if read[0].ndim > 1 and read[0].shape[1] > 1:
                drawn = torch.rand(read[0].shape, generator=torch.Generator().manual_seed(0)).to(read[0])
                mixture = self.capture.gradients([(read[0], drawn[None])], (INPUT,))[INPUT][0]
            return Ruled(gradients, mixture, rectified)

    def toward(self, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """As `gradients`, with respect to these layers, computed anew."""
        if self.told is not None:
            return self.capture.gradients([(follow(self.capture.output, self.told[0]), self.told[1])], layers)
        self._check_answers()
        with torch.enable_grad():
            scores = torch.stack(self.answers)
        each = torch.eye(len(scores), dtype=scores.dtype, device=scores.device)[:, :, None].expand(
            -1, -1, len(self.rows)
        )
        return self.capture.gradients([(scores, each)], layers)

    def _check_answers(self) -> None:
        """A question without a gradient is told from a model without one."""
        if not any(tensor.requires_grad for _, tensor in tensors(self.capture.output)):
            return
        for target, score in zip(self.questions, self.answers, strict=True):
            if not score.requires_grad:
                name = getattr(target, "__name__", type(target).__name__)
                raise TargetError(
                    f"the target {name} returns what has no gradient with respect to the model's output, by detach, "
                    f"argmax, numpy or a constant; make it of differentiable steps, or take {RUNS_ONLY}"
                )

    def of_scores(self, path: Path) -> Tensor | None:
        """The scores' gradients `(q ...)` with respect to the score tensor, if nothing else of the output is read."""
        if self.told is not None:
            return self.told[1] if self.told[0] == path else None
        alone = all(getattr(target, "reads", None) == path for target in self.questions)
        read = follow(self.capture.output, path) if alone else self.capture.output
        if not isinstance(read, Tensor) or not all(score.requires_grad for score in self.answers):
            return None
        create = self.capture.differentiable
        found = [
            torch.autograd.grad(score, read, torch.ones_like(score), retain_graph=True, create_graph=create)[0]
            for score in self.answers
        ]
        return torch.stack(found)


@dataclass(frozen=True)
class Ruled:
    """What came back to the images by a rule: for the questions, and for a random mixture of all outputs.

    `mixture` is what a map would be that asked for nothing in particular; None where the questions do not tell where
    the outputs are, or there is only one.
    """

    gradients: Float[Tensor, "q b c *s"]
    mixture: Float[Tensor, "b c *s"] | None
    rectified: Rectified

    def __str__(self) -> str:
        """For the notes: which rectifiers follow the rule, and how little the map depends on the question."""
        if self.mixture is None:
            return str(self.rectified)
        own = self.gradients.detach().abs().amax(2).flatten(2)
        other = self.mixture.detach().abs().amax(1).flatten(1)
        own, other = own - own.mean(-1, keepdim=True), other - other.mean(-1, keepdim=True)
        alike = float(torch.nn.functional.cosine_similarity(own, other[None], dim=-1).mean())
        verdict = ": it hardly depends on the question" if alike > 0.9 else ""
        return (
            f"{self.rectified}; for a random mixture of all outputs the rule gives a map that correlates {alike:.2f} "
            f"with it{verdict}"
        )


def _known_gradient(target: Target, output: Any, rows: Tensor) -> tuple[Path, Tensor] | None:
    """The gradient that a target can tell without autograd; a hundred logits are asked for in one go by it."""
    tell = getattr(target, "gradient", None)
    return tell(output, rows) if tell is not None else None
