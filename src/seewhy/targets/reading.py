"""What is read of the scores of a class: themselves, logits, p or log p, whichever the model puts out."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seewhy.targets.question import Squashing
from seewhy.types import Scores

_Asked = Literal["score", "logit", "probability", "log_probability"]
_OfProbabilities = Literal["output", "log", "log_odds"]
_OfLogs = Literal["log_output", "exp", "log_odds_of_log"]
Kind = _Asked | _OfProbabilities | _OfLogs
"""What is read of a class; of models that put out p: p as it is, log p, log p/(1-p); of log p: it, p, the same."""


def logits_of(scores: Float[Tensor, "*m"], squashed: Squashing | None) -> Float[Tensor, "*m"]:
    """The logits behind a model's scores: a sigmoid's exactly, a softmax's up to a number that a row's classes share.

    A probability that was rounded to 0, or of a sigmoid to 1, counts as the number next to it, and has no gradient.
    """
    if squashed is None or squashed == "log_softmax":
        return scores
    numbers = torch.finfo(scores.dtype)
    if squashed == "log_sigmoid":
        inside = scores.clamp(max=-numbers.tiny)
        return inside - (-inside.expm1()).log()
    if squashed == "softmax":
        return scores.clamp_min(numbers.tiny).log()
    inside = scores.clamp(numbers.tiny, 1 - numbers.eps / 2)
    return inside.log() - torch.log1p(-inside)


def probabilities_of(scores: Float[Tensor, "b *k"], squashed: Squashing | None) -> Float[Tensor, "b *k"]:
    """What a model's scores say as probabilities; of logits the softmax, of a single one the sigmoid."""
    if squashed is None:
        return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(1)
    return scores.exp() if squashed in OF_LOGS else scores


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


def _exp(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    return column(scores, columns).exp()


def _log_odds_of_log(scores: Float[Tensor, "m k"], columns: Int[Tensor, " m"]) -> Scores:
    return logits_of(column(scores, columns), "log_sigmoid")


READ = {
    "score": column,
    "logit": column,
    "output": column,
    "probability": _probability,
    "log_probability": _log_probability,
    "log": _log,
    "log_odds": _log_odds,
    "log_output": column,
    "exp": _exp,
    "log_odds_of_log": _log_odds_of_log,
}
WORDS: dict[Kind, str] = {
    "score": "{}",
    "logit": "{}",
    "output": "p({})",
    "probability": "p({})",
    "log_probability": "log p({})",
    "log": "log p({})",
    "log_odds": "logit({})",
    "log_output": "log p({})",
    "exp": "p({})",
    "log_odds_of_log": "logit({})",
}
OF_LOGS: tuple[Squashing, ...] = ("log_softmax", "log_sigmoid")
"""Where the scores are log p."""
OF_EACH: tuple[Squashing, ...] = ("sigmoid", "log_sigmoid")
"""Where each class has a probability of its own."""
HALF: dict[Squashing | None, float] = {
    None: 0.0,
    "softmax": 0.5,
    "sigmoid": 0.5,
    "log_softmax": math.log(0.5),
    "log_sigmoid": math.log(0.5),
}
"""The score of p = 1/2, of a class with a probability of its own."""
_OF_PROBABILITIES: dict[Kind, Kind] = {"score": "output", "probability": "output", "log_probability": "log"}
_OF_LOGS: dict[Kind, Kind] = {"score": "log_output", "probability": "exp", "log_probability": "log_output"}
SURE = 0.999
"""From this probability on a model is nearly sure: gradients of p are less than a thousandth of the logit's."""
_SURE_OF_MOST = 0.99  # of half of the pixels of a region
_BEHIND_SOFTMAX = (
    "log p stands for the logit behind it: in a difference of two classes exactly, alone for the class against all "
    "others, and such a map fades where the model is sure"
)
_BEHIND_SIGMOID = "log p - log(1 - p) is read where logits are asked for, and is these"
BEHIND: dict[Squashing, str] = {
    "softmax": _BEHIND_SOFTMAX,
    "sigmoid": _BEHIND_SIGMOID,
    "log_softmax": _BEHIND_SOFTMAX,
    "log_sigmoid": _BEHIND_SIGMOID,
}
"""What is read where logits are asked for of a model that puts out probabilities."""
KINDS: dict[Squashing | None, dict[Kind, Kind]] = {
    None: {"score": "logit"},
    "softmax": {**_OF_PROBABILITIES, "logit": "log"},
    "sigmoid": {**_OF_PROBABILITIES, "logit": "log_odds"},
    "log_softmax": {**_OF_LOGS, "logit": "log_output"},
    "log_sigmoid": {**_OF_LOGS, "logit": "log_odds_of_log"},
}
"""What is read where the model puts out logits, or what a softmax or sigmoid made of them, or the logarithm of that."""
COMPETING = (
    "p is the softmax of the scores, which are read as logits of classes that exclude each other; where each class has "
    "a sigmoid of its own, ask a function: lambda output: output[:, {}].sigmoid()"
)
"""What is said of a probability of logits."""
UNCLEAR = (
    "every score is between 0 and 1, and no sigmoid or softmax is seen to make it: it is read as it is, as a logit; if "
    "these are probabilities, end the model in nn.Sigmoid() or nn.Softmax(1), or ask a function of the output"
)
"""What is said of scores that may be either."""


def made(squashed: Squashing, logits: bool) -> str:
    """What is said where the model puts out p or log p, and how that is read, where logits are asked for or not."""
    kind = squashed.removeprefix("log_")
    if squashed in OF_LOGS:
        return f"the model puts out log p of a {kind}: {BEHIND[squashed] if logits else 'it is read, as it is or as p'}"
    read = BEHIND[squashed] if logits else "these are read, as they are or as log p"
    return f"the model puts out the probabilities p of a {kind}: {read}"


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
        yield made(squashed, logits=True)
    if squashed is not None and squashed not in OF_EACH:
        p = probabilities_of(scores, squashed)
        halves = [own[part].median() for own, part in zip(p, region, strict=True) if part.any()]
        if any(float(half) > _SURE_OF_MOST for half in halves):
            yield (
                "the model is nearly sure of most pixels of the region, where the map of log p nearly vanishes: it "
                f"shows the rim; explain the model without its last {squashed}, whose logits keep the rest"
            )
