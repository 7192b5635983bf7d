"""What was found about a model, and about the way to what is asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seewhy.model.blocks import Block
from seewhy.model.places import Place
from seewhy.model.spot import Spot
from seewhy.model.trace import End


@dataclass(frozen=True)
class Known:
    """What is true of a model and of its score tensor, whatever is asked, while its weights have this stamp.

    Args:
        stamp: of its modules and weights, see `Census.stamp`.
        blocks: its attentions' blocks, by the attention's number; None: not looked for.
        head: the linear layer whose output is the scores.
        end: what put out its scores, see `Trace.end`.
        headless: no weights come between its features and its scores.
    """

    stamp: int
    blocks: Mapping[int, Block] | None
    head: str | None = None
    end: End = ""
    headless: bool = False


@dataclass(frozen=True)
class Found:
    """What a question looks at: the layers of each group that shall become one map, and what its pass showed.

    Args:
        groups: the layers.
        biased: where biases are added on the way to what is asked about.
        gated: the model runs a part inside a `no_grad` or `enable_grad` block of its own.
        edits: it writes into its input.
        known: of the model, the same for all questions.
    """

    groups: tuple[tuple[Place, ...], ...]
    biased: Mapping[str, Spot]
    gated: bool
    edits: bool
    known: Known

    @property
    def places(self) -> tuple[Place, ...]:
        """Every layer once."""
        return tuple({place.name: place for group in self.groups for place in group}.values())


def together(founds: Sequence[Found]) -> Found:
    """Everything that several questions look at, to be captured in one pass."""
    founds = list({id(found): found for found in founds}.values())
    if len(founds) == 1:
        return founds[0]
    return Found(
        groups=tuple(group for found in founds for group in found.groups),
        biased={name: spot for found in founds for name, spot in found.biased.items()},
        gated=any(found.gated for found in founds),
        edits=any(found.edits for found in founds),
        known=founds[0].known,
    )
