"""What is read of the scores of a class: themselves, logits, or probabilities, whichever the model puts out."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.targets.question import Squashing
from seewhy.types import Scores

Kind = Literal["score", "logit", "probability", "log_probability", "output", "log", "log_odds"]
"""What is read of a class. The last three are of models that put out probabilities: p as it is, log p, log p/(1-p)."""


def logits_of(scores: Float[Tensor, "*m"], squashed: Squashing | None) -> Float[Tensor, "*m"]:
    """The logits behind a model's scores: a sigmoid's exactly, a softmax's up to a number that a row's classes share.

    A probability that was rounded to 0, or of a sigmoid to 1, counts as the number next to it, and has no gradient.
    """
    if squashed is None:
        return scores
    numbers = torch.finfo(scores.dtype)
    if squashed == "softmax":
        return scores.clamp_min(numbers.tiny).log()
    inside = scores.clamp(numbers.tiny, 1 - numbers.eps / 2)
    return inside.log() - torch.log1p(-inside)


def column(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    """The scores as they are."""
    return scores.gather(1, columns[:, None])[:, 0]


def _probability(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    return _log_probability(scores, columns).exp()


def _log_probability(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    if scores.shape[1] == 1:  # one logit: the class against its absence
        return torch.nn.functional.logsigmoid(scores[:, 0])
    return column(scores.log_softmax(1), columns)


def _log(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    return logits_of(column(scores, columns), "softmax")


def _log_odds(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    return logits_of(column(scores, columns), "sigmoid")


READ = {
    "score": column,
    "logit": column,
    "output": column,
    "probability": _probability,
    "log_probability": _log_probability,
    "log": _log,
    "log_odds": _log_odds,
}
WORDS: dict[Kind, str] = {
    "score": "{}",
    "logit": "{}",
    "output": "p({})",
    "probability": "p({})",
    "log_probability": "log p({})",
    "log": "log p({})",
    "log_odds": "logit({})",
}
_OF_PROBABILITIES: dict[Kind, Kind] = {"score": "output", "probability": "output", "log_probability": "log"}
KINDS: dict[Squashing | None, dict[Kind, Kind]] = {
    None: {"score": "logit"},
    "softmax": {**_OF_PROBABILITIES, "logit": "log"},
    "sigmoid": {**_OF_PROBABILITIES, "logit": "log_odds"},
}
"""What is read where the model puts out logits, or what a softmax or sigmoid made of them."""
