"""What is read of the scores of a class: themselves, logits, or probabilities, whichever the model puts out."""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
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
SURE = 0.999
"""From this probability on a model is nearly sure: gradients of p are less than a thousandth of the logit's."""
_SURE_OF_MOST = 0.99  # of half of the pixels of a region
BEHIND: dict[Squashing, str] = {
    "softmax": "log p stands for the logit behind it: in a difference of two classes exactly, alone for the class "
    "against all others, and such a map fades where the model is sure",
    "sigmoid": "log p - log(1 - p) is read where logits are asked for, and is these",
}
"""What is read where logits are asked for of a model that puts out probabilities."""
KINDS: dict[Squashing | None, dict[Kind, Kind]] = {
    None: {"score": "logit"},
    "softmax": {**_OF_PROBABILITIES, "logit": "log"},
    "sigmoid": {**_OF_PROBABILITIES, "logit": "log_odds"},
}
"""What is read where the model puts out logits, or what a softmax or sigmoid made of them."""


def made(squashed: Squashing, read: str) -> str:
    """What is said where the model puts out probabilities, and how they are read."""
    return f"the model puts out the probabilities p of a {squashed}: {read}"


def nearly_sure(squashed: Squashing | None) -> str:
    """What is said where a probability hardly has a gradient."""
    way = (
        "a logit keeps it"
        if squashed is None
        else f"explain the model without its last {squashed}, whose logits keep it"
    )
    return f"the model is nearly sure, so the gradient of a probability nearly vanishes; {way}"


def fading(
    scores: Float[Tensor, "b *grid"], region: Bool[Tensor, "b *grid"], squashed: Squashing | None
) -> Iterator[str]:
    """What is said of the scores of a class over a region, where the model puts out probabilities."""
    if squashed is not None:
        yield made(squashed, BEHIND[squashed])
    if squashed == "softmax":
        halves = [own[part].median() for own, part in zip(scores, region, strict=True) if part.any()]
        if any(float(half) > _SURE_OF_MOST for half in halves):
            yield (
                "the model is nearly sure of most pixels of the region, where the map of log p nearly vanishes: it "
                "shows the rim; explain the model without its last softmax, whose logits keep the rest"
            )
