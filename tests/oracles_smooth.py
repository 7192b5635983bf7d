"""Methods of changed inputs, many layers, activations alone and concepts once more: slow, in plain Python, from papers.

Each oracle is about one image. A tensor comes as lists, `A[k][p]` for channel k and place p of the flattened grid; a
map goes back as a list over places. `gradients_at` takes and gives tensors, as it does for the methods.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from oracles import Channels, Matrix, combine, grad_cam, grad_cam_pp, leading_direction, mean, positive, stretched

Map = list[float]


def listed(x: Tensor) -> Channels:
    return x.flatten(1).tolist()


def shapley_cam(A: Channels, g: Channels, hessian_product: Channels, *, rectify: bool = True) -> Map:
    alphas = [mean([g[k][p] - 0.5 * hessian_product[k][p] for p in range(len(g[k]))]) for k in range(len(A))]
    return combine(alphas, A, rectify)


def fem(A: Channels, *, sigmas: float = 2.0, variant: str = "authors") -> Map:
    map = [0.0] * len(A[0])
    for channel in A:
        middle = mean(channel)
        deviation = math.sqrt(mean([(value - middle) ** 2 for value in channel]))
        marked = [p for p, value in enumerate(channel) if value > middle + sigmas * deviation]
        if variant == "authors":
            for p in marked:
                map[p] += middle
        else:
            for p, value in enumerate(channel):
                map[p] += len(marked) / len(channel) * value
    return map


def kpca_cam(A: Channels, *, kernel: str = "sigmoid", gamma: float | None = None) -> Map:
    """The textbook's kernel PCA: the kernel matrix, centered with the matrix of ones, and its largest eigenpair."""
    places, channels = range(len(A[0])), range(len(A))
    means = [mean(channel) for channel in A]
    x = [[A[k][p] - means[k] for k in channels] for p in places]
    scale = 1 / len(A) if gamma is None else gamma

    def of(a: list[float], b: list[float]) -> float:
        product = sum(a[k] * b[k] for k in channels)
        distance = sum((a[k] - b[k]) ** 2 for k in channels)
        return {"sigmoid": math.tanh(scale * product + 1), "rbf": math.exp(-scale * distance), "linear": product}[
            kernel
        ]

    K = [[of(x[p], x[q]) for q in places] for p in places]
    rows, whole = [mean(row) for row in K], mean([value for row in K for value in row])
    K = [[K[p][q] - rows[p] - rows[q] + whole for q in places] for p in places]
    # added to the diagonal, this makes the algebraically largest eigenvalue also the largest in size
    shift = max(sum(abs(value) for value in row) for row in K)
    v = leading_direction([[K[p][q] + (shift if p == q else 0) for q in places] for p in places])
    value = sum(v[p] * K[p][q] * v[q] for p in places for q in places)
    map = [math.sqrt(value) * v[p] for p in places]
    side = sum(map[p] * sum(x[p]) for p in places)
    return [-value for value in map] if side < 0 else map


def enlarged(map: Map, matrix: Matrix) -> Map:
    return [sum(matrix[i][p] * map[p] for p in range(len(map))) for i in range(len(matrix))]


def refine_cam(As: list[Channels], gs: list[Channels], matrices: list[Matrix]) -> Map:
    product = [1.0] * len(matrices[0])
    for A, g, matrix in zip(As, gs, matrices, strict=True):
        map = grad_cam_pp(A, g, alpha_normalize=False, rectify=True)
        largest = max(map)
        large = enlarged([value / largest if largest > 0 else 0.0 for value in map], matrix)
        product = [product[i] * large[i] for i in range(len(product))]
    return product


def winsor_cam(As: list[Channels], gs: list[Channels], matrices: list[Matrix], *, percentile: float = 99.0) -> Map:
    importances = [positive(mean([value for channel in g for value in channel])) for g in gs]
    counted = sorted(value for value in importances if value > 0)
    map = [0.0] * len(matrices[0])
    if not counted:
        return map
    place = percentile / 100 * (len(counted) - 1)
    below = min(math.floor(place), len(counted) - 1)
    above = min(below + 1, len(counted) - 1)
    highest = counted[below] + (place - below) * (counted[above] - counted[below])
    cut = [min(value, highest) for value in importances]
    low, high = min(c for c in cut if c > 0), max(c for c in cut if c > 0)
    for A, g, matrix, importance in zip(As, gs, matrices, cut, strict=True):
        if importance > 0:
            weight = 1.0 if high == low else 0.1 + (importance - low) / (high - low) * (1 - 0.1)
            large = enlarged(stretched(grad_cam(A, g, rectify=True)), matrix)
            map = [map[i] + weight * large[i] for i in range(len(map))]
    return map


def full_grad(
    x: Channels,
    dx: Channels,
    parts: list[Channels],
    sizes: list[tuple[int, ...]],
    size: tuple[int, ...],
    *,
    variant: str = "authors",
) -> Map:
    """Every channel is scaled, enlarged by itself and added: the sum over channels comes last."""
    product = [[x[c][p] * dx[c][p] for p in range(len(x[c]))] for c in range(len(x))]
    map = [0.0] * math.prod(size)
    for part, grid in zip([product, *parts], [size, *sizes], strict=True):
        absolute = [[abs(value) for value in channel] for channel in part]
        if variant == "authors":
            every = stretched([value for channel in absolute for value in channel])
            scaled = [every[k * len(part[0]) : (k + 1) * len(part[0])] for k in range(len(part))]
        else:
            scaled = [stretched(channel) for channel in absolute]
        for channel in scaled:
            large = interpolated(channel, grid, size)
            map = [map[i] + large[i] for i in range(len(map))]
    return map


def interpolated(values: list[float], grid: tuple[int, ...], size: tuple[int, ...]) -> list[float]:
    """Multilinear interpolation between the centers of cells, by the corners around each pixel's center."""
    result = []
    for pixel in itertools.product(*map(range, size)):
        total = 0.0
        corners = []
        for i, n, s in zip(pixel, grid, size, strict=True):
            at = min(max((i + 0.5) * n / s - 0.5, 0.0), n - 1.0)
            below = min(math.floor(at), n - 1)
            corners.append([(below, 1 - (at - below)), (min(below + 1, n - 1), at - below)])
        for chosen in itertools.product(*corners):
            index, weight = 0, 1.0
            for (place, share), n in zip(chosen, grid, strict=True):
                index, weight = index * n + place, weight * share
            total += weight * values[index]
        result.append(total)
    return result


def draws(x: Tensor, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(x.shape[1:], generator=generator, dtype=torch.float64) for _ in range(count)]


Gradients = Callable[[Tensor], Channels]
"""The gradients of one changed image."""


def smooth_grad_cam_pp(
    x: Tensor,
    A: Channels,
    gradients: Gradients,
    *,
    samples: int = 50,
    noise: float = 0.15,
    absolute: bool = False,
    as_printed: bool = False,
    rectify: bool = True,
    seed: int = 0,
    chunk: int = 32,
) -> Map:
    deviation = noise if absolute else noise * (float(x.max()) - float(x.min()))
    noisy = [gradients(x + deviation * field[None]) for field in draws(x, samples, seed)]
    weights = []
    for k in range(len(A)):
        total = positive(math.fsum(A[k]))
        weight = 0.0
        for p in range(len(A[k])):
            first, second, third = (mean([g[k][p] ** power for g in noisy]) for power in (1, 2, 3))
            if first > 0:
                alpha = (first if as_printed else second) / (2 * second + total * positive(third))
                weight += alpha * first
        weights.append(weight)
    return combine(weights, A, rectify)


def expected_grad_cam(
    x: Tensor,
    A: Channels,
    gradients: Gradients,
    *,
    samples: int = 50,
    spread: float = 0.2,
    noise: float = 0.15,
    rectify: bool = True,
    seed: int = 0,
    chunk: int = 32,
) -> Map:
    reach = float(x.max()) - float(x.min())
    fields = draws(x, 2 * samples, seed)
    found = []
    for j in range(samples):
        baseline, blur = spread * reach * fields[2 * j][None], noise * reach * fields[2 * j + 1][None]
        found.append(gradients(baseline + (j + 0.5) / samples * (x - baseline) + blur))
    alphas = [mean([mean(g[k]) for g in found]) for k in range(len(A))]
    return combine(alphas, A, rectify)


def factorize(data: Matrix, concepts: int, iterations: int) -> tuple[Matrix, Matrix]:
    """`data[n][c]` as the products of `maps[n][r]` and `directions[r][c]`, strongest first, directions of length 1."""
    size = max(value for row in data for value in row)
    data = [[value / size for value in row] for row in data]
    maps, directions = start(data, concepts)
    rows, columns, every = range(len(data)), range(len(data[0])), range(concepts)
    for _ in range(iterations):
        guess = [[sum(maps[n][r] * directions[r][c] for r in every) for c in columns] for n in rows]
        up = [[sum(data[n][c] * directions[r][c] for c in columns) for r in every] for n in rows]
        down = [[sum(guess[n][c] * directions[r][c] for c in columns) for r in every] for n in rows]
        maps = [[maps[n][r] * up[n][r] / down[n][r] if down[n][r] else 0.0 for r in every] for n in rows]
        guess = [[sum(maps[n][r] * directions[r][c] for r in every) for c in columns] for n in rows]
        up = [[sum(maps[n][r] * data[n][c] for n in rows) for c in columns] for r in every]
        down = [[sum(maps[n][r] * guess[n][c] for n in rows) for c in columns] for r in every]
        directions = [[directions[r][c] * up[r][c] / down[r][c] if down[r][c] else 0.0 for c in columns] for r in every]
    lengths = [math.sqrt(sum(value**2 for value in direction)) for direction in directions]
    order = sorted(every, key=lambda r: -lengths[r] * math.sqrt(sum(maps[n][r] ** 2 for n in rows)))
    return (
        [[maps[n][r] * lengths[r] * size for r in order] for n in rows],
        [[value / lengths[r] for value in directions[r]] for r in order],
    )


def start(data: Matrix, concepts: int) -> tuple[Matrix, Matrix]:
    """NNDSVD as Boutsidis and Gallopoulos write it, zeros filled with the mean, both factors of one size."""
    left, values, right = torch.linalg.svd(torch.tensor(data, dtype=torch.float64), full_matrices=False)
    filling = mean([value for row in data for value in row])
    columns, rows = [], []
    for r in range(concepts):
        u, v = left[:, r].tolist(), right[r].tolist()
        signs = [([positive(s * a) for a in u], [positive(s * a) for a in v]) for s in (1, -1)]
        u, v = max(signs, key=lambda pair: math.hypot(*pair[0]) * math.hypot(*pair[1]))
        root = math.sqrt(float(values[r]))
        columns.append([a * root or filling for a in u])
        rows.append([a * root or filling for a in v])
    return [list(row) for row in zip(*columns, strict=True)], rows


def dff(
    data: Matrix,
    gradients: list[Channels],
    *,
    concepts: int,
    iterations: int,
    rectify: bool,
    concept: int | None = None,
) -> list[Map]:
    """The maps of all images: concepts are shared by them."""
    maps, directions = factorize(data, concepts, iterations)
    places = len(gradients[0][0])
    result = []
    for b, g in enumerate(gradients):
        relevance = [sum(mean(g[k]) * direction[k] for k in range(len(g))) for direction in directions]
        rows = maps[b * places : (b + 1) * places]
        found = [sum(relevance[r] * row[r] for r in range(concepts) if concept in (None, r)) for row in rows]
        result.append([positive(value) for value in found] if rectify else found)
    return result
