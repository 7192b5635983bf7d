"""How the cells of an image's grid lie in a layer's raw tensor: channels first, channels last, or a token sequence."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from operator import le
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.types import LayerError
from seewhy.wording import by

Grid = tuple[int, ...]
Positions = range | tuple[int, ...]
_TOKENS = (
    'state the others as well, as in layout="b 1+n c" for one class token ahead of the patches, or their grid, as in '
    'layout="b 16x4 c"'
)
_AXES = {1: "l", 2: "h w", 3: "d h w"}


@dataclass(frozen=True)
class Layout:
    """Where a raw tensor keeps channels and cells: the way from it to `(b c *grid)` and back.

    Kinds, by the order of axes: `bc*` (BCHW, BCL, BCDHW), `b*c` (BHWC, BDHWC), `bnc` and `bcn` (tokens, of which those
    at `positions` are the image's patches, row by row; the others are class, register or detection tokens), `nc` (the
    same of one image after the other, without an axis for them), `btc*` and `btnc` (BCHW and tokens of the frames of
    videos, one video after the other).
    """

    kind: Literal["bc*", "b*c", "bnc", "bcn", "nc", "btc*", "btnc"]
    grid: Grid
    positions: Positions = field(default=range(0), repr=False)

    def __str__(self) -> str:
        axes = _AXES.get(len(self.grid), "*")
        named = {"bnc": "b n c", "bcn": "b c n", "nc": "(b n) c", "btc*": "(b t) c h w", "btnc": "(b t) n c"}
        return {"bc*": f"b c {axes}", "b*c": f"b {axes} c", **named}[self.kind]

    def to_cells(self, raw: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The raw tensor as `(b c *grid)`, a view where the patches stand in a row; other tokens are dropped.

        Axes ahead of the batch pass through, so that gradients of q questions come as `(q b c *grid)`.
        """
        if self.kind == "bc*":
            return raw
        channel = -1 - len(self.grid)
        if self.kind == "b*c":
            return raw.movedim(-1, channel)
        if self.kind == "btc*":
            return raw.unflatten(channel, (-1, self.grid[0])).transpose(channel, channel + 1)
        tokens = self._tokens(raw)
        if isinstance(self.positions, range):
            patches = tokens.narrow(-2, self.positions.start, len(self.positions))
        else:
            patches = tokens.index_select(-2, torch.tensor(self.positions, device=raw.device))
        if self.kind == "btnc":
            patches = patches.unflatten(-3, (-1, self.grid[0])).flatten(-3, -2)
        return patches.unflatten(-2, self.grid).movedim(-1, channel)

    def from_cells(self, cells: Float[Tensor, "..."], raw_like: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The raw tensor with these cells; other tokens are those of `raw_like`. `from_cells(to_cells(x), x)` is x."""
        if self.kind == "bc*":
            return cells
        channel = -1 - len(self.grid)
        if self.kind == "btc*":
            return cells.transpose(channel, channel + 1).flatten(channel - 1, channel)
        last = cells.movedim(channel, -1)
        if self.kind == "b*c":
            return last
        patches = last.flatten(channel, -2)
        if self.kind == "btnc":
            patches = patches.unflatten(-2, (self.grid[0], -1)).flatten(-4, -3)
        where = torch.tensor(tuple(self.positions), device=raw_like.device)
        filled = self._tokens(raw_like).index_copy(-2, where, patches.to(raw_like.dtype))
        if self.kind == "nc":
            return filled.flatten(-3, -2)
        return filled.transpose(-1, -2) if self.kind == "bcn" else filled

    def _tokens(self, raw: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The tokens `(... b n c)`."""
        if self.kind == "nc":
            return raw.unflatten(-2, (-1, len(self.positions)))
        return raw.transpose(-1, -2) if self.kind == "bcn" else raw


@dataclass(frozen=True)
class Clues:
    """What is known of a raw tensor beside its shape.

    Args:
        batch: images in the batch that it was made from.
        frames: pictures that the model takes of each of these one by one; 0 where it takes them whole.
        channels: its channel axis, where an operation that made or reads it leaves no doubt.
        unshaped: made from the image by convolutions and the like alone, never reshaped; its rank then speaks.
        grids: spatial grids of tensors that it was made from, the nearest first.
        patches: for an axis of tokens, which of them the image has a part in; all of them where it is missing.
        others: how many tokens stood ahead of the patches and behind them in an earlier sequence.
        rows: where its rows stand, if the model takes rows of patches.
    """

    batch: int
    channels: int | None = None
    frames: int = 0
    unshaped: bool = False
    grids: tuple[Grid, ...] = ()
    patches: Mapping[int, Positions] = field(default_factory=dict[int, Positions])
    others: tuple[int, int] = (0, 0)
    rows: Layout | None = None


def fits(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Whether one stride s, common to all axes, explains the grid: |grid_i - size_i / s| <= 1."""
    least, most = _densities(grid, size)
    return len(grid) == len(size) and least <= most


def possible(shape: Sequence[int], size: Sequence[int], clues: Clues) -> list[Layout]:
    """Every layout that a raw tensor of this shape can have, for images of this spatial size.

    None: it has no spatial grid (or mixes it into the batch, as windows do). Several: only the caller can tell.
    """
    if clues.rows:
        return [clues.rows]
    if len(shape) == 3 and clues.frames and shape[0] == clues.batch * clues.frames:
        found = _tokens(shape, size[1:], clues, axes=(1,))
        return [Layout("btnc", (clues.frames, *each.grid), each.positions) for each in found]
    if not shape or shape[0] != clues.batch:
        of_frames = len(size) == 3 and len(shape) == 4 and clues.channels == 1 and shape[0] == clues.batch * size[0]
        return [Layout("btc*", (size[0], *shape[2:]))] if of_frames and fits(shape[2:], size[1:]) else []
    if len(shape) == len(size) + 2 and len(size) > 1:
        return _gridded(tuple(shape), size, clues)
    if len(shape) != 3:
        return []
    if len(size) > 1:
        return _tokens(shape, size, clues)
    first = [Layout("bc*", (shape[2],))] if clues.channels in (1, None) else []
    open_still = clues.channels is None and not clues.unshaped
    last = [Layout("b*c", (shape[1],))] if clues.channels == 2 or open_still else []
    extra = len(clues.patches.get(1, range(shape[1]))) < shape[1]
    return first + (_tokens(shape, size, clues, axes=(1,)) if last and extra else last)


def infer(shape: Sequence[int], size: Sequence[int], clues: Clues) -> Layout:
    """The one layout that a raw tensor of this shape can have.

    Raises:
        LayerError: there is none, or there are several and the trace does not tell which.
    """
    found = possible(shape, size, clues)
    if len(found) == 1:
        return found[0]
    seen, of = tuple(shape), by(size)
    if not found:
        raise LayerError(
            f"got a layer output of shape {seen}, which has no grid of an image of {of}; name a layer with one cell "
            'for each place of the image, or state its axes with layout=, as in layout="b h w c"'
        )
    choices = " or ".join(f'layout="{layout}" (grid {by(layout.grid)})' for layout in found)
    raise LayerError(f"got a layer output of shape {seen}, which can be read in several ways; pass {choices}")


def stated(pattern: str, shape: Sequence[int], size: Sequence[int], clues: Clues) -> Layout:
    """The layout that the user states: `b c h w`, `b h w c`, `b n c`, `b c n`, or `b 1+n+100 c` with other tokens.

    In place of n may stand the grid of the patches, as in `b 16x4 c`.

    Raises:
        LayerError: the pattern is none of these, or does not fit the shape.
    """
    axes = re.sub(r"\s*\+\s*", "+", pattern.lower()).split()
    axes = axes if len(axes) > 1 else list(pattern.lower())
    if len(axes) != len(shape) or axes[0] != "b" or "c" not in (axes[1], axes[-1]) or axes.count("c") > 1:
        raise LayerError(
            f'got layout="{pattern}" for an output of shape {tuple(shape)}; write one letter for each axis, b first: '
            '"b c h w", "b h w c", "b n c", "b c n", "b 1+n c" where 1 token ahead of the patches is none of them, or '
            '"b 16x4 c" where n are 16 rows of 4'
        )
    channel = axes.index("c")
    count = axes[3 - channel] if len(axes) == 3 else ""
    if "n" in count or "x" in count:
        return _told(count, channel, shape, size, clues)
    return Layout("bc*", tuple(shape[2:])) if channel == 1 else Layout("b*c", tuple(shape[1:-1]))


def is_guessed(pattern: str, layout: Layout, size: Sequence[int], clues: Clues) -> bool:
    """Whether a stated layout has its grid by nothing but the image's proportions: neither tensor nor pattern does."""
    shown = clues.grids and _grid_of(prod(layout.grid), size, clues.grids)
    return layout.kind in ("bnc", "bcn") and len(size) > 1 and "x" not in pattern.lower() and not shown


def _told(count: str, channel: int, shape: Sequence[int], size: Sequence[int], clues: Clues) -> Layout:
    """Tokens as stated: `n`, `1+n+100` with other tokens ahead and behind, `16x4` or `1+16x4` with their grid."""
    axis = 3 - channel
    match = re.fullmatch(r"(?:(\d+)\+)?(n|\d+(?:x\d+)+)(?:\+(\d+))?", count)
    if match is None:
        raise LayerError(f"got {count!r} as the tokens of a layout; write n, 1+n, n+6, or the patches' grid as in 16x4")
    before, which, after = match.groups(default="0")
    patches = range(int(before), shape[axis] - int(after))
    known = patches if "+" in count else clues.patches.get(axis) or patches
    grid = tuple(map(int, which.split("x"))) if which != "n" else _guessed(len(known), size, clues)
    if grid is None or prod(grid) != len(known) or len(grid) != len(size):
        what = by(grid) if which != "n" and grid else "no grid"
        raise LayerError(f"{len(known)} patch tokens make {what} of an image of {by(size)}; {_TOKENS}")
    return Layout("bnc" if axis == 1 else "bcn", grid, known)


def _guessed(count: int, size: Sequence[int], clues: Clues) -> Grid | None:
    """The grid that so many patches were seen on, else the one with the image's aspect."""
    return _grid_of(count, size, clues.grids) or _grid_of(count, size, ())


def _densities(grid: Sequence[int], size: Sequence[int]) -> tuple[float, float]:
    """The least and greatest number of cells per pixel that all axes allow, each to within one cell."""
    pairs = list(zip(grid, size, strict=False))
    return max((cells - 1) / pixels for cells, pixels in pairs), min((cells + 1) / pixels for cells, pixels in pairs)


def _exact(grid: Sequence[int], size: Sequence[int]) -> bool:
    return all(cells * size[0] == grid[0] * pixels for cells, pixels in zip(grid, size, strict=True))


def _gridded(shape: tuple[int, ...], size: Sequence[int], clues: Clues) -> list[Layout]:
    first, last = Layout("bc*", shape[2:]), Layout("b*c", shape[1:-1])
    if clues.channels == 1:
        return [first] if clues.unshaped or fits(first.grid, size) else []
    if clues.channels is not None:
        # time and depth have strides of their own: of five axes, the last is proof enough
        credible = fits(last.grid, size) or (len(size) == 3 and all(map(le, last.grid, size)))
        return [last] if clues.channels == len(shape) - 1 and credible else []
    fitting = [layout for layout in (first, last) if fits(layout.grid, size)]
    exact = [layout for layout in fitting if _exact(layout.grid, size)]
    return exact if len(exact) == 1 else fitting


def _tokens(shape: Sequence[int], size: Sequence[int], clues: Clues, axes: Sequence[int] = (1, 2)) -> list[Layout]:
    found: list[Layout] = []
    for axis in axes:
        patches = clues.patches.get(axis, range(shape[axis]))
        grid = _grid_of(len(patches), size, clues.grids)
        if grid is None and len(patches) == shape[axis]:  # by now all tokens depend on the image; their places stay
            patches = range(clues.others[0], shape[axis] - clues.others[1])
            grid = _grid_of(len(patches), size, clues.grids)
        if grid is not None and clues.channels != axis:
            found.append(Layout("bnc" if axis == 1 else "bcn", grid, patches))
    return found


def _grid_of(count: int, size: Sequence[int], seen: Sequence[Grid]) -> Grid | None:
    """The nearest grid already seen with so many cells; where none was ever seen, the one of the image's aspect."""
    if len(size) == 1 or not count:
        return (count,) if count else None
    if seen:
        return next((grid for grid in seen if prod(grid) == count), None)
    divisors = [length for length in range(1, count + 1) if count % length == 0]
    grids = [grid for grid in product(divisors, repeat=len(size)) if prod(grid) == count and fits(grid, size)]
    return max(grids, key=lambda grid: _densities(grid, size)[1] - _densities(grid, size)[0], default=None)
