"""What a settled question marks in an image."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.marks import Marks, cell_of, joined
from seewhy.targets.arithmetic import Each, Sum
from seewhy.targets.dense import nearest
from seewhy.targets.question import Open, Question
from seewhy.types import Target

_SMALL = 1 / 16
"""Of a layer's cells; what is larger has a map of its own to show."""


def marked(target: Target | Open, question: Question, image: int) -> Marks:
    """Where in one image lies what is asked about; a target that is about places has a method `marks` for it."""
    found = (getattr(leaf, "marks", None) for leaf in _about(target, image))
    return joined([marks(question, image) for marks in found if marks])


def nearby(marks: Marks, heat: Float[Tensor, "*grid"]) -> float | None:
    """The share of a layer's heat that lies within a cell of a point or region; None where that is no small part."""
    asked = _cells(marks, tuple(heat.shape))
    if not 0 < int(asked.sum()) <= _SMALL * asked.numel():
        return None
    pool = (torch.max_pool1d, torch.max_pool2d, torch.max_pool3d)[heat.ndim - 1]
    near = pool(asked[None, None].float(), 3, 1, 1)[0, 0] > 0
    heat = heat.detach().cpu().relu()
    return float(heat[near].sum() / heat.sum()) if heat.any() else None


def _cells(marks: Marks, grid: tuple[int, ...]) -> Bool[Tensor, "*grid"]:
    """The cells of a layer's grid that points and regions lie in."""
    found = torch.zeros(grid, dtype=torch.bool)
    for region in marks.grids:
        found |= nearest(region[None].cpu(), grid)[0]
    for point in marks.points:
        cell = cell_of(point, marks.sight, marks.size, grid)
        if cell is not None:
            found[tuple(cell)] = True
    return found


def _about(target: Target | Open, image: int) -> Iterator[Target | Open]:
    """The parts of a question that are about one image."""
    if isinstance(target, Each):
        yield from _about(target.targets[image], image)
    elif isinstance(target, Sum):
        for _, part in target.terms:
            yield from _about(part, image)
    else:
        yield target
