"""What is known of a method beside its formula."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from seewhy.ensemble import Change
from seewhy.facts import asked_by
from seewhy.types import Map, Scores, Selection


@dataclass(frozen=True)
class Layered:
    """A method of several layers as formulas of single ones, whose maps over the image become one."""

    last: Callable[..., Map]
    """Of the deepest layer."""
    finer: Callable[..., Map]
    """Of all others."""
    joined: Callable[[Sequence[Map]], Map]


@dataclass(frozen=True)
class Method:
    """A formula and what a reader should know before trusting its maps."""

    function: Callable[..., Map]
    title: str
    year: int
    paper: str
    signed: bool
    """Whether the map may hold negative values, with default options."""
    weakness: str
    fusion: Literal["mean", "max_tanh"] = "mean"
    """How maps of several layers become one: see `ensemble.fuse`."""
    layers: Selection = "last"
    """The layers that it looks at where none is named."""
    relative: bool = False
    """Whether its values are of maps that were divided by their maximum, not in units of their own."""
    offset: bool = False
    """Whether its values are scores, not shares of one: zero is no place among them, heat exceeds their mean."""
    passes: str = ""
    """What it costs with default options, where that does not follow from its needs."""
    ensemble: tuple[Change, ...] = ()
    """The changes of the images that its map is the mean over."""
    batchwise: bool = False
    """Whether an image's map depends on the other images of its batch."""
    residual: Callable[..., Scores] | None = None
    """Where its parts should sum to the score: by how much they do not, a function of its map and of facts."""
    incomplete: str = ""
    """Why they may not."""
    layered: Layered | None = None
    """Where it can be told so: what it is layer by layer, before anything is scaled."""
    library: str = ""
    """Whose code it is, where it is not ours."""
    pixels: bool = False
    """Whether its map is of single pixels, where its facts do not tell."""

    @property
    def name(self) -> str:
        """The function's, after the library that it is of."""
        name = str(getattr(self.function, "__name__", type(self.function).__name__))
        return f"{self.library}:{name}" if self.library else name

    @property
    def family(self) -> str:
        """What its evidence is: the module that it stands in, such as `gradient`; or the library that it is of."""
        return self.library or self.function.__module__.rpartition(".")[2]

    @property
    def of_pixels(self) -> bool:
        """Whether its map is one of single pixels, such as gradients with respect to the image."""
        return self.pixels or {fact.pixels for fact in asked_by(self.function)} - {None} == {True}

    @property
    def class_specific(self) -> bool:
        """Whether the map depends on the question at all."""
        return any(fact.each for fact in asked_by(self.function))

    @property
    def cost(self) -> str:
        """In forward and backward passes for one image; a pass back is only through what comes after the layer."""
        backward = ", 1 back" if any(fact.back for fact in asked_by(self.function)) else ""
        return self.passes or f"1 forward{backward}"
