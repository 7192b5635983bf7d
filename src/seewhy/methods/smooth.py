"""Methods that average the layer's gradient over changed inputs: one forward and one backward pass for each copy.

An average says how the score depends on the layer around the image, or on the way to it, where the gradient at the
image itself may be noisy or, for a saturated score, next to nothing.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.tensor import at_once, chunked, spatial_mean, spatial_sum, weighted_sum
from seewhy.tensor import noise as normal
from seewhy.types import Activations, Gradients, Map, MethodError

Inputs = Float[Tensor, "b colors *s"]
"""Images, whose number of colors is not the layer's number of channels."""
GradientsAt = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Change = tuple[float, Float[Tensor, "colors *s"]]
"""A changed image is the first times the image plus the second times its unit of noise."""


def smooth_grad_cam_pp(
    inputs: Inputs,
    activations: Activations,
    gradients_at: GradientsAt,
    *,
    samples: int = 50,
    noise: float = 0.15,
    absolute: bool = False,
    as_printed: bool = False,
    rectify: bool = True,
    seed: int = 0,
    chunk: int | None = None,
) -> Map:
    """Smooth Grad-CAM++: Grad-CAM++ with its powers of the gradient averaged over noisy copies of the image.

    L_ij = ReLU(sum_k w_k A_kij),  w_k = sum_ij alpha_kij ReLU(D1_kij),
    alpha_kij = D2 / (2 D2 + <A_k> D3) = 1 / (2 + <A_k> D3 / D2),  Dp = mean over the copies of g^p

    Every copy counts in D1, D2 and D3 alike. A negative <A_k> or D3 counts as zero, as in Grad-CAM++, since the
    denominator might vanish.

    Identity: without noise this is Grad-CAM++.

    Args:
        inputs: The images as the model takes them.
        activations: A, of the clean images, rectified (not negative).
        gradients_at: Activations and gradients g of changed images.
        samples: Copies of each image.
        noise: Standard deviation of the Gaussian noise as a share of the image's range, maximum minus minimum.
        absolute: Take `noise` as the standard deviation itself. torch-cam does, with 0.3 and 4 samples.
        as_printed: D1 in place of D2 in the numerator of alpha, as in the paper, where Grad-CAM++ does not come out
            without noise. torch-cam takes D2 too.
        rectify: Keep the positive part, as the paper does.
        seed: Of the noise, which is the same for every image of a batch.
        chunk: Changed copies made at once; memory, never the result. None: what is fastest.

    Returns:
        The map at the layer's resolution.

    Raises:
        MethodError: No sample, or a negative noise.

    Reference:
        Omeiza et al., Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional
        Neural Network Models, arXiv:1908.01224. Samples and noise are SmoothGrad's (arXiv:1706.03825). torch-cam puts
        the last copy's gradient for D1, and sums A D3 where the paper multiplies D3 by the sum of A.

    Weakness:
        Costs a forward and a backward pass for each sample, and like Grad-CAM++ is not linear in the score.
    """
    changes = _noisy(inputs, samples, noise, seed)
    unit = inputs.new_ones(len(inputs)) if absolute else _range(inputs)
    copies = _copies(inputs, unit, changes, chunk)
    first, second, third = (power / samples for power in _sums_of_powers(copies, gradients_at, activations, 3))
    total = spatial_sum(activations).relu().reshape(activations.shape[:2] + (1,) * (activations.ndim - 2))
    seen = second > 0
    safe = second.where(seen, torch.ones_like(second))
    alpha = (first / safe if as_printed else 1.0) / (2 + total * third.relu() / safe)
    weights = spatial_sum(torch.where(seen, alpha * first.relu(), torch.zeros_like(first)))
    map = weighted_sum(weights.to(activations), activations)
    return map.relu() if rectify else map


def expected_grad_cam(
    inputs: Inputs,
    activations: Activations,
    gradients_at: GradientsAt,
    *,
    samples: int = 50,
    spread: float = 0.2,
    noise: float = 0.15,
    rectify: bool = True,
    seed: int = 0,
    chunk: int | None = None,
) -> Map:
    """Expected Grad-CAM: Grad-CAM with the gradient averaged over noisy points on the ways from random baselines.

    L_ij = ReLU(sum_k alpha_k A_kij),  alpha_k = <E[g_k(x' + t (x - x') + e)]> / Z,
    with t uniform in 0..1, x' a baseline, e noise, and R the image's range, maximum minus minimum:
    x' normal with mean 0 and deviation spread R, e normal with deviation noise R

    Identity: where the score is linear in A, the gradient is the same everywhere, and this is Grad-CAM.

    Args:
        inputs: x, as the model takes them; 0 is the mean color.
        activations: A, of the clean images.
        gradients_at: Activations and gradients g of changed images.
        samples: Points for each image, t in the middles of as many equal parts of 0..1.
        spread: Standard deviation of the baselines as a share of the image's range; 0 means the mean color itself. The
            values of normalized photos have a deviation of about .2 of their range.
        noise: Standard deviation of the noise that smooths the gradient, as a share of the image's range.
        rectify: Keep the positive part, as Grad-CAM does.
        seed: Of baselines and noise, which are the same for every image of a batch.
        chunk: Changed copies made at once; memory, never the result. None: what is fastest.

    Returns:
        The map at the layer's resolution, in units of the score divided by Z.

    Raises:
        MethodError: No sample, or a negative spread or noise.

    Reference:
        Buono et al., Expected Grad-CAM: Towards Gradient Faithfulness, arXiv:2406.01274. Only its abstract was at
        hand, and the authors' repository holds no code, so this is our reading of its "smoothed expectation of the
        perturbed integrated gradients", with defaults of ours. Expected gradients draw their baselines from training
        data, which a method here does not see: ours have the spread of normalized photos, pixel by pixel.

    Weakness:
        Not checked against the paper's equations. Random baselines look like no photo, and the network's gradients
        there may mean nothing. Costs a forward and a backward pass for each sample.
    """
    changes = _ways(inputs, samples, spread, noise, seed)
    copies = _copies(inputs, _range(inputs), changes, chunk)
    (total,) = _sums_of_powers(copies, gradients_at, activations, 1)
    map = weighted_sum(spatial_mean(total / samples).to(activations), activations)
    return map.relu() if rectify else map


def _noisy(inputs: Inputs, samples: int, noise: float, seed: int) -> Iterator[Change]:
    """The image itself, with noise of this standard deviation."""
    _require(samples, noise)
    return ((1.0, noise * field) for field in normal(inputs, samples, seed))


def _ways(inputs: Inputs, samples: int, spread: float, noise: float, seed: int) -> Iterator[Change]:
    """Points on the ways from random baselines to the image, with noise."""
    _require(samples, spread, noise)
    fields = normal(inputs, 2 * samples, seed)
    for part in range(samples):
        share = (part + 0.5) / samples
        yield share, (1 - share) * spread * next(fields) + noise * next(fields)


def _require(samples: int, *deviations: float) -> None:
    if samples < 1:
        raise MethodError(f"got samples={samples}; an average takes at least 1 changed copy of each image")
    if min(deviations) < 0:
        raise MethodError(f"got a standard deviation of {min(deviations)}; choose 0 or more")


def _range(inputs: Inputs) -> Float[Tensor, " b"]:
    """Each image's maximum minus its minimum."""
    flat = inputs.flatten(1)
    return flat.amax(-1) - flat.amin(-1)


def _copies(
    inputs: Inputs, unit: Float[Tensor, " b"], changes: Iterator[Change], chunk: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every change of every image, at most `chunk` at once, with the image that each was made from."""
    size = at_once(chunk, inputs)
    while drawn := list(islice(changes, max(size // len(inputs), 1))):
        shares, fields = inputs.new_tensor([share for share, _ in drawn]), torch.stack([field for _, field in drawn])
        pairs = torch.cartesian_prod(torch.arange(len(drawn)), torch.arange(len(inputs))).to(inputs.device)
        for part in chunked(len(pairs), size):
            change, rows = pairs[part].unbind(-1)
            kept = torch.einsum("m,m...->m...", shares[change], inputs[rows])
            yield kept + torch.einsum("m,m...->m...", unit[rows], fields[change]), rows


def _sums_of_powers(
    copies: Iterator[tuple[Tensor, Tensor]], gradients_at: GradientsAt, activations: Activations, powers: int
) -> list[Gradients]:
    """The sums over each image's copies of g, g^2, ... up to that power; in float64, where cubes do not vanish."""
    sums = [torch.zeros_like(activations, dtype=torch.float64) for _ in range(powers)]
    for changed, rows in copies:
        gradients = gradients_at(changed, rows)[1].double()
        for power, total in enumerate(sums, start=1):
            total.index_add_(0, rows, gradients**power)
    return sums
