"""Methods that look at many layers at once: maps of all of them made one, at the size of the input."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.methods.gradient import grad_cam, grad_cam_pp
from seewhy.tensor import interpolation, resize, unit
from seewhy.types import Images, MethodError, ShapeError

Layers = Sequence[Float[Tensor, "b _ ..."]]
"""One tensor for each layer, each with channels and a grid of its own."""
Upsample = Callable[[Tensor], Tensor]


def refine_cam(
    activations_by_layer: Layers,
    gradients_by_layer: Layers,
    upsample_by_layer: Sequence[Upsample],
) -> Float[Tensor, "b *s"]:
    """RefineCAM: the product of the layers' Grad-CAM++ maps, so that deep ones say what and shallow ones where.

    L = prod_l U_l(unit(G_l)), with G_l the Grad-CAM++ map of layer l and U_l its enlargement to the size of the input.

    Identity: one layer gives its own enlarged unit map, two equal layers its square.

    Args:
        activations_by_layer: A of each layer, shallow to deep.
        gradients_by_layer: g of each layer.
        upsample_by_layer: For each layer, what lays its map on the input.

    Returns:
        The map at the size of the input, 0..1: it says where, not how much.

    Raises:
        ShapeError: No layer, or lists of different lengths.

    Reference:
        Domeniconi et al., How to Evaluate and Refine your CAM, arXiv:2605.14641. Maps are divided by their maximum;
        pytorch-grad-cam, where the authors put the method, also subtracts their minimum, and scales the product again.

    Weakness:
        One layer that misses a place erases it, and a layer without any positive value erases everything.
    """
    layers = _layers(activations_by_layer, gradients_by_layer, upsample_by_layer)
    return reduce(torch.mul, (upsample(unit(grad_cam_pp(A, g))) for A, g, upsample in layers))


def winsor_cam(
    activations_by_layer: Layers,
    gradients_by_layer: Layers,
    upsample_by_layer: Sequence[Upsample],
    *,
    percentile: float = 99.0,
) -> Float[Tensor, "b *s"]:
    """Winsor-CAM: the sum of all layers' Grad-CAM maps, the most important layers held back.

    L = sum_l r_l U_l(N(G_l)),  r_l = .1 + .9 (w_l - min w) / (max w - min w),  w_l = min(I_l, quantile_p(I)),
    with G_l the Grad-CAM map of layer l, N its scaling from minimum and maximum to 0..1, and I_l = ReLU(mean gradient
    of layer l) its importance. Minimum, maximum and quantile are over layers with I > 0; the others have r = 0.

    Identity: one layer with I > 0 gives its own map. At percentile 0 all layers with I > 0 count alike.

    Args:
        activations_by_layer: A of each layer, shallow to deep; the authors take every convolution's output.
        gradients_by_layer: g of each layer.
        upsample_by_layer: For each layer, what lays its map on the input.
        percentile: 0..100; importances above this percentile of theirs are cut down to it. Low values let shallow
            layers speak.

    Returns:
        The map at the size of the input, 0 to the number of layers; zero where no layer has a positive importance.

    Raises:
        MethodError: A percentile outside 0..100.
        ShapeError: No layer, or lists of different lengths.

    Reference:
        Wall et al., Winsor-CAM: Human-Tunable Visual Explanations from Deep Networks via Layer-Wise Winsorization,
        arXiv:2507.10846. The formula and the default are those of the authors' code, with its "mean" for both
        importances; its maps meet at the largest layer's size before they grow to that of the input.

    Weakness:
        The mean gradient that ranks the layers depends on the scale of their activations, which the network may
        change without changing its function; a layer whose mean gradient is negative is left out.
    """
    if not 0 <= percentile <= 100:
        raise MethodError(f"got percentile={percentile}; Winsor-CAM cuts at a percentile of 0..100")
    layers = _layers(activations_by_layer, gradients_by_layer, upsample_by_layer)
    weights = _winsorized(torch.stack([_mean(g) for _, g, _ in layers]).relu(), percentile)
    cams = (upsample(_stretched(grad_cam(A, g), 1)) for A, g, upsample in layers)
    return reduce(torch.add, (torch.einsum("b,b...->b...", w, cam) for w, cam in zip(weights, cams, strict=True)))


def _mean(gradients: Float[Tensor, "b _ ..."]) -> Float[Tensor, " b"]:
    """The mean gradient; zero where it is rounding alone, as ahead of a layer norm, where it is zero in theory."""
    flat = gradients.flatten(1)
    mean, noise = flat.mean(-1), torch.finfo(flat.dtype).eps * flat.shape[1] ** 0.5 * flat.abs().mean(-1)
    return mean.where(mean.abs() > noise, torch.zeros_like(mean))


def full_grad(
    inputs: Images,
    input_gradients: Images,
    bias_gradients: Sequence[Float[Tensor, "b ..."]],
    *,
    variant: str = "authors",
) -> Float[Tensor, "b *s"]:
    """FullGrad: what the pixels and what every bias of the network contributes to the score, as one map.

    L = sum_c N(|x_c dy/dx_c|) + sum_l sum_c U(N(|f_lc|)), with f_l = dy/d(output of layer l) times the layer's bias,
    U linear enlargement to the size of the input, and N the scaling from minimum and maximum to 0..1.

    Identity: before N, |.| and U these parts sum to the score; `full_grad_residual` tells by how much they do not.

    Args:
        inputs: x, as the model takes them.
        input_gradients: dy/dx.
        bias_gradients: f_l of each convolution, batch norm and linear layer; the bias of a batch norm in evaluation is
            beta - mean gamma / sqrt(variance + eps). Those without the input's axes (linear layers) are not drawn.
        variant: Over what N takes minimum and maximum: "authors", over a layer, as their code does; "per_channel",
            over each channel by itself, as pytorch-grad-cam does, which lifts faint channels up to the loudest.

    Returns:
        The map at the size of the input, not negative: where, not how much.

    Raises:
        MethodError: An unknown variant.

    Reference:
        Srinivas and Fleuret, Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019,
        arXiv:1905.00780. The authors' code enlarges with aligned corners, and adds 1e-6 to the divisor; here cells
        keep their centers, and a constant part is zero.

    Weakness:
        Signs are lost, so evidence against the class looks like evidence for it. Biases that are no parameter (GELU,
        layer norm, the padding of max-pooling) are missing, and then the parts do not sum to the score.
    """
    if variant not in ("authors", "per_channel"):
        raise MethodError(f"no variant {variant!r} of FullGrad; choose 'authors' or 'per_channel'")
    sizes = inputs.shape[2:]
    drawn = [part for part in bias_gradients if part.ndim == inputs.ndim]
    map = torch.zeros_like(inputs[:, 0])
    for part in (inputs * input_gradients, *drawn):
        cells = _stretched(part.abs(), 1 if variant == "authors" else 2).sum(1)
        map = map + resize(cells, [_enlarging(n, size, part) for n, size in zip(part.shape[2:], sizes, strict=True)])
    return map


def full_grad_residual(
    inputs: Images,
    input_gradients: Images,
    bias_gradients: Sequence[Float[Tensor, "b ..."]],
    scores: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """How far FullGrad's parts are from summing to the score: sum(x dy/dx) + sum_l sum(f_l) - y.

    Identity: zero to rounding (1e-15 in float64) in networks of convolutions, linear layers, batch norms in evaluation,
    ReLU and average or unpadded maximum pooling, with every bias given. Anything else is what biases that are no
    parameter contribute; the authors' code allows 1e-4 of the score.

    Args:
        inputs: x, as the model takes them.
        input_gradients: dy/dx.
        bias_gradients: f_l of every layer that has a bias, linear ones too.
        scores: y, of the clean images.

    Returns:
        The difference for each image, signed, in units of the score.

    Reference:
        Srinivas and Fleuret, arXiv:1905.00780, proposition 1: the full gradients are complete.
    """
    parts = [inputs * input_gradients, *bias_gradients]
    return torch.stack([part.flatten(1).sum(-1) for part in parts]).sum(0) - scores


def _layers(
    activations: Layers, gradients: Layers, upsample: Sequence[Upsample]
) -> list[tuple[Tensor, Tensor, Upsample]]:
    """The layers one by one."""
    if not len(activations) == len(gradients) == len(upsample) > 0:
        raise ShapeError(
            f"got {len(activations)} activations, {len(gradients)} gradients and {len(upsample)} enlargements; a "
            f"method over several layers takes one of each for every layer, and at least one layer"
        )
    return list(zip(activations, gradients, upsample, strict=True))


def _winsorized(importance: Float[Tensor, "l b"], percentile: float) -> Float[Tensor, "l b"]:
    """Each image's layer weights: its positive importances cut at their percentile and brought to .1 to 1."""
    counted = importance > 0
    highest = torch.nanquantile(importance.where(counted, torch.nan), percentile / 100, dim=0)
    cut = torch.minimum(importance, highest)
    low = cut.where(counted, torch.inf).amin(0)
    spread = cut.where(counted, -torch.inf).amax(0) - low
    share = torch.where(spread > 0, (cut - low) / spread.where(spread > 0, torch.ones_like(spread)), 1.0)
    return (0.1 + 0.9 * share).where(counted, torch.zeros_like(share))


def _stretched(x: Float[Tensor, "b *shape"], first: int) -> Float[Tensor, "b *shape"]:
    """Brought to 0..1 from minimum and maximum over the axes from `first` on; zero where all is the same."""
    flat = x.flatten(first)
    low, high = flat.amin(-1, keepdim=True), flat.amax(-1, keepdim=True)
    spread = high - low
    return ((flat - low) / spread.where(spread != 0, torch.ones_like(spread))).reshape(x.shape)


def _enlarging(cells: int, size: int, like: Tensor) -> Float[Tensor, "size cells"]:
    """The matrix that interpolates `cells` values, each in the middle of its share, at `size` pixels."""
    pixels = torch.arange(size, dtype=like.dtype, device=like.device)
    return interpolation((pixels + 0.5) * cells / size - 0.5, cells)
