"""The methods that mask, ablate and occlude once more: slow, in plain loops, one image and one change at a time.

Images are lists `x[color][pixel]`, activations `A[k][p]`; `score(x)` runs the model on one changed image, `tail(A)` its
end on changed activations, `lay(map)` lays a map of the layer on the pixels.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from oracles import Channels, combine, positive, stretched

Oracle = Callable[..., list[float]]
ORACLES: dict[str, Oracle] = {}


@dataclass(frozen=True)
class One:
    """The facts of one image."""

    x: Channels
    A: Channels
    g: Channels
    y: float
    size: tuple[int, ...]
    grid: tuple[int, ...]
    score: Callable[[Channels], float]
    tail: Callable[[Channels], float]
    lay: Callable[[list[float]], list[float]]
    graph_score: Callable[[Tensor], Tensor]
    graph_lay: Callable[[Tensor], Tensor]


def oracle(function: Oracle) -> Oracle:
    ORACLES[function.__name__] = function
    return function


def mask_of(one: One, channel: list[float]) -> list[float]:
    if min(channel) == max(channel):
        return [0.0] * math.prod(one.size)
    return stretched(one.lay(channel))


def times(x: Channels, mask: list[float]) -> Channels:
    return [[value * m for value, m in zip(color, mask, strict=True)] for color in x]


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


@oracle
def score_cam(one: One, *, variant: str = "paper", channels: int | None = None, rectify: bool = True) -> list[float]:
    A = one.A
    if channels is not None:
        means = [sum(channel) / len(channel) for channel in A]
        spreads = [sum((value - means[k]) ** 2 for value in A[k]) for k in range(len(A))]
        A = [A[k] for k in sorted(range(len(A)), key=lambda k: -spreads[k])[:channels]]
    scores = [one.score(times(one.x, mask_of(one, channel))) for channel in A]
    if variant == "authors":
        alive = [min(channel) < max(channel) for channel in A]
        return combine([score if a else 0.0 for score, a in zip(scores, alive, strict=True)], A, rectify)
    nothing = one.score(times(one.x, [0.0] * len(one.x[0])))
    return combine(softmax([score - nothing for score in scores]), A, rectify)


@oracle
def ss_cam(
    one: One, *, noise_on: str = "mask", samples: int = 10, sigma: float = 2.0, rectify: bool = True, seed: int = 0
) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    pixels, colors = len(one.x[0]), len(one.x)
    totals = [0.0] * len(one.A)
    for _ in range(samples):
        shape = one.size if noise_on == "mask" else (colors, *one.size)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64).reshape(-1, pixels).tolist()
        for k, channel in enumerate(one.A):
            mask = mask_of(one, channel)
            if noise_on == "mask":
                changed = times(one.x, [mask[p] + sigma * drawn[0][p] for p in range(pixels)])
            else:
                masked = times(one.x, mask)
                changed = [[masked[c][p] + sigma * drawn[c][p] for p in range(pixels)] for c in range(colors)]
            totals[k] += one.score(changed)
    return combine(softmax([total / samples for total in totals]), one.A, rectify)


@oracle
def is_cam(one: One, *, samples: int = 10, cumulative: bool = False, rectify: bool = True) -> list[float]:
    means = []
    for channel in one.A:
        total, coefficient = 0.0, 0.0
        for n in range(1, samples + 1):
            coefficient = coefficient + n / samples if cumulative else n / samples
            total += one.score(times(one.x, [coefficient * m for m in mask_of(one, channel)]))
        means.append(total / samples)
    return combine(softmax(means), one.A, rectify)


@oracle
def group_cam(
    one: One,
    *,
    groups: int = 32,
    theta: float = 0.7,
    sigma: float = 50.0,
    radius: int = 25,
    rectify: bool = True,
) -> list[float]:
    size = math.ceil(len(one.A) / groups)
    soft = [blur(color, one.size, sigma, radius) for color in one.x]
    baseline = one.score(soft)
    map = [0.0] * len(one.A[0])
    for start in range(0, len(one.A), size):
        members = range(start, min(start + size, len(one.A)))
        alphas = {k: sum(one.g[k]) / len(one.g[k]) for k in members}
        initial = [positive(sum(alphas[k] * one.A[k][p] for k in members)) for p in range(len(one.A[0]))]
        ranked = sorted(initial)
        at = theta * (len(ranked) - 1)
        after = min(int(at) + 1, len(ranked) - 1)
        limit = ranked[int(at)] * (1 - (at - int(at))) + ranked[after] * (at - int(at))
        clean = [value if value > limit else 0.0 for value in initial]
        if min(clean) == max(clean):
            continue
        laid = one.lay(clean)
        mask = stretched(laid)
        both = list(zip(one.x, soft, strict=True))
        weight = (
            one.score([[a * m + b * (1 - m) for a, b, m in zip(x, y, mask, strict=True)] for x, y in both]) - baseline
        )
        for p in range(len(map)):
            map[p] += weight * (clean[p] - min(laid)) / (max(laid) - min(laid))
    return [positive(value) for value in map] if rectify else map


def blur(color: list[float], size: tuple[int, ...], sigma: float, radius: int) -> list[float]:
    """A Gaussian along one axis after the other, mirrored at the borders, which are not repeated."""
    values = torch.tensor(color, dtype=torch.float64).reshape(size)
    kernel = [math.exp(-(d * d) / (2 * sigma * sigma)) for d in range(-radius, radius + 1)]
    for axis, side in enumerate(size):
        result = torch.zeros_like(values)
        for at in range(side):
            for d, weight in zip(range(-radius, radius + 1), kernel, strict=True):
                from_ = at + d
                while not 0 <= from_ < side:
                    from_ = -from_ if from_ < 0 else 2 * (side - 1) - from_
                    from_ = 0 if side == 1 else from_
                result.select(axis, at).add_(values.select(axis, from_), alpha=weight / sum(kernel))
        values = result
    return values.flatten().tolist()


@oracle
def opti_cam(one: One, *, steps: int = 100, rate: float = 0.1) -> list[float]:
    """With torch's own Adam, and the extremes of the mask picked by their places."""
    A = torch.tensor(one.A, dtype=torch.float64).clamp_min(0)
    x = torch.tensor(one.x, dtype=torch.float64)
    u = torch.nn.Parameter(torch.zeros(len(A), dtype=torch.float64))
    adam = torch.optim.Adam([u], lr=rate)
    for _ in range(steps):
        laid = one.graph_lay((torch.exp(u) / torch.exp(u).sum()) @ A)
        low, high = laid[int(laid.argmin())], laid[int(laid.argmax())]
        loss = one.y - one.graph_score(x * ((laid - low) / (high - low)))
        adam.zero_grad()
        loss.backward()
        for k in range(len(A)):
            if A[k].min() == A[k].max():
                u.grad[k] = 0  # exactly: min-max undoes what such a channel does
        adam.step()
    return combine(softmax(u.tolist()), A.tolist(), rectify=False)


@oracle
def ablation_cam(one: One, *, relative: bool = False, rectify: bool = True) -> list[float]:
    weights = []
    for k in range(len(one.A)):
        without = one.tail([[0.0] * len(channel) if j == k else channel for j, channel in enumerate(one.A)])
        weights.append((one.y - without) / abs(one.y) if relative else one.y - without)
    return combine(weights, one.A, rectify)


@oracle
def recipro_cam(one: One, *, variant: str = "paper", stretch: bool = True) -> list[float]:
    places = list(itertools.product(*map(range, one.grid)))
    bell = {0: 1.0} if variant == "authors" else {0: 0.5, 1: 0.25}
    scores = []
    for here, place in enumerate(places):
        mask = [math.prod(bell.get(abs(a - b), 0.0) for a, b in zip(place, other, strict=True)) for other in places]
        if variant == "authors_gaussian":
            alone = [[m * channel[here] for m in mask] for channel in one.A]
        else:
            alone = [[m * value for m, value in zip(mask, channel, strict=True)] for channel in one.A]
        scores.append(one.tail(alone))
    return stretched(scores) if stretch else scores


@oracle
def rise(one: One, *, masks: int = 4000, cells: int = 7, keep: float = 0.5, seed: int = 0) -> list[float]:
    rank = len(one.size)
    generator = torch.Generator().manual_seed(seed)
    grids = torch.rand(masks, *[cells] * rank, generator=generator, dtype=torch.float64) < keep
    sides = [math.ceil(size / cells) for size in one.size]
    shifts = [torch.randint(side, (masks,), generator=generator).tolist() for side in sides]
    pixels = list(itertools.product(*map(range, one.size)))
    map_ = [0.0] * len(pixels)
    for n in range(masks):
        mask = []
        for pixel in pixels:
            corners = []
            for at, side, shift in zip(pixel, sides, shifts, strict=True):
                position = min(max((at + shift[n] + 0.5) * cells / (side * (cells + 1)) - 0.5, 0.0), cells - 1.0)
                below = int(position)
                corners.append([(below, 1 - position + below), (min(below + 1, cells - 1), position - below)])
            value = 0.0
            for choice in itertools.product(*corners):
                shown = float(grids[(n, *(cell for cell, _ in choice))])
                value += shown * math.prod(weight for _, weight in choice)
            mask.append(value)
        score = one.score(times(one.x, mask))
        map_ = [total + score * m for total, m in zip(map_, mask, strict=True)]
    return [total / (masks * keep) for total in map_]


@oracle
def occlusion(one: One, *, patch: int | None = None, stride: int | None = None, fill: float = 0.0) -> list[float]:
    sides = [math.ceil(size / 7) if patch is None else patch for size in one.size]
    steps = [max(side // 2, 1) if stride is None else stride for side in sides]
    starts = []
    for size, side, step in zip(one.size, sides, steps, strict=True):
        line = [0]
        while line[-1] + side < size:
            line.append(min(line[-1] + step, size - side))
        starts.append(line)
    pixels = list(itertools.product(*map(range, one.size)))
    drops: list[list[float]] = [[] for _ in pixels]
    for corner in itertools.product(*starts):
        inside = [all(c <= at < c + side for c, at, side in zip(corner, pixel, sides, strict=True)) for pixel in pixels]
        covered = [[fill if hidden else value for hidden, value in zip(inside, color, strict=True)] for color in one.x]
        drop = one.y - one.score(covered)
        for p, hidden in enumerate(inside):
            if hidden:
                drops[p].append(drop)
    return [sum(seen) / len(seen) for seen in drops]
