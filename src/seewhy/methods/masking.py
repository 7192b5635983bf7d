"""Methods that look at the image through its own feature maps: one more forward pass for each mask.

In the formulas U lays a layer's map on the image, N stretches a map to 0..1 (min-max; a constant map becomes zero),
M_k = N(U(A_k)) is the mask of channel k, x * M the image times the mask in the model's own units, so that what is
masked becomes 0, after the usual normalization the mean color; y is the score.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.methods.masks import (
    Inputs,
    ScoresAt,
    Upsample,
    at_least_one,
    blurred,
    channel_scores,
    constant,
    faded,
    masked_scores,
    min_max,
    noisy,
    one_of,
    quantile,
    widest,
)
from seewhy.tensor import at_once, chunked, noise, spatial_mean, weighted_sum
from seewhy.types import Activations, Gradients, Map, MethodError, Rows, Scores


def score_cam(
    inputs: Inputs,
    activations: Activations,
    upsample: Upsample,
    scores_at: ScoresAt,
    *,
    variant: str = "paper",
    channels: int | None = None,
    rectify: bool = True,
    chunk: int | None = None,
) -> Map:
    """Score-CAM: the feature maps, each weighted by the score of the image seen through it. No gradient.

    L_ij = ReLU(sum_k w_k A_kij),  w = softmax_k(y(x * M_k) - y(x * 0))

    Identity: the baseline y(x * 0) cancels in the softmax, and so does any constant added to the score; for an image of
    zeros all weights are 1 / K, and L is the mean feature map.

    Args:
        inputs: x.
        activations: A, best of the last layer with a spatial grid.
        upsample: U.
        scores_at: y. "paper" is made for logits; "authors" for probabilities.
        variant: "paper"; or "authors", their code: no softmax over channels, w_k = y(x * M_k), which is meant for a
            target that is a probability, and constant channels are left out.
        channels: An approximation: only so many channels, those whose activations spread most (standard deviation over
            the places), the softmax among them alone. None, all of them, is exact.
        rectify: Keep the positive part, as the paper does.
        chunk: Masked copies made at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the layer's resolution, in units of the activations ("authors": times the score). Constant channels
        have mask zero: all of an image's, most of them dead, share one evaluation and count in the softmax one by one.

    Raises:
        MethodError: An unknown variant, or less than one channel.

    Reference:
        Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPRW 2020,
        arXiv:1910.01279. The authors' code differs as said under `variant`, and adds upsampled maps before the ReLU:
        the same map wherever activations are not negative. torch-cam stretches the map before it upsamples it.

    Weakness:
        One forward pass for each channel; its softmax is almost one-hot or almost uniform, as the logits' scale has it.
    """
    one_of("variant", variant, ("paper", "authors"))
    kept = activations if channels is None else widest(activations, channels)
    scores = channel_scores(inputs, kept, upsample, scores_at, chunk)
    weights = scores.softmax(1) if variant == "paper" else scores.masked_fill(constant(kept), 0)
    map = weighted_sum(weights, kept)
    return map.relu() if rectify else map


def ss_cam(
    inputs: Inputs,
    activations: Activations,
    upsample: Upsample,
    scores_at: ScoresAt,
    *,
    noise_on: str = "mask",
    samples: int = 10,
    sigma: float = 2.0,
    rectify: bool = True,
    seed: int = 0,
    chunk: int | None = None,
) -> Map:
    """SS-CAM: Score-CAM with scores that are averaged over noisy masks.

    L_ij = ReLU(sum_k w_k A_kij),  w = softmax_k(mean_n y(x * (M_k + e_n))),  e_n ~ N(0, sigma^2) at every pixel

    Identity: without noise, Score-CAM; nor does noise change the weights where y is linear, since all channels see the
    same draws: what they are compared by is then free of the noise that they share.

    Args:
        inputs: x.
        activations: A.
        upsample: U.
        scores_at: y, best a logit.
        noise_on: "mask", the paper's first form; or "input", its second: y(x * M_k + e_n), a draw for each color of
            each pixel.
        samples: Draws of the noise, shared by all channels and images.
        sigma: Its standard deviation, in units of the mask (0..1), or of the input as the model takes it.
        rectify: Keep the positive part, as the paper does.
        seed: Of the noise, which is drawn by a generator of its own.
        chunk: Masked copies made at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the layer's resolution, in units of the activations.

    Raises:
        MethodError: An unknown place for the noise, or less than one sample.

    Reference:
        Wang et al., SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization, arXiv:2006.14255. torch-cam
        draws anew for every channel, 35 times.

    Weakness:
        Costs Score-CAM times the samples; noise of that size leaves little of the image to recognize.
    """
    one_of("noise_on", noise_on, ("mask", "input"))
    at_least_one("samples", samples)
    on_mask = noise_on == "mask"
    scores = activations.new_zeros(activations.shape[:2])
    for drawn in noise(inputs[:, :1] if on_mask else inputs, samples, seed):
        scores += channel_scores(inputs, activations, upsample, scores_at, chunk, noisy(sigma * drawn, on_mask))
    map = weighted_sum((scores / samples).softmax(1), activations)
    return map.relu() if rectify else map


def is_cam(
    inputs: Inputs,
    activations: Activations,
    upsample: Upsample,
    scores_at: ScoresAt,
    *,
    samples: int = 10,
    cumulative: bool = False,
    rectify: bool = True,
    chunk: int | None = None,
) -> Map:
    """IS-CAM: Score-CAM with scores that are averaged while the mask is faded in.

    L_ij = ReLU(sum_k w_k A_kij),  w = softmax_k(mean_n y(n/N x * M_k)),  n = 1..N

    Identity: of one sample, Score-CAM; where y is linear, Score-CAM of a score (N + 1) / (2 N) as large.

    Args:
        inputs: x.
        activations: A.
        upsample: U.
        scores_at: y, best a logit.
        samples: N, the steps from nothing to the full mask.
        cumulative: Add the steps up, 1/N, 3/N, 6/N, ..., as torch-cam does: the last mask of ten is 5.5 times as bright
            as the image.
        rectify: Keep the positive part, as the paper does.
        chunk: Masked copies made at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the layer's resolution, in units of the activations.

    Raises:
        MethodError: Less than one sample.

    Reference:
        Naidu et al., IS-CAM: Integrated Score-CAM for axiomatic-based explanations, arXiv:2010.03023.

    Weakness:
        Costs Score-CAM times the samples, for weights that hardly differ from Score-CAM's.
    """
    at_least_one("samples", samples)
    scores = activations.new_zeros(activations.shape[:2])
    for n in range(1, samples + 1):
        share = n * (n + 1) / (2 * samples) if cumulative else n / samples
        scores += channel_scores(inputs, activations, upsample, scores_at, chunk, faded(share))
    map = weighted_sum((scores / samples).softmax(1), activations)
    return map.relu() if rectify else map


def group_cam(
    inputs: Inputs,
    activations: Activations,
    gradients: Gradients,
    upsample: Upsample,
    scores_at: ScoresAt,
    *,
    groups: int = 32,
    theta: float = 0.7,
    sigma: float = 50.0,
    radius: int = 25,
    rectify: bool = True,
    chunk: int | None = None,
) -> Map:
    """Group-CAM: Score-CAM of a few groups of channels, each a small Grad-CAM, over a blurred image.

    L = ReLU(sum_g (y(x * U(M_g) + x' * (1 - U(M_g))) - y(x')) M_g),  M_g a * P_g + b so that U(M_g) = N(U(P_g)),
    P_g = ReLU(sum over k in g of alpha_k A_k), zero up to its theta quantile,  alpha_k = <gradient_k> / Z,
    x' the blurred image

    Identity: where y is linear, each weight is y((x - x') * U(M_g)) without y's bias: what the group brings back.

    Args:
        inputs: x.
        activations: A.
        gradients: Of the score, for alpha.
        upsample: U.
        scores_at: y; the authors take a probability.
        groups: How many; channels in their order, K / groups each.
        theta: Share of the places that de-noising sets to zero, 0..1.
        sigma: Of the Gaussian blur, in pixels; the authors' for 224 x 224.
        radius: Where the blur's kernel is cut off, in pixels; they take 51 x 51.
        rectify: Keep the positive part, as the paper does.
        chunk: Masked copies made at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the layer's resolution, in units of the score.

    Raises:
        MethodError: Less than one group, or a share outside 0..1.

    Reference:
        Zhang, Rao and Yang, Group-CAM: Group Score-Weighted Visual Explanations for Deep Convolutional Networks,
        arXiv:2103.13859, and the authors' code, which the blur is from. Before its ReLU, this map
        upsampled is the sum of theirs, which they rectify and stretch to 0..1.

    Weakness:
        Which channels share a group is an accident of their order in the network.
    """
    at_least_one("groups", groups)
    if not 0 <= theta <= 1:
        raise MethodError(f"got theta={theta}; it is the share of places set to zero, from 0 to 1")
    weighted = activations * spatial_mean(gradients).reshape(activations.shape[:2] + (1,) * (activations.ndim - 2))
    maps = torch.stack([group.sum(1) for group in weighted.chunk(groups, 1)], 1).relu()
    maps = maps.masked_fill(maps <= quantile(maps, theta), 0)
    soft = blurred(inputs, sigma, radius)
    everyone = torch.arange(len(inputs), device=inputs.device)
    parts = [scores_at(soft[part], everyone[part]) for part in chunked(len(inputs), at_once(chunk, inputs))]
    baseline = torch.cat(parts).to(maps)
    difference, map = inputs - soft, torch.zeros_like(maps[:, 0])
    masked = masked_scores(
        difference, maps, ~constant(maps), upsample, lambda changed, at: scores_at(changed.add_(soft[at]), at), chunk
    )
    for rows, masks, scores in masked:
        map.index_add_(0, rows, (scores - baseline[rows]).reshape(-1, *[1] * (map.ndim - 1)) * masks)
    return map.relu() if rectify else map


def opti_cam(
    inputs: Inputs,
    activations: Activations,
    upsample: Upsample,
    differentiable_scores_at: Callable[[Float[Tensor, "m c *s"], Rows], Scores],
    *,
    steps: int = 100,
    rate: float = 0.1,
    chunk: int | None = None,
) -> Map:
    """Opti-CAM: the mixture of feature maps through which the image scores highest, found by optimization.

    L_ij = sum_k softmax(u)_k ReLU(A_kij),  u = argmax y(x * N(U(L))), by `steps` steps of Adam from u = 0

    Identity: after no step at all, L is the mean feature map; every L is a convex mixture of the feature maps.

    Args:
        inputs: x.
        activations: A.
        upsample: U.
        differentiable_scores_at: y with its graph, best a logit.
        steps: Of Adam: each a forward and a backward pass.
        rate: Adam's learning rate; its other constants are Adam's usual ones.
        chunk: Images optimized at once: memory, never the result. None: what is fastest.

    Returns:
        The map at the layer's resolution, in units of the activations, never negative.

    Raises:
        MethodError: Less than one step.

    Reference:
        Zhang et al., Opti-CAM: Optimizing saliency maps for interpretability, Computer Vision and Image Understanding
        2024, arXiv:2301.07002. The authors' code stops early where the loss of the whole batch grows; here each image
        is on its own and takes all steps.

    Weakness:
        The mask that pleases the network most need not be what it used; a hundred forward and backward passes.
    """
    at_least_one("steps", steps)
    parts: list[Tensor] = []
    for part in chunked(len(inputs), at_once(chunk, inputs)):
        rows = torch.arange(part.start, part.stop, device=inputs.device)
        parts.append(
            _optimized(inputs[part], activations[part].relu(), rows, upsample, differentiable_scores_at, steps, rate)
        )
    return torch.cat(parts)


def _optimized(
    inputs: Inputs,
    maps: Activations,
    rows: Rows,
    upsample: Upsample,
    scores_at: Callable[[Float[Tensor, "m c *s"], Rows], Scores],
    steps: int,
    rate: float,
) -> Map:
    """Adam on the mixture of the maps; every entry has its own step size, so images do not see one another."""
    u, flat = torch.zeros_like(spatial_mean(maps)), constant(maps)
    mean, square = torch.zeros_like(u), torch.zeros_like(u)
    for step in range(1, steps + 1):
        with torch.enable_grad():
            leaf = u.requires_grad_()
            masks = min_max(upsample(weighted_sum(leaf.softmax(1), maps)))
            loss = -scores_at((inputs * masks.unsqueeze(1)).to(inputs.dtype), rows).sum()
        # a constant channel scales or shifts the map, which min-max undoes: what is left of its gradient is rounding,
        # which Adam, as it divides by the gradient's size, would blow up to full steps
        slope = torch.autograd.grad(loss, leaf)[0].masked_fill(flat, 0)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        size = (square / (1 - 0.999**step)).sqrt() + 1e-8
        u = u.detach() - rate * mean / (1 - 0.9**step) / size
    return weighted_sum(u.softmax(1), maps)
