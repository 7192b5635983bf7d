"""Captum's methods that weigh the pixels themselves, by gradients of some kind.

DeepLIFT and LRP hook the model that they are given and leave marks on its parts: they get a copy. In the formulas y is
the score, x the image as the model takes it, x' what stands for no image.
"""

from importlib import import_module

import torch
from torch import Tensor

from seewhy.delegates.lending import PixelMap, at_least_one, lent, library, tell_residual
from seewhy.methods.pixel import one_channel
from seewhy.methods.sampling import baseline_of
from seewhy.model.scorer import Scorer
from seewhy.types import Images, MethodError

_AT_ONCE = 8  # samples of GradientSHAP in one pass: a constant, since Captum's draws depend on it
_CHANGE = (
    "the score's change from the baseline",
    "some nonlinear part of the model is none that Captum has a rule for (a function instead of a module, ReLU6, GELU, "
    "...) and was taken as linear",
)
_SCORE = ("the score", "biases keep a share, and Captum has no rule for functions, such as the sum of a shortcut")


def gradient_shap(
    inputs: Images,
    scorer: Scorer,
    *,
    samples: int = 200,
    noise: float = 0.0,
    baseline: float | Tensor = 0.0,
    channels: str = "sum",
    seed: int = 0,
) -> PixelMap:
    """GradientSHAP: integrated gradients at random places on the ways from random references.

    S_i = C(mean_j (x_ci + e_cij - x'_cij) g_ci(x'_j + u_j (x + e_j - x'_j))),  u_j ~ U(0, 1),  g = dy / dx

    where C makes one of the color channels, e_j is noise, and x'_j one of the references.

    Identity: with `channels="sum"`, one reference and no noise, the map of a linear score sums to y(x) - y(x').

    Args:
        inputs: x.
        scorer: y, of changed images.
        samples: How many places; 200 in the authors' code, 5 in Captum's.
        noise: Standard deviation of noise that is added to the image, in the units of the inputs.
        baseline: x': a number, or the references to draw from, images (r c *s).
        channels: How color channels become one: "sum" (signed), "sum_abs" or "max_abs".
        seed: Of references, places and noise.

    Returns:
        The map at the image's resolution, signed unless absolute values are asked for, in units of the score.

    Reference:
        Lundberg and Lee, arXiv:1705.07874, as "expected gradients" in the authors' shap package. Captum's
        `GradientShap`.
    """
    at_least_one(samples)
    references = baseline if isinstance(baseline, Tensor) else torch.full_like(inputs[:1], baseline)
    if references.shape[1:] != inputs.shape[1:]:
        raise MethodError(_references("gradient_shap", references, inputs))
    total = torch.zeros_like(inputs)
    for row, image in enumerate(inputs.detach().split(1)):
        leaf, rows = image.clone().requires_grad_(), torch.tensor([row], device=inputs.device)
        with lent(scorer, "gradient_shap", seed):
            explainer = library("gradient_shap").GradientShap(scorer)
            for first in range(0, samples, _AT_ONCE):
                count = min(_AT_ONCE, samples - first)
                found = explainer.attribute(leaf, references.to(leaf), count, noise, None, (rows,))
                total[row] += found[0].detach() * (count / samples)
    return one_channel(total, channels)


def deep_lift(inputs: Images, scorer: Scorer, *, baseline: float | Tensor = 0.0, channels: str = "sum") -> PixelMap:
    """DeepLIFT: how far the score is from the baseline's, handed back through finite differences at every rectifier.

    S_i = C(m_ci (x_ci - x'_ci)),  m as the gradient dy / dx, but (f(z) - f(z')) / (z - z') in place of f'(z)

    where C makes one of the color channels, and z and z' are what a rectifier f gets for x and for x'.

    Identity: with `channels="sum"`, sum_i S_i = y(x) - y(x') where every nonlinear part is a module that Captum has a
    rule for and that runs once; a note says by how much that fails.

    Args:
        inputs: x.
        scorer: y, of changed images.
        baseline: x': as in `integrated_gradients`.
        channels: How color channels become one: "sum" (signed; the one with the identity), "sum_abs" or "max_abs".

    Returns:
        The map at the image's resolution, signed unless absolute values are asked for, in units of the score.

    Raises:
        MethodError: Captum refuses the model, such as one that uses a rectifier's module twice.

    Reference:
        Shrikumar et al., Learning Important Features Through Propagating Activation Differences, ICML 2017,
        arXiv:1704.02685, its rescale rule. Captum's `DeepLift`.
    """
    apart, start = scorer.apart(), baseline_of(inputs, baseline)
    leaf, rows = inputs.detach().clone().requires_grad_(), torch.arange(len(inputs), device=inputs.device)
    with lent(apart, "deep_lift"):
        found, beyond = (
            library("deep_lift").DeepLift(apart).attribute(leaf, start, None, (rows,), return_convergence_delta=True)
        )
    tell_residual(apart, found, beyond, *_CHANGE)
    return one_channel(found.detach(), channels)


def deep_lift_shap(
    inputs: Images, scorer: Scorer, *, baseline: Tensor | None = None, channels: str = "sum"
) -> PixelMap:
    """DeepLIFT SHAP: the mean of DeepLIFT over several references.

    S_i = mean_r S_i(x, x'_r),  S(x, x') the map of DeepLIFT

    Identity: with `channels="sum"`, sum_i S_i = y(x) - mean_r y(x'_r), where that of DeepLIFT holds.

    Args:
        inputs: x.
        scorer: y, of changed images.
        baseline: The references, images (r c *s), two at least.
        channels: How color channels become one: "sum" (signed), "sum_abs" or "max_abs".

    Returns:
        The map at the image's resolution, signed unless absolute values are asked for, in units of the score.

    Raises:
        MethodError: No references, or Captum refuses the model.

    Reference:
        Lundberg and Lee, arXiv:1705.07874, section 4.2. Captum's `DeepLiftShap`.
    """
    if baseline is None or len(baseline) < 2 or baseline.shape[1:] != inputs.shape[1:]:
        raise MethodError(_references("deep_lift_shap", baseline, inputs))
    apart, references, parts = scorer.apart(), baseline.detach().to(inputs), list[Tensor]()
    with lent(apart, "deep_lift_shap"):
        explainer = library("deep_lift_shap").DeepLiftShap(apart)
        for row, image in enumerate(inputs.detach().split(1)):
            leaf, rows = image.clone().requires_grad_(), torch.tensor([row], device=inputs.device)
            found, beyond = explainer.attribute(leaf, references, None, (rows,), return_convergence_delta=True)
            tell_residual(apart, found, beyond.mean(0, keepdim=True), *_CHANGE)
            parts.append(found.detach())
    return one_channel(torch.cat(parts), channels)


def lrp(inputs: Images, scorer: Scorer, *, channels: str = "sum") -> PixelMap:
    """LRP: the score handed back layer by layer, each input of a layer getting its share of what the layer put out.

    S_i = C(R_ci),  R_before = sum_j z_ij / (z_j + epsilon sign z_j) R_j,  z_ij = w_ji a_i,  z_j = sum_i z_ij + b_j

    from R = y at the score down to the image, a being what a layer gets; C makes one of the color channels.

    Identity: input times gradient in a network of ReLU without biases, whose sum is the score. Biases keep their share;
    a note says by how much the sum is off.

    Args:
        inputs: x.
        scorer: y, of changed images.
        channels: How color channels become one: "sum" (signed; the one with the identity), "sum_abs" or "max_abs".

    Returns:
        The map at the image's resolution, signed unless absolute values are asked for, in units of the score.

    Raises:
        MethodError: Captum refuses the model: it has rules for 2-D convolution, linear layers, batch norm, pooling,
            ReLU and tanh as modules that run once, and for nothing else.

    Reference:
        Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation,
        PLoS ONE 10, 2015. Captum's `LRP`, the epsilon rule at every layer.
    """
    apart = scorer.apart()
    apart.asked.rule = import_module("captum.attr._utils.lrp_rules").EpsilonRule()  # each class gets its own share
    leaf, rows = inputs.detach().clone().requires_grad_(), torch.arange(len(inputs), device=inputs.device)
    with lent(apart, "lrp"):
        found, left = library("lrp").LRP(apart).attribute(leaf, None, (rows,), return_convergence_delta=True)
    tell_residual(apart, found, -left, *_SCORE)
    return one_channel(found.detach(), channels)


def _references(method: str, given: Tensor | None, inputs: Images) -> str:
    got = "no references" if given is None else f"references of shape {tuple(given.shape)}"
    least = ", r at least 2" if method == "deep_lift_shap" else ""
    return (
        f"captum:{method} got {got}; give images to compare with, as the model takes them, as the option baseline: of "
        f"shape (r, {', '.join(map(str, inputs.shape[1:]))}){least}"
    )
