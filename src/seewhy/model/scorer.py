"""A model and a question as one module, which is what attribution libraries want to be given."""

import copy
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.model.observe import held
from seewhy.model.replay import Replay
from seewhy.types import MethodError, Target


class Asked(nn.Module):
    """A question as a last layer, so that a library may have a rule for it, as for any other.

    Args:
        question: what is asked.
    """

    def __init__(self, question: Target) -> None:
        super().__init__()
        self.question = question

    def forward(self, output: Tensor, *, rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The scores of the model's output; `rows` by name, since hooks are given what is not."""
        return self.question(output, rows)


class Scorer(nn.Module):
    """From changed images and `rows`, the image that each was made from, to their scores.

    Libraries that expand a batch expand what else they hand on along with it, so that `rows` stays right.

    Args:
        replay: the model, ready to be run again.
        question: what is asked of it.
    """

    def __init__(self, replay: Replay, question: Target) -> None:
        super().__init__()
        self.model = replay.model
        self.replay = replay
        self.asked = Asked(question)
        self.remarks: list[str] = []
        """What is to be said of the maps that were made with it."""

    def forward(self, inputs: Float[Tensor, "m c *s"], rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The scores, with a graph to the images where gradients are being recorded."""
        if torch.is_grad_enabled():
            return self.replay.differentiable_scores_at(self._read, inputs, rows)
        return self.replay.scores_at((self._read,), inputs, rows)[0]

    def apart(self) -> "Scorer":
        """The same of a copy of the model, for libraries that hook, mark or write to what they are given.

        Raises:
            MethodError: The model cannot be copied.
        """
        try:
            model = copy.deepcopy(self.model)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            reason = str(error).strip().partition("\n")[0].removesuffix(".")
            raise MethodError(
                f"this method works on a copy of the model, which cannot be copied ({reason}); choose one that only "
                "runs the model, such as occlusion, or remove what cannot be copied"
            ) from error
        made = Scorer(self.replay.of(model), self.asked.question)
        made.remarks = self.remarks
        return made

    def undisturbed(self) -> AbstractContextManager[object]:
        """Keeps other threads' explanations away: libraries draw from the random state of the whole process."""
        return held(self.model)

    def _read(self, output: Any, rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        if isinstance(output, Tensor):
            return self.asked(output, rows=rows)
        return self.asked.question(output, rows)  # hooks take nothing but tensors
