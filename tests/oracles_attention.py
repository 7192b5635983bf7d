"""The attention methods once more: slow, in plain Python loops, one image at a time, written from the papers.

Facts of one image come as lists: `A[l][h][q][k]`, `q[h][n][d]`, `r[n]`. An oracle returns one number for each token;
`where` says which tokens are the patches, for formulas that need to know.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from oracles import Matrix

PLAIN = {"reading", "queries", "keys", "values", "head_gradients"}


def expected(name: str, facts: dict, where: Sequence[int], grid: tuple[int, ...], **options) -> Tensor:
    """The map that the oracle gives for a batch: `facts` without token_map, the patches' places and grid instead."""
    images = len(next(x if isinstance(x, Tensor) else x[0] for x in facts.values()))
    maps = []
    for image in range(images):
        given = {n: (x[image] if n in PLAIN else [each[image] for each in x]) for n, x in facts.items()}
        lists = {n: (x.tolist() if n in PLAIN else [each.tolist() for each in x]) for n, x in given.items()}
        tokens = ORACLES[name](**lists, where=list(where), **options)
        maps.append([tokens[place] for place in where])
    return torch.tensor(maps, dtype=torch.float64).reshape(-1, *grid)


def identity(n: int) -> Matrix:
    return [[1.0 if i == j else 0.0 for j in range(n)] for i in range(n)]


def product(a: Matrix, b: Matrix) -> Matrix:
    n = range(len(a))
    return [[math.fsum(a[i][k] * b[k][j] for k in n) for j in n] for i in n]


def plus(a: Matrix, b: Matrix) -> Matrix:
    return [[x + y for x, y in zip(left, right, strict=True)] for left, right in zip(a, b, strict=True)]


def normalized(a: Matrix) -> Matrix:
    return [[x / math.fsum(row) for x in row] for row in a]


def over_heads(block: list[Matrix], weigh: Callable[[int, int, int], float]) -> Matrix:
    heads, n = len(block), len(block[0])
    total = [[0.0] * n for _ in range(n)]
    for h in range(heads):
        for i in range(n):
            for j in range(n):
                total[i][j] += weigh(h, i, j) / heads
    return total


def read_rows(r: list[float], R: Matrix) -> list[float]:
    return [math.fsum(r[j] * R[j][i] for j in range(len(r))) for i in range(len(r))]


def rollout_matrix(attentions: list) -> Matrix:
    R = identity(len(attentions[0][0]))
    for block in attentions:
        mean = over_heads(block, lambda h, i, j, block=block: block[h][i][j])
        R = product(normalized(plus(mean, identity(len(mean)))), R)
    return R


def attention_rollout(attentions: list, reading: list[float], where: list[int]) -> list[float]:
    return read_rows(reading, rollout_matrix(attentions))


def gradient_rollout(
    attentions: list, attention_gradients: list, reading: list[float], where: list[int]
) -> list[float]:
    R = identity(len(reading))
    for A, G in zip(attentions, attention_gradients, strict=True):
        mean = over_heads(A, lambda h, i, j, A=A, G=G: A[h][i][j] * G[h][i][j])
        kept = [[max(x, 0.0) for x in row] for row in mean]
        R = product(normalized(plus(kept, identity(len(kept)))), R)
    return read_rows(reading, R)


def chefer(
    attentions: list, attention_gradients: list, reading: list[float], where: list[int], *, last_blocks: int = 0
) -> list[float]:
    """R <- R + M R, from I; the row of the class token, of which I holds no patch."""
    R = identity(len(reading))
    for block in range(len(attentions) - (last_blocks or len(attentions)), len(attentions)):
        A, G = attentions[block], attention_gradients[block]
        M = over_heads(A, lambda h, i, j, A=A, G=G: max(A[h][i][j] * G[h][i][j], 0.0))
        R = plus(R, product(M, R))
    return [x - own for x, own in zip(read_rows(reading, R), reading, strict=True)]


def legrad(attention_gradients_by_depth: list, where: list[int], *, last_blocks: int = 0) -> list[float]:
    used = attention_gradients_by_depth[-last_blocks:] if last_blocks else attention_gradients_by_depth
    heads, n = len(used[0]), len(used[0][0])
    total = [0.0] * n
    for block in used:
        for h in range(heads):
            for q in range(n):
                for i in range(n):
                    total[i] += max(block[h][q][i], 0.0) / (heads * n * len(used))
    return total


def grad_eclip(
    queries: list,
    keys: list,
    values: list,
    head_gradients: list,
    reading: list[float],
    where: list[int],
    *,
    similarity: bool = True,
    rectify: bool = True,
) -> list[float]:
    n = range(len(reading))

    def whole(x: list, token: int) -> list[float]:
        return [value for head in x for value in head[token]]

    def cosine(a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    gradients = [whole(head_gradients, j) for j in n]
    g = [math.fsum(reading[j] * gradients[j][c] for j in n) for c in range(len(gradients[0]))]
    influence = [math.fsum(x * y for x, y in zip(g, whole(values, i), strict=True)) for i in n]
    if similarity:
        s = [math.fsum(reading[j] * cosine(whole(queries, j), whole(keys, i)) for j in n) for i in n]
        low, high = min(s[i] for i in where), max(s[i] for i in where)
        influence = [x * (s[i] - low) / (high - low) for i, x in enumerate(influence)]
    return [max(x, 0.0) for x in influence] if rectify else influence


ORACLES = {f.__name__: f for f in (attention_rollout, gradient_rollout, chefer, legrad, grad_eclip)}
