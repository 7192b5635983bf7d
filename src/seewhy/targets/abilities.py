"""What a settled question may tell of itself, beyond its score: each member is optional, and its absence has a meaning.

The backward pass looks for `gradient` and `reads` by these names too; `marks`, what a question draws on the picture, is
described where it is used.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.targets.question import Question
from seewhy.types import Path, Rows, Scores, Target

Move = Callable[[Bool[Tensor, "b *s"]], Bool[Tensor, "b *_"]]
"""From pixels of the images to where changed copies of these have them."""
CHOSEN = "target: "
"""How a note begins that says what the clean pass chose, where nobody named it."""
SCORES_AT = "scores read from output"
"""How a note begins that says where the scores are."""

_A = TypeVar("_A")


def can(target: Any, ability: type[_A]) -> TypeGuard[_A]:
    """As `isinstance`, which looks for all members anew at every call; of a dataclass all instances have the same."""
    kind = type(target)
    if not is_dataclass(kind):
        return isinstance(target, ability)
    if (kind, ability) not in _KNOWN:
        _KNOWN[kind, ability] = isinstance(target, ability)
    return _KNOWN[kind, ability]


_KNOWN: dict[tuple[type, type], bool] = {}


@runtime_checkable
class Told(Protocol):
    """It has words for titles; without, its name is the title."""

    def told(self, question: Question, image: int, /) -> str:
        """What is asked of this image."""
        ...


@runtime_checkable
class Noted(Protocol):
    """It was chosen, or is to be read with care; without, nothing is said."""

    @property
    def note(self) -> str:
        """That in a sentence, or nothing."""
        ...


@runtime_checkable
class Doubted(Protocol):
    """What the model answers may spoil its map; without, nothing is known to."""

    def doubts(self, question: Question, probabilities: Float[Tensor, "b k"], /) -> Iterable[str]:
        """What is to be said of it, given the clean output."""
        ...


@runtime_checkable
class Reads(Protocol):
    """It reads one place of the output; without, it may read any."""

    @property
    def reads(self) -> Path | None:
        """Where; None where there are several."""
        ...


@runtime_checkable
class Sloped(Protocol):
    """It knows its gradient; without, autograd finds it."""

    def gradient(self, output: Any, rows: Rows, /) -> tuple[Path, Tensor] | None:
        """Where the gradient with respect to the output is, and it; None where autograd is to find it."""
        ...


@runtime_checkable
class Whole(Protocol):
    """The output tells more of what it is about than is asked; without, that is all."""

    def whole(self, output: Any, rows: Rows, /) -> Scores:
        """A number for each row that depends on all of that."""
        ...


@runtime_checkable
class Extended(Protocol):
    """What it is about takes up some part of the image; without, it may be anywhere."""

    @property
    def extent(self) -> Mapping[int, tuple[float, ...]]:
        """For each image that is asked about, how many pixels along each axis."""
        ...


@runtime_checkable
class Sees(Protocol):
    """Which layers it reads may depend on the images, so that they are found on these; without, on noise."""

    @property
    def sees(self) -> bool:
        """Whether that is so."""
        ...


@runtime_checkable
class Moves(Protocol):
    """It is about places of the image; without, it does not matter where changed copies have them."""

    def moved(self, move: Move, /) -> Target:
        """The same question of such copies."""
        ...


@runtime_checkable
class Fixed(Protocol):
    """Of an open question: the clean output only checks it; without, the output decides what is asked."""

    @property
    def fixed(self) -> bool:
        """Whether that is so."""
        ...


@runtime_checkable
class Prefers(Protocol):
    """Of an open question: the method that answers it where none is named; without, that is Grad-CAM."""

    @property
    def prefers(self) -> str:
        """That method's name."""
        ...
