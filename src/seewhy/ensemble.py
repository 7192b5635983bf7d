"""Maps of maps: several layers made one, and changed copies of the images whose maps are averaged."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import isfinite
from numbers import Real
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seewhy.tensor import noise, resize, unit
from seewhy.types import MethodError, ShapeError


def fuse(maps: Sequence[Float[Tensor, "b *s"]], how: str = "mean", *, gamma: float = 2.0) -> Float[Tensor, "b *s"]:
    """One map out of the maps of several layers, each brought to 0..1 by `unit` first.

    mean: (1/n) sum_l u_l,  max: max_l u_l,  max_tanh: max(tanh(gamma u_1), ..., tanh(gamma u_n-1), u_n)

    Raw maps of different layers have no common unit, so the result is relative: it says where, not how much.

    Identity: a single map gives `unit(map)`, whatever `how`.

    Args:
        maps: In the order of execution, shallow to deep, all at one size.
        how: "mean", "max" or "max_tanh". The last is LayerCAM's: shallow maps are faint where they matter, so they are
            scaled up before the element-wise maximum.
        gamma: Strength of that scaling; 2 is the paper's.

    Returns:
        The fused map, 0..1; zero where every map is zero or less.

    Raises:
        ShapeError: No maps, or maps of different sizes.
        MethodError: An unknown `how`.

    Reference:
        Jiang et al., LayerCAM, IEEE Transactions on Image Processing 30, 2021: early layers are scaled by
        tanh(gamma L / max L) with gamma = 2, and layers are fused by the maximum. Which layers are early is our rule:
        all but the deepest one given. torch-cam scales the deepest one too.
    """
    sizes = sorted({tuple(map.shape) for map in maps})
    if len(sizes) != 1:
        got = f"maps of sizes {', '.join(map(str, sizes))}" if sizes else "no maps"
        raise ShapeError(f"got {got}; fusing takes at least one map and all of one size; resize them to one first")
    units = [unit(map) for map in maps]
    if how == "max_tanh":
        units = [*(torch.tanh(gamma * shallow) for shallow in units[:-1]), units[-1]]
    elif how not in ("mean", "max"):
        raise MethodError(f"no fusion {how!r}; choose 'mean', 'max' or 'max_tanh'")
    stacked = torch.stack(units)
    return stacked.mean(0) if how == "mean" else stacked.amax(0)


Undo = Callable[[Float[Tensor, "b *s"]], Float[Tensor, "b *s"]]
"""The way back: from the map of the changed images to one that lies on the images themselves."""


@runtime_checkable
class Change(Protocol):
    """Changed copies of a batch, one after the other, each with the way back for its map."""

    def changes(self, inputs: Float[Tensor, "b c *s"]) -> Iterator[tuple[Float[Tensor, "b c *_"], Undo]]:
        """As many copies as the ensemble has members."""
        ...


def _are(kind: type, given: Any) -> bool:
    """Whether these are some finite numbers of this kind."""
    listed = cast(Sequence[Any], given) if isinstance(given, list | tuple) else ()
    numbers = [each for each in listed if isinstance(each, kind) and not isinstance(each, bool) and isfinite(each)]
    return 0 < len(numbers) == len(listed)


@dataclass(frozen=True)
class Noise:
    """Normal noise on the images: the mean of the maps is SmoothGrad, their variance VarGrad, for any method.

    sigma = level (max x - min x), for each image its own. All images get the same draws, so that no map depends on the
    company of its image. For the gradients themselves, `methods.pixel.smooth_grad` averages ahead of joining colors.

    Args:
        samples: How many copies, at least 1; the paper's 50.
        level: sigma by the range of the image's values; the paper's 0.1 to 0.2.
        seed: Of the draws.

    Raises:
        MethodError: No samples, or a negative level.

    Reference:
        Smilkov et al., SmoothGrad: removing noise by adding noise, arXiv:1706.03825.
    """

    samples: int = 50
    level: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if not (_are(int, [self.samples]) and _are(Real, [self.level])) or self.samples < 1 or self.level < 0:
            raise MethodError(
                f"got {self.samples} samples of noise of level {self.level}; take at least one and a level of 0 or more"
            )

    def changes(self, inputs: Float[Tensor, "b c *s"]) -> Iterator[tuple[Float[Tensor, "b c *s"], Undo]]:
        """The noisy copies; their maps lie where they are."""
        spread = inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1)
        sigma = self.level * spread.reshape(-1, *[1] * (inputs.ndim - 1))
        for drawn in noise(inputs, self.samples, self.seed):
            yield inputs + sigma * drawn, _as_it_is


@dataclass(frozen=True)
class Flips:
    """The images as they are and flipped along spatial axes, in every combination; the maps flipped back.

    Identity: the map of a method that is itself flipped with the image is as without.

    Args:
        axes: Counted from the end: -1 is the width, -2 the height.

    Raises:
        MethodError: No axes, one named twice, or one not counted from the end.
    """

    axes: tuple[int, ...] = (-1,)

    def __post_init__(self) -> None:
        if not _are(int, self.axes) or len({*self.axes}) < len(self.axes) or max(self.axes) >= 0:
            raise MethodError(f"got axes {self.axes} to flip; name each once, counted from the end: (-1,) is the width")

    def changes(self, inputs: Float[Tensor, "b c *s"]) -> Iterator[tuple[Float[Tensor, "b c *s"], Undo]]:
        """The images first, then their flips.

        Raises:
            ShapeError: The images have no such axis.
        """
        if min(self.axes) < 2 - inputs.ndim:
            raise ShapeError(
                f"got axis {min(self.axes)} to flip in images of shape {tuple(inputs.shape)}; they have "
                f"{inputs.ndim - 2} spatial axes, -1 to {2 - inputs.ndim}"
            )
        for count in range(len(self.axes) + 1):
            for axes in combinations(self.axes, count):
                yield inputs.flip(axes), partial(torch.flip, dims=axes)


@dataclass(frozen=True)
class Scales:
    """The images at several sizes, and the maps brought back to the size of the images.

    Interpolated linearly, as seen from the middles of the pixels; made smaller, over as many pixels as fall on one.

    Identity: factor 1 changes nothing, and of a constant map every factor brings back the constant.

    Args:
        factors: Of each spatial side, above 0; a side has at least one pixel.

    Raises:
        MethodError: No factors, or one that is not above zero.
    """

    factors: tuple[float, ...] = (1.0, 2.0)

    def __post_init__(self) -> None:
        if not _are(Real, self.factors) or not min(self.factors) > 0:
            raise MethodError(f"got scales {self.factors}; give at least one factor, and all above 0")

    def changes(self, inputs: Float[Tensor, "b c *s"]) -> Iterator[tuple[Float[Tensor, "b c *_"], Undo]]:
        """The images at each of the sizes."""
        size = inputs.shape[2:]
        for factor in self.factors:
            scaled = _resized(inputs.flatten(0, 1), [max(1, round(factor * side)) for side in size])
            yield scaled.unflatten(0, inputs.shape[:2]), partial(_resized, size=size)


def changed(
    inputs: Float[Tensor, "b c *s"], changes: Sequence[Change]
) -> Iterator[tuple[Float[Tensor, "b c *_"], Undo]]:
    """Every combination of several kinds of changes, the first kind applied first: flips of scales, noise on both.

    Identity: without any kind, the images themselves.
    """
    if not changes:
        yield inputs, _as_it_is
        return
    for first, back in changes[0].changes(inputs):
        for copy, undo in changed(first, changes[1:]):
            yield copy, partial(_after, back, undo)


def forth(undo: Undo, size: Sequence[int]) -> Callable[[Bool[Tensor, "b *s"]], Bool[Tensor, "b *_"]]:
    """Where changed copies of this size have given pixels of the images, as the way back for their maps tells.

    A pixel of a copy belongs to them if most of what it gives to the map goes to them; where none does, the pixels that
    give them the largest part.
    """

    def moved(pixels: Bool[Tensor, "b *s"]) -> Bool[Tensor, "b *_"]:
        with torch.enable_grad():
            copy = torch.zeros(len(pixels), *size, dtype=torch.float64, device=pixels.device, requires_grad=True)
            back = undo(copy)
            own, whole = (
                torch.autograd.grad(back, copy, each.to(back), retain_graph=True)[0]
                for each in (pixels, torch.ones_like(pixels))
            )
        share = (own / whole.where(whole != 0, torch.ones_like(whole))).flatten(1)
        least = share.amax(1, keepdim=True).clamp_max(0.5)
        return ((share >= least) & (share > 0)).reshape(own.shape)

    return moved


COMBINATIONS = ("mean", "mean_squares", "variance")
"""How the maps of an ensemble become one."""


def combine(maps: Iterable[Float[Tensor, "b *s"]], how: str = "mean") -> Float[Tensor, "b *s"]:
    """One map out of those of an ensemble's members, taken one after the other and never held all at once.

    mean: (1/n) sum_j L_j;  mean_squares: (1/n) sum_j L_j^2;  variance: (1/n) sum_j (L_j - mean)^2

    Identity: mean_squares = mean^2 + variance; of maps that are all alike, the mean is that map, the variance zero.

    Args:
        maps: Of the members, raw, at one size.
        how: "mean" (SmoothGrad), "mean_squares" (SmoothGrad-squared) or "variance" (VarGrad).

    Returns:
        The map, in the unit of the maps or of their squares.

    Raises:
        ShapeError: No maps, or maps of different sizes.
        MethodError: An unknown `how`.

    Reference:
        Smilkov et al., arXiv:1706.03825; Hooker et al., arXiv:1806.10758; Adebayo et al., arXiv:1810.03307.
    """
    running = Running(how)
    for map in maps:
        running.add(map)
    return running.result()


class Running:
    """The combination of maps that come one after the other, see `combine`; only what it needs of them is held.

    Raises:
        MethodError: An unknown `how`.
    """

    def __init__(self, how: str) -> None:
        if how not in COMBINATIONS:
            raise MethodError(f"no way {how!r} of combining; choose 'mean', 'mean_squares' or 'variance'")
        self._how = how
        self._count = 0
        self._mean = self._spread = torch.zeros(())

    def add(self, map: Float[Tensor, "b *s"]) -> None:
        """One more member's map.

        Raises:
            ShapeError: It has another size than those before.
        """
        if self._count and map.shape != self._mean.shape:
            raise ShapeError(
                f"got maps of shapes {tuple(self._mean.shape)} and {tuple(map.shape)}; an ensemble combines maps of "
                "one size"
            )
        self._count += 1
        off = map - self._mean  # Welford's way keeps what hardly varies; the difference of two large squares loses it
        self._mean = self._mean + off / self._count
        self._spread = self._spread + off * (map - self._mean)

    def result(self) -> Float[Tensor, "b *s"]:
        """The combination of all that were added.

        Raises:
            ShapeError: There were none.
        """
        if not self._count:
            raise ShapeError("got no maps to combine; an ensemble has at least one member")
        variance = self._spread / self._count
        return {"mean": self._mean, "mean_squares": self._mean.square() + variance, "variance": variance}[self._how]


def _as_it_is(map: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
    return map


def _after(back: Undo, undo: Undo, map: Float[Tensor, "b *_"]) -> Float[Tensor, "b *_"]:
    return back(undo(map))


def _resized(maps: Float[Tensor, "m *_"], size: Sequence[int]) -> Float[Tensor, "m *_"]:
    return resize(maps, [_sampling(out, cells) for out, cells in zip(size, maps.shape[1:], strict=True)])


def _sampling(out: int, cells: int) -> Float[Tensor, "out cells"]:
    """Linear interpolation between the middles of pixels; made smaller, over all pixels that fall on one."""
    middles = (torch.arange(out, dtype=torch.float64) + 0.5) * cells / out - 0.5
    distance = (middles[:, None] - torch.arange(cells, dtype=torch.float64)).abs()
    weights = (1 - distance / max(1.0, cells / out)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)
