"""The pixel methods once more: slow, in plain Python loops, one image at a time, written from the papers.

An image is `x[c][p]`, channel c and pixel p of the flattened grid, and so is its gradient. `gradient(x)` gives the
score's gradient at a changed image in the same form.
"""

import math
from collections.abc import Callable

from oracles import Channels, Matrix, grad_cam

Image = Channels
GradientOf = Callable[[Image], Image]


def one_channel(values: Image, channels: str) -> list[float]:
    map = []
    for p in range(len(values[0])):
        column = [values[c][p] for c in range(len(values))]
        absolute = [abs(value) for value in column]
        map.append({"max_abs": max(absolute), "sum": sum(column), "sum_abs": sum(absolute)}[channels])
    return map


def saliency(g: Image, *, channels: str) -> list[float]:
    return one_channel(g, channels)


def input_x_gradient(x: Image, g: Image, *, channels: str) -> list[float]:
    return one_channel([[x[c][p] * g[c][p] for p in range(len(x[c]))] for c in range(len(x))], channels)


def legendre(n: int) -> list[tuple[float, float]]:
    """Nodes and weights of n points on -1..1: roots of the Legendre polynomial by Newton from Chebyshev's points."""
    found = []
    for k in range(n):
        at = math.cos(math.pi * (k + 0.75) / (n + 0.5))
        for _ in range(50):
            value, slope = _polynomial(n, at)
            at -= value / slope
        _, slope = _polynomial(n, at)
        found.append((at, 2 / ((1 - at * at) * slope * slope)))
    return found


def _polynomial(n: int, at: float) -> tuple[float, float]:
    """Its value and its slope."""
    before, value = 0.0, 1.0
    for k in range(1, n + 1):
        before, value = value, ((2 * k - 1) * at * value - (k - 1) * before) / k
    return value, n * (before - at * value) / (1 - at * at)


def integrated_gradients(
    x: Image, baseline: Image, gradient: GradientOf, *, steps: int, rule: str, channels: str
) -> list[float]:
    nodes = {
        "midpoint": [((k + 0.5) / steps, 1 / steps) for k in range(steps)],
        "right": [(k / steps, 1 / steps) for k in range(1, steps + 1)],
        "gauss_legendre": [((1 + at) / 2, weight / 2) for at, weight in legendre(steps)],
    }[rule]
    places = [(c, p) for c in range(len(x)) for p in range(len(x[c]))]
    attribution = [[0.0] * len(channel) for channel in x]
    for at, weight in nodes:
        on_the_way = [[b + at * (v - b) for v, b in zip(*rows, strict=True)] for rows in zip(x, baseline, strict=True)]
        g = gradient(on_the_way)
        for c, p in places:
            attribution[c][p] += weight * g[c][p] * (x[c][p] - baseline[c][p])
    return one_channel(attribution, channels)


def smooth_grad(
    x: Image, noises: list[Image], gradient: GradientOf, *, level: float, how: str, channels: str
) -> list[float]:
    """`noises` are the standard normal draws."""
    values = [value for channel in x for value in channel]
    sigma = level * (max(values) - min(values))
    drawn = []
    for noise in noises:
        noisy = [[v + sigma * e for v, e in zip(*rows, strict=True)] for rows in zip(x, noise, strict=True)]
        drawn.append(gradient(noisy))
    n = len(drawn)
    combined = []
    for c in range(len(x)):
        combined.append([])
        for p in range(len(x[c])):
            each = [g[c][p] for g in drawn]
            mean = sum(each) / n
            choice = {
                "mean": mean,
                "mean_squares": sum(value * value for value in each) / n,
                "variance": sum((value - mean) ** 2 for value in each) / n,
            }
            combined[c].append(choice[how])
    return one_channel(combined, channels)


def guided_grad_cam(A: Image, g: Image, r: Image, upsampled: GradientOf, *, channels: str) -> list[float]:
    """`upsampled` lays a map, given as one channel, on the image."""
    place = upsampled([grad_cam(A, g, rectify=True)])[0]
    return one_channel([[r[c][p] * place[p] for p in range(len(place))] for c in range(len(r))], channels)


def backward_by_hand(
    x: list[float], layers: list[Matrix], f: Callable[[float], float], slope: Callable[[float], float], rule: str
) -> list[float]:
    """What a rule sends back to x through s = W_n f(W_n-1 ... f(W_1 x)), one unit at a time; the last W has one row."""
    values, before = [x], []
    for number, weights in enumerate(layers):
        z = [sum(w * v for w, v in zip(row, values[-1], strict=True)) for row in weights]
        before.append(z)
        values.append([f(each) for each in z] if number < len(layers) - 1 else z)
    back = [1.0]
    for number in reversed(range(len(layers))):
        back = [
            sum(row[i] * r for row, r in zip(layers[number], back, strict=True)) for i in range(len(values[number]))
        ]
        if number > 0:
            at = before[number - 1]
            passed = {
                "plain": [slope(z) * r for z, r in zip(at, back, strict=True)],
                "guided": [slope(z) * max(r, 0.0) for z, r in zip(at, back, strict=True)],
                "deconvnet": [max(r, 0.0) for r in back],
            }
            back = passed[rule]
    return back
