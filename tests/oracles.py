"""The methods once more: slow, in plain Python loops, one image at a time, written from the papers.

An oracle takes the facts of one image as lists, `A[k][p]` and `g[k][p]` for channel k and place p of the flattened
grid, `w[k]` for class weights, and returns the map as a list over places. The decorator names the method and one choice
of its boolean options; a test asks for an oracle for every choice.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Channels = list[list[float]]
Matrix = list[list[float]]
Oracle = Callable[..., list[float]]
ORACLES: dict[tuple[str, frozenset[tuple[str, bool]]], Oracle] = {}


def oracle(name: str, **options: bool) -> Callable[[Oracle], Oracle]:
    """Register a function as the oracle of a method with these options."""

    def register(function: Oracle) -> Oracle:
        ORACLES[name, frozenset(options.items())] = function
        return function

    return register


def expected(name: str, facts: dict[str, Tensor], **options: bool) -> Tensor:
    """The map that the oracle gives for a batch, in float64."""
    function = ORACLES[name, frozenset(options.items())]
    tensors = list(facts.values())
    grid = tensors[0].shape[2:]
    images = [[(x[i].flatten(1) if x.ndim > 2 else x[i]).tolist() for x in tensors] for i in range(len(tensors[0]))]
    return torch.tensor([function(*image, **options) for image in images], dtype=torch.float64).reshape(-1, *grid)


def agree(actual: Tensor, wanted: Tensor) -> bool:
    """Whether two maps are equal to 1e-10 of each value plus 1e-10 of the largest."""
    if actual.shape != wanted.shape:
        return False
    return torch.allclose(actual, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))


def positive(x: float) -> float:
    return x if x > 0 else 0.0


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def stretched(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def combine(weights: list[float], A: Channels, rectify: bool) -> list[float]:
    map = []
    for p in range(len(A[0])):
        total = 0.0
        for k in range(len(A)):
            total += weights[k] * A[k][p]
        map.append(positive(total) if rectify else total)
    return map


@oracle("cam", rectify=False)
@oracle("cam", rectify=True)
def cam(A: Channels, w: list[float], *, rectify: bool) -> list[float]:
    return combine(w, A, rectify)


@oracle("grad_cam", rectify=False)
@oracle("grad_cam", rectify=True)
def grad_cam(A: Channels, g: Channels, *, rectify: bool) -> list[float]:
    alphas = []
    for k in range(len(A)):
        total = 0.0
        for value in g[k]:
            total += value
        alphas.append(total / len(g[k]))
    return combine(alphas, A, rectify)


@oracle("grad_cam_pp", alpha_normalize=False, rectify=False)
@oracle("grad_cam_pp", alpha_normalize=False, rectify=True)
@oracle("grad_cam_pp", alpha_normalize=True, rectify=False)
@oracle("grad_cam_pp", alpha_normalize=True, rectify=True)
def grad_cam_pp(A: Channels, g: Channels, *, alpha_normalize: bool, rectify: bool) -> list[float]:
    """Equation 19 with its squares and cubes; alphas count only where the gradient is positive."""
    weights = []
    for k in range(len(A)):
        total_activation = positive(math.fsum(A[k]))
        alphas = []
        for p in range(len(g[k])):
            square, cube = g[k][p] ** 2, g[k][p] ** 3
            alphas.append(square / (2 * square + total_activation * cube) if g[k][p] > 0 else 0.0)
        if alpha_normalize and sum(alphas) > 0:
            total_alpha = sum(alphas)
            alphas = [alpha / total_alpha for alpha in alphas]
        weight = 0.0
        for p in range(len(g[k])):
            weight += alphas[p] * positive(g[k][p])
        weights.append(weight)
    return combine(weights, A, rectify)


@oracle("xgrad_cam", rectify=False)
@oracle("xgrad_cam", rectify=True)
def xgrad_cam(A: Channels, g: Channels, *, rectify: bool) -> list[float]:
    """Every place's gradient counts by its share of the channel's activation."""
    weights = []
    for k in range(len(A)):
        whole = math.fsum(A[k])
        weight = 0.0
        for p in range(len(A[k])):
            share = A[k][p] / whole if whole != 0 else 0.0
            weight += share * g[k][p]
        weights.append(weight)
    return combine(weights, A, rectify)


@oracle("hires_cam", rectify=False)
@oracle("hires_cam", rectify=True)
def hires_cam(A: Channels, g: Channels, *, rectify: bool) -> list[float]:
    map = []
    for p in range(len(A[0])):
        total = 0.0
        for k in range(len(A)):
            total += g[k][p] * A[k][p]
        map.append(positive(total) if rectify else total)
    return map


@oracle("layer_cam", rectify=False)
@oracle("layer_cam", rectify=True)
def layer_cam(A: Channels, g: Channels, *, rectify: bool) -> list[float]:
    map = []
    for p in range(len(A[0])):
        total = 0.0
        for k in range(len(A)):
            if g[k][p] > 0:
                total += g[k][p] * A[k][p]
        map.append(positive(total) if rectify else total)
    return map


@oracle("grad_cam_elementwise")
def grad_cam_elementwise(A: Channels, g: Channels) -> list[float]:
    return [sum(positive(g[k][p] * A[k][p]) for k in range(len(A))) for p in range(len(A[0]))]


@oracle("eigen_cam", center=False)
@oracle("eigen_cam", center=True)
def eigen_cam(A: Channels, *, center: bool) -> list[float]:
    """Rows are places, as in the paper: project them on the leading direction of channel space."""
    if center:
        means = [sum(channel) / len(channel) for channel in A]
        A = [[value - means[k] for value in A[k]] for k in range(len(A))]
    channels, places = range(len(A)), range(len(A[0]))
    direction = leading_direction([[sum(A[i][p] * A[j][p] for p in places) for j in channels] for i in channels])
    projection = [sum(direction[k] * A[k][p] for k in channels) for p in places]
    reference = [sum(A[k][p] for k in channels) if center else 1.0 for p in places]
    side = sum(projection[p] * reference[p] for p in places)
    return [-value for value in projection] if side < 0 else projection


@oracle("eigen_grad_cam", center=False)
@oracle("eigen_grad_cam", center=True)
def eigen_grad_cam(A: Channels, g: Channels, *, center: bool) -> list[float]:
    return eigen_cam([[g[k][p] * A[k][p] for p in range(len(A[k]))] for k in range(len(A))], center=center)


def leading_direction(matrix: Matrix) -> list[float]:
    """Power iteration by squaring: 60 squarings raise the matrix to the power 2^60, of which one direction is left."""
    n = range(len(matrix))
    for _ in range(60):
        largest = max(abs(matrix[i][j]) for i in n for j in n)
        matrix = [[value / largest for value in row] for row in matrix]
        matrix = [[sum(matrix[i][k] * matrix[k][j] for k in n) for j in n] for i in n]
    column = max(n, key=lambda j: matrix[j][j])
    norm = math.sqrt(sum(matrix[i][column] ** 2 for i in n))
    return [matrix[i][column] / norm for i in n]
