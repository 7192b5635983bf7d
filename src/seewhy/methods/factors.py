"""Concepts: a batch's activations as a sum of few parts, each a direction in channel space with a map for each image.

These are about a batch: images share their concepts, so the maps of a batch are not those of its images one by one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.tensor import spatial_mean
from seewhy.types import Activations, Gradients, Map, MethodError


def dff(
    activations: Activations,
    gradients: Gradients,
    *,
    concepts: int = 5,
    concept: int | None = None,
    iterations: int = 200,
    rectify: bool = True,
) -> Map:
    """Deep feature factorization, weighed by class: Grad-CAM of what few concepts leave of the activations.

    L_ij = ReLU(sum_r rho_r H_rij),  rho_r = sum_k alpha_k W_rk,  alpha_k = <g_k> / Z,
    with H and W, the concepts' maps and directions, from `factorize`

    Identity: where A = sum_r H_r W_r, as with one concept for each of the batch's independent channels or places, this
    is Grad-CAM. The signed map is the sum of the signed maps of its concepts, rho_r H_r.

    Args:
        activations: A of the whole batch, rectified (not negative).
        gradients: g, of the score.
        concepts: How many, shared by all images of the batch.
        concept: Only this one's part of the map, rho_r H_r: 0 is the strongest. None: all of them.
        iterations: Updates of the factorization.
        rectify: Keep the positive part, as Grad-CAM does.

    Returns:
        The map at the layer's resolution, in units of the score divided by Z.

    Raises:
        MethodError: Fewer than one concept, or more than channels or places; a `concept` that is none of them.

    Reference:
        Collins et al., Deep Feature Factorization for Concept Discovery, ECCV 2018, arXiv:1806.10206, for H and W; it
        shows the concepts' maps and knows no class. Weighing concepts by the class head's answer to their directions
        is what the pytorch-grad-cam package labels them by; adding the weighed maps up is ours.

    Weakness:
        Depends on the other images of the batch and on the number of concepts; what no concept covers is left out.
    """
    if concept is not None and not 0 <= concept < concepts:
        raise MethodError(f"got concept={concept} of {concepts}; give one from 0 to {concepts - 1}, or None for all")
    maps, directions = factorize(activations, concepts, iterations=iterations)
    kept = slice(None) if concept is None else slice(concept, concept + 1)
    weights = relevance(directions, spatial_mean(gradients))
    map = torch.einsum("br,rb...->b...", weights[:, kept], maps[kept])
    return map.relu() if rectify else map


def factorize(
    activations: Activations, concepts: int, *, iterations: int = 200
) -> tuple[Float[Tensor, "k b *grid"], Float[Tensor, "k c"]]:
    """The concepts of a batch: non-negative maps and directions whose products add up to the activations.

    A_bcij ~ sum_r H_rbij W_rc with H, W >= 0, the squared error made small by multiplicative updates:
    H <- H (A W^T) / (H W W^T),  W <- W (H^T A) / (H^T H W)

    Identity: no update makes the error larger. As many concepts as the batch has independent non-negative patterns,
    where these do not overlap, give back A exactly.

    Args:
        activations: A, of all images together; negative values count as zero.
        concepts: How many.
        iterations: Updates of both factors.

    Returns:
        The maps, in units of the activations, and the directions, each of length 1 (zero for a concept that is not
        needed); the strongest concept, by the norm of its maps, first.

    Raises:
        MethodError: Fewer than one concept, or more than channels or places of the batch.

    Reference:
        Collins et al., ECCV 2018, arXiv:1806.10206; updates of Lee and Seung, NIPS 2000. It starts at Boutsidis and
        Gallopoulos' NNDSVD (2008) of A divided by its maximum, zeros filled by the mean, so nothing is random, and
        derivatives hold this start fixed. pytorch-grad-cam starts at random, and shifts negative activations up by
        their minimum instead.
    """
    b, c, *grid = activations.shape
    data = activations.relu().movedim(1, -1).reshape(-1, c)
    if not 1 <= concepts <= min(data.shape):
        raise MethodError(
            f"got concepts={concepts}; a batch of {len(data)} places and {c} channels has 1 to {min(data.shape)}"
        )
    size = data.amax()
    size = size.where(size > 0, torch.ones_like(size))  # products of four small numbers would vanish
    maps, directions = _updated(data / size, *_start(data / size, concepts), iterations)
    length = _length(directions.mT)
    maps, directions = maps * length * size, directions / _or_one(length)[:, None]
    order = _length(maps).argsort(descending=True, stable=True)
    return maps.mT[order].reshape(concepts, b, *grid), directions[order]


def relevance(directions: Float[Tensor, "k c"], class_weights: Float[Tensor, "b c"]) -> Float[Tensor, "b k"]:
    """What a unit of each concept adds to the score: rho_br = sum_k w_bk W_rk.

    Identity: with global average pooling and one linear layer, y = sum_r rho_r mean(H_r) + bias + what the
    factorization leaves out.

    Args:
        directions: W, of the concepts.
        class_weights: w, of each image's class: the last linear layer's row, or the mean gradient of each channel.

    Returns:
        Signed, in units of the score for each unit of the concept's map.

    Reference:
        The pytorch-grad-cam package, which applies the classifier to the concepts' directions. For a linear one that
        is this plus its bias.
    """
    return class_weights @ directions.mT


def _updated(
    data: Float[Tensor, "n c"], maps: Float[Tensor, "n k"], directions: Float[Tensor, "k c"], iterations: int
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "k c"]]:
    """Lee and Seung's updates."""
    for _ in range(iterations):
        maps = maps * (data @ directions.mT) / _or_one(maps @ (directions @ directions.mT))
        directions = directions * (maps.mT @ data) / _or_one(maps.mT @ maps @ directions)
    return maps, directions


def _start(data: Float[Tensor, "n c"], concepts: int) -> tuple[Float[Tensor, "n k"], Float[Tensor, "k c"]]:
    """NNDSVD: of each singular pair the stronger sign, with its zeros, which updates would keep, set to the mean."""
    wide = len(data) <= data.shape[1]
    tall = (data.mT if wide else data).detach().double().nan_to_num()
    squares, vectors = torch.linalg.eigh(tall.mT @ tall)  # of the smaller side, which is enough for a start
    root = squares[-concepts:].flip(0).clamp_min(0) ** 0.25
    short = vectors[:, -concepts:].flip(1) * root
    long = tall @ vectors[:, -concepts:].flip(1) / _or_one(root)
    up, down = (_length((sign * short).relu()) * _length((sign * long).relu()) for sign in (1, -1))
    sign = torch.where(up >= down, 1.0, -1.0).to(short)
    short, long = ((sign * part).relu() for part in (short, long))
    short, long = (part.where(part > 0, tall.mean()).to(data) for part in (short, long))
    return (short, long.mT) if wide else (long, short.mT)


def _length(columns: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    return torch.linalg.vector_norm(columns, dim=0)


def _or_one(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The divisor, or 1 where it is zero: there the dividend is zero too."""
    return x.where(x > 0, torch.ones_like(x))
