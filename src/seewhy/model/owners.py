"""Which module put out which tensor of a recorded forward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from seewhy.model.graph import Edge, shape_of
from seewhy.model.spot import Spot
from seewhy.types import Path

Seen = tuple[str, int, Path, tuple[int, ...], Edge | None]
"""What a module put out: its name, which call, where in the output, the tensor's shape and edge."""


@dataclass(frozen=True)
class Traced:
    """A tensor that a layer put out: `name` is the module, `module@2` its second call, or `module + relu`.

    `spot` is where a capture finds it; `edge` is None where the image has no part in it; `order` counts outputs as they
    came.
    """

    name: str
    spot: Spot
    shape: tuple[int, ...]
    edge: Edge | None
    order: int

    @property
    def path(self) -> Path:
        """Leads to the tensor inside an output that is a tuple or mapping."""
        return self.spot.index


def named(seen: Sequence[Seen], calls: Mapping[str, int]) -> list[Traced]:
    """The outputs as they came, by names that tell the calls of a module apart."""
    return [
        Traced(name if calls[name] == 1 else f"{name}@{call}", Spot(name, call, path), shape, edge, order)
        for order, (name, call, path, shape, edge) in enumerate(seen)
    ]


def by_name(outputs: Sequence[Traced]) -> dict[str, tuple[Traced, ...]]:
    """The outputs of each name."""
    found: dict[str, tuple[Traced, ...]] = {}
    for traced in outputs:
        found[traced.name] = (*found.get(traced.name, ()), traced)
    return found


def owners_of(outputs: Sequence[Traced], aliases: Mapping[str, Sequence[str]]) -> dict[Edge, Traced]:
    """Each tensor's outermost module: hooks fire inside out, so an enclosing one comes later.

    One that merely passes a tensor on (an Identity further down) does not take it over, nor does a tuple around it.

    Args:
        outputs: as they came.
        aliases: all names of a module that stands in several places, such as one activation for a whole model.
    """
    owners: dict[Edge, Traced] = {}
    for traced in outputs:
        if traced.edge is None:
            continue
        owner = owners.get(traced.edge)
        names = aliases.get(owner.spot.module, [owner.spot.module]) if owner else []
        encloses = any(name.startswith(traced.spot.module + ".") for name in names)
        if owner is None or (not traced.path and (owner.path or encloses)):
            owners[traced.edge] = traced
    return owners


def rectified_by_function(
    rectified: Sequence[tuple[Edge, str, Edge]], owners: Mapping[Edge, Traced]
) -> dict[Edge, Traced]:
    """Rectifiers applied by function to a module's output, which no module puts out: `features + relu`."""
    found: dict[Edge, Traced] = {}
    for before, name, after in rectified:
        owner = owners.get(before)
        if owner is not None and after not in owners:
            spot = replace(owner.spot, rectifier=name)
            found[after] = Traced(f"{owner.name} + {name}", spot, shape_of(after), after, owner.order)
    return found
