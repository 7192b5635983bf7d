"""Where changed copies of images are taken, and how many at once: what methods that look at copies share."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.tensor import at_once, chunked
from seewhy.types import Images, MethodError, Rows, ShapeError


def quadrature(steps: int, rule: str, like: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Places in 0..1 where a function is read to integrate it over 0..1, and weights, which sum to 1.

    Raises:
        MethodError: No steps, or an unknown rule.
    """
    if steps < 1:
        raise MethodError(f"got {steps} steps; integrating takes at least one, and 20 to 300 are usual")
    if rule == "gauss_legendre":
        places, weights = np.polynomial.legendre.leggauss(steps)
        places, weights = (places + 1) / 2, weights / 2
    elif rule in ("midpoint", "right"):
        places = (np.arange(steps) + (0.5 if rule == "midpoint" else 1.0)) / steps
        weights = np.full(steps, 1 / steps)
    else:
        raise MethodError(f"no rule {rule!r} of integration; choose 'midpoint', 'gauss_legendre' or 'right'")
    return torch.from_numpy(places).to(like), torch.from_numpy(weights).to(like)


def baseline_of(inputs: Images, baseline: float | Tensor) -> Images:
    """What stands for no image, for each image: a number, one for each color channel, or images of that size.

    Raises:
        ShapeError: A tensor of another shape.
    """
    value = torch.as_tensor(baseline).to(inputs)
    try:
        return (spread(value, inputs[0]) if value.ndim == 1 else value).expand_as(inputs)
    except RuntimeError as error:
        sizes = f"({inputs.shape[1]},), {tuple(inputs.shape[1:])} or {tuple(inputs.shape)}"
        raise ShapeError(
            f"got a baseline of shape {tuple(value.shape)} for inputs of {tuple(inputs.shape)}; give a number, or a "
            f"tensor of shape {sizes}"
        ) from error


def spread(values: Float[Tensor, " n"], like: Tensor) -> Float[Tensor, "n *ones"]:
    """One number for each image, with axes of length one for those that `like` has besides."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def pairs(images: int, copies: int, chunk: int | None, like: Tensor) -> Iterator[tuple[Rows, Rows]]:
    """All pairs (image, copy), image by image, at most `chunk` at once (None: what is fastest)."""
    for part in chunked(images * copies, at_once(chunk, like)):
        index = torch.arange(part.start, part.stop, device=like.device)
        yield index // copies, index % copies
