"""How Captum is lent a score: its import, what it draws, what it refuses, and the patches that it weighs."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.model.scorer import Scorer
from seewhy.types import Images, MethodError, SeewhyError

PixelMap = Float[Tensor, "b *s"]
Attribute = Callable[[Tensor, Tensor, Int[Tensor, "1 1 *s"]], Tensor]
"""From an image `(1 c *s)`, its row `(1)` and the patch of each of its pixels to the attributions of the patches."""

_COMPLETE = 0.01  # of the score's change; float32 alone misses 1e-4 of it in deep networks


def library(method: str) -> Any:
    """Captum's `attr`.

    Raises:
        MethodError: It, or scikit-learn, which fits its linear models, is not installed.
    """
    try:
        if find_spec("sklearn") is None:
            raise ImportError("No module named 'sklearn'")
        return import_module("captum.attr")
    except ImportError as error:
        raise MethodError(
            f"captum:{method} needs the packages captum and scikit-learn, which cannot be imported ({error}); "
            "pip install 'seewhy[captum]'"
        ) from error


@contextmanager
def lent(scorer: Scorer, method: str, seed: int = 0) -> Iterator[None]:
    """Let Captum draw from a seed of its own, and say what it refuses.

    Raises:
        MethodError: Whatever Captum raises, as its reason.
    """
    # GradientSHAP draws from numpy's global state, the others from torch's
    drawn, gpus = np.random.get_state(), range(torch.cuda.device_count())  # noqa: NPY002
    with scorer.undisturbed(), torch.random.fork_rng(devices=gpus), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Setting forward, backward hooks"
        )  # on our copy, which is thrown away
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        except (SeewhyError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
            reason = " ".join(str(error).split()).removesuffix(".")
            raise MethodError(
                f"captum:{method} does not take this model; Captum's reason: {reason}; integrated_gradients and "
                "occlusion take any"
            ) from error
        finally:
            np.random.set_state(drawn)  # noqa: NPY002


def by_patches(
    inputs: Images, scorer: Scorer, method: str, patches: int, samples: int, seed: int, attribute: Attribute
) -> PixelMap:
    """The attributions of the patches of each image by itself, from the same seed; at each pixel that of its patch.

    Raises:
        MethodError: No patches or samples, or Captum refuses.
    """
    if patches < 1:
        raise MethodError(f"got patches={patches}; choose how many there are along each axis, at least 1")
    at_least_one(samples)
    mask = _patches(inputs, patches)
    maps: list[Tensor] = []
    for row, image in enumerate(inputs.detach().split(1)):
        with lent(scorer, method, seed), torch.no_grad():
            values = attribute(image, torch.tensor([row], device=inputs.device), mask)
        maps.append(values.reshape(-1).to(inputs)[mask[0, 0]])
    return torch.stack(maps)


def at_least_one(samples: int) -> None:
    """Check a number of samples.

    Raises:
        MethodError: It is none.
    """
    if samples < 1:
        raise MethodError(f"got samples={samples}; take at least 1")


def tell_residual(
    scorer: Scorer, attribution: Float[Tensor, "b ..."], beyond: Float[Tensor, " n"], what: str, why: str
) -> None:
    """Say of attributions that should sum to something by how much they are beyond it."""
    expected = attribution.detach().flatten(1).sum(1) - beyond.detach()
    share = float((beyond.abs() / expected.abs().clamp_min(torch.finfo(expected.dtype).tiny)).max())
    if share > _COMPLETE:
        scorer.remarks.append(f"the attributions do not sum to {what}, but are off by {share:.0%} of it: {why}")


def _patches(inputs: Images, patches: int) -> Int[Tensor, "1 1 *s"]:
    """A number for each pixel: that of its patch; patches of an axis differ by a pixel at most."""
    numbers = torch.zeros((), dtype=torch.long, device=inputs.device)
    for size in inputs.shape[2:]:
        count = min(patches, size)
        along = torch.arange(size, device=inputs.device) * count // size
        numbers = numbers[..., None] * count + along
    return numbers[None, None]
