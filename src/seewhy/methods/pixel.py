"""Methods that weigh the pixels themselves: gradients of the score with respect to the image, all the way back.

In the formulas x_ci is the value of color channel c at pixel i as the model takes it (normalized: 0 is the mean color),
g_ci = dy/dx_ci the gradient of the score y, and C how the color channels become one, the option `channels` of all these
methods: "max_abs" is max_c |a_c|, "sum" is sum_c a_c and keeps the sign, "sum_abs" is sum_c |a_c|. Images may have any
number of spatial axes.
"""

from collections.abc import Callable
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.methods.sampling import baseline_of, pairs, quadrature, spread
from seewhy.tensor import noise, spatial_mean, weighted_sum
from seewhy.types import Activations, Gradients, Images, MethodError, Scores

PixelMap = Float[Tensor, "b *s"]


def saliency(input_gradients: Images, *, channels: str = "max_abs") -> PixelMap:
    """Saliency: how much the score moves when a pixel does, in the strongest of its color channels.

    S_i = C(g_ci), the paper's C being max_c |g_ci|

    Identity: of a linear score sum_ci w_ci x_ci, S_i = max_c |w_ci|, whatever the image.

    Args:
        input_gradients: g, of the score before any softmax.
        channels: How color channels become one: "max_abs" (the paper), "sum" (signed) or "sum_abs".

    Returns:
        The map at the image's resolution, in units of the score per unit of the input.

    Raises:
        MethodError: An unknown `channels`.

    Reference:
        Simonyan et al., Deep Inside Convolutional Networks, ICLR 2014 workshop, arXiv:1312.6034, section 3.1.

    Weakness:
        Noisy, and blind to what no small change moves: where the score is saturated, the gradient is zero.
    """
    return one_channel(input_gradients, channels)


def input_x_gradient(inputs: Images, input_gradients: Images, *, channels: str = "sum") -> PixelMap:
    """Input times gradient: the share of each pixel in the score's linear approximation.

    S_i = C(x_ci g_ci), with C the sum over c

    Identity: sum_i S_i = y where y is linear in x, and for a bias-free network of ReLU and max-pooling (Euler).

    Args:
        inputs: x, as the model takes it. What is zero there (the mean color) gets no share.
        input_gradients: g, of the score.
        channels: How color channels become one: "sum" (signed; the one with the identity), "sum_abs" or "max_abs".

    Returns:
        The map at the image's resolution, signed unless absolute values are asked for, in units of the score.

    Raises:
        MethodError: An unknown `channels`.

    Reference:
        Shrikumar et al., Not Just a Black Box: Learning Important Features Through Propagating Activation Differences,
        arXiv:1605.01713, where it is what their method is compared with.

    Weakness:
        Pixels of the mean color count for nothing, however much the score depends on them.
    """
    return one_channel(inputs * input_gradients, channels)


def integrated_gradients(
    inputs: Images,
    input_gradients_at: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int = 50,
    rule: str = "midpoint",
    baseline: float | Tensor = 0.0,
    channels: str = "sum",
    chunk: int | None = None,
) -> PixelMap:
    """Integrated gradients: the gradient averaged on the straight way from a baseline, times how far the image is off.

    S_i = C((x_ci - x'_ci) sum_k w_k g_ci(x' + a_k (x - x'))), for the integral over a from 0 to 1

    midpoint: a_k = (k - 1/2) / n, w_k = 1/n;  right: a_k = k / n, w_k = 1/n;  gauss_legendre: its nodes and weights

    Identity (completeness): with `channels="sum"`, sum_i S_i = y(x) - y(x') but for the error of the n steps, which
    `completeness_residual` tells: O(1/n^2) for the midpoint rule and O(1/n) for the right one on a smooth score, O(1/n)
    at worst at the kinks of ReLU. One midpoint is exact on quadratic scores, n Gauss-Legendre nodes on polynomials of
    degree 2 n. On linear scores with baseline 0 it is input times gradient.

    Args:
        inputs: x, as the model takes it.
        input_gradients_at: The score's gradients at changed images.
        steps: n, at least 1. The paper: 20 to 300.
        rule: Where on the way, and with which weights: "midpoint", "gauss_legendre", or "right", the paper's sum.
            The midpoint is our default: as cheap as the paper's sum and one order better. Gauss-Legendre is better
            still only where the score is smooth.
        baseline: x', what stands for no image: a number, one for each color channel, or an image (or one for each) of
            the inputs' size, in the units of the inputs. 0 is the mean color.
        channels: How color channels become one: "sum" (signed; the one with the identity), "sum_abs" or "max_abs".
        chunk: How many changed images are made at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the image's resolution, signed unless absolute values are asked for, in units of the score.

    Raises:
        MethodError: No steps, an unknown `rule` or `channels`.
        ShapeError: A baseline of the wrong shape.

    Reference:
        Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, arXiv:1703.01365, equations 1 and 3.
        Captum takes Gauss-Legendre by default.

    Weakness:
        Depends on the baseline: what has its color gets no share. The images on the way are none the model ever saw.
    """
    places, weights = quadrature(steps, rule, inputs)
    start = baseline_of(inputs, baseline)
    path = inputs - start
    average = torch.zeros_like(inputs)
    for rows, nodes in pairs(len(inputs), steps, chunk, inputs):
        changed = start[rows] + spread(places[nodes], inputs) * path[rows]
        gradients = input_gradients_at(changed, rows)
        average = average.index_add(0, rows, spread(weights[nodes], inputs) * gradients)
    return one_channel(path * average, channels)


def completeness_residual(
    map: PixelMap,
    inputs: Images,
    scores: Scores,
    scores_at: Callable[[Tensor, Tensor], Tensor],
    *,
    baseline: float | Tensor = 0.0,
) -> Scores:
    """What a map of integrated gradients misses of the score's difference to the baseline: zero where it is complete.

    r = sum_i S_i - (y(x) - y(x'))

    Identity: zero for linear scores, whatever the number of steps.

    Args:
        map: S, of `integrated_gradients` with `channels="sum"` and the same baseline.
        inputs: x, as the model takes it.
        scores: y(x).
        scores_at: The scores of changed images: one forward pass, of the baseline.
        baseline: x', as in `integrated_gradients`.

    Returns:
        One number for each image, in units of the score. More steps shrink it; what stays is rounding.

    Raises:
        ShapeError: A baseline of the wrong shape.

    Reference:
        Sundararajan et al., arXiv:1703.01365, proposition 1. Captum calls it the convergence delta.
    """
    rows = torch.arange(len(inputs), device=inputs.device)
    return map.flatten(1).sum(1) - (scores - scores_at(baseline_of(inputs, baseline), rows))


def smooth_grad(
    inputs: Images,
    input_gradients: Images,
    input_gradients_at: Callable[[Tensor, Tensor], Tensor],
    *,
    samples: int = 50,
    level: float = 0.15,
    how: str = "mean",
    channels: str = "max_abs",
    seed: int = 0,
    chunk: int | None = None,
) -> PixelMap:
    """SmoothGrad: the gradient, averaged over copies of the image with noise on them.

    S_i = C(mean_j g_ci(x + e_j)),  e_j ~ N(0, sigma^2),  sigma = level (max x - min x), for each image its own

    mean_squares (SmoothGrad-squared): C(mean_j g_ci^2);  variance (VarGrad): C(mean_j g_ci^2 - (mean_j g_ci)^2)

    The gradients are averaged with their signs, ahead of C, as the papers do; `ensemble.Noise`, which applies to any
    method, averages maps. With `channels="sum"` the mean is the same.

    Identity: of a linear score, the mean is saliency and the variance is zero, for every noise.

    Args:
        inputs: x, as the model takes it.
        input_gradients: g of the clean image. It only centers the sums, so that no variance is lost to rounding.
        input_gradients_at: The score's gradients at changed images.
        samples: How many noisy copies, at least 1. The paper: 50.
        level: sigma by the range of the image's values. The paper: 0.1 to 0.2.
        how: "mean", "mean_squares" or "variance".
        channels: How color channels become one: "max_abs", "sum" or "sum_abs".
        seed: Of the noise. All images of a batch get the same draws, so that a map does not depend on its company.
        chunk: How many noisy copies are made at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the image's resolution, in units of the score per unit of the input, or of their square.

    Raises:
        MethodError: No samples, a negative level, an unknown `how` or `channels`.

    Reference:
        Smilkov et al., SmoothGrad: removing noise by adding noise, arXiv:1706.03825. Squares: Hooker et al., A
        Benchmark for Interpretability Methods in Deep Neural Networks, NeurIPS 2019, arXiv:1806.10758. Variance:
        Adebayo et al., Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values,
        arXiv:1810.03307.

    Weakness:
        Answers for a blurred score, whose blur is a choice; squares and variance show how much, not for or against.
    """
    if samples < 1 or level < 0:
        raise MethodError(
            f"got {samples} samples of noise of level {level}; take at least one and a level of 0 or more"
        )
    if how not in ("mean", "mean_squares", "variance"):
        raise MethodError(f"no way {how!r} of averaging; choose 'mean', 'mean_squares' or 'variance'")
    drawn = (draw for _ in inputs for draw in noise(inputs, samples, seed))
    sigma = level * (inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1))
    first, second = torch.zeros_like(inputs), torch.zeros_like(inputs)
    for rows, _ in pairs(len(inputs), samples, chunk, inputs):
        changed = inputs[rows] + spread(sigma[rows], inputs) * torch.stack(list(islice(drawn, len(rows))))
        off = input_gradients_at(changed, rows) - input_gradients[rows]
        first = first.index_add(0, rows, off / samples)
        second = second.index_add(0, rows, off.square() / samples)
    mean, variance = input_gradients + first, (second - first.square()).clamp_min(0)
    combined = {"mean": mean, "mean_squares": mean.square() + variance, "variance": variance}
    return one_channel(combined[how], channels)


def guided_backprop(guided_gradients: Images, *, channels: str = "max_abs") -> PixelMap:
    """Guided backpropagation: the gradient that flows back through active rectifiers, its negative part stopped there.

    S_i = C(r_ci), where every rectifier f passes R_before = f'(z) ReLU(R_after) back

    Identity: the gradient itself where nothing negative ever reaches a rectifier from above.

    Args:
        guided_gradients: r, of the score, with the rectifiers' backward replaced by that rule.
        channels: How color channels become one: "max_abs", "sum" (signed) or "sum_abs".

    Returns:
        The map at the image's resolution; where it is high says little about why.

    Raises:
        MethodError: An unknown `channels`.

    Reference:
        Springenberg et al., Striving for Simplicity: The All Convolutional Net, ICLR 2015 workshop, arXiv:1412.6806,
        section 3.4. The paper shows r in color; "max_abs" is the gray form of Simonyan et al.

    Weakness:
        Looks like an edge detector: much the same for every class, and for random weights.
    """
    return one_channel(guided_gradients, channels)


def deconvnet(deconvnet_gradients: Images, *, channels: str = "max_abs") -> PixelMap:
    """Deconvnet: what flows back when every rectifier lets all that is positive pass, open or not.

    S_i = C(r_ci), where every rectifier passes R_before = ReLU(R_after) back

    Identity: guided backpropagation where every rectifier is open.

    Args:
        deconvnet_gradients: r, of the score, with the rectifiers' backward replaced by that rule.
        channels: How color channels become one: "max_abs", "sum" (signed) or "sum_abs".

    Returns:
        The map at the image's resolution; where it is high says little about why.

    Raises:
        MethodError: An unknown `channels`.

    Reference:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901, section
        2.1; as a rule of backpropagation, Simonyan et al., arXiv:1312.6034, section 4.

    Weakness:
        Looks like an edge detector: much the same for every class; without max-pooling it hardly depends on the image.
    """
    return one_channel(deconvnet_gradients, channels)


def guided_grad_cam(
    activations: Activations,
    gradients: Gradients,
    guided_gradients: Float[Tensor, "b colors *s"],
    upsample: Callable[[Tensor], Tensor],
    *,
    channels: str = "max_abs",
) -> PixelMap:
    """Guided Grad-CAM: guided backpropagation where Grad-CAM is, so that edges speak for one class only.

    S_i = C(r_ci U(L)_i),  L = ReLU(sum_k alpha_k A_k),  alpha_k = mean_ij(g_kij)

    Identity: with C of absolute values it is guided backpropagation times the upsampled Grad-CAM; zero where that is.

    Args:
        activations: A, the output of a layer with a spatial grid, best the last one, after its rectifier.
        gradients: g, of the score with respect to A.
        guided_gradients: r, as in `guided_backprop`.
        upsample: U, which lays a map of the layer on the image.
        channels: How color channels become one: "max_abs", "sum" (signed) or "sum_abs".

    Returns:
        The map at the image's resolution, in units of the score squared: where, not how much.

    Raises:
        MethodError: An unknown `channels`.

    Reference:
        Selvaraju et al., Grad-CAM, ICCV 2017, arXiv:1610.02391, section 3.2, with bilinear U. Captum upsamples to the
        nearest cell by default.

    Weakness:
        The fine detail is guided backpropagation's: edges, insensitive to the weights; only the rough place is not.
    """
    place = upsample(weighted_sum(spatial_mean(gradients), activations).relu())
    return one_channel(guided_gradients * place.unsqueeze(1), channels)


def one_channel(attribution: Images, channels: str) -> PixelMap:
    """The color channels made one, as the option `channels` says.

    Raises:
        MethodError: An unknown `channels`.
    """
    if channels == "max_abs":
        return attribution.abs().amax(1)
    if channels == "sum":
        return attribution.sum(1)
    if channels == "sum_abs":
        return attribution.abs().sum(1)
    raise MethodError(f"no way {channels!r} to make the color channels one; choose 'max_abs', 'sum' or 'sum_abs'")
