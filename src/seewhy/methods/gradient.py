"""Methods that weigh activations by the gradient of the score: one backward pass through the end of the network.

In the formulas A_kij is the activation of channel k at place ij of the layer, g_kij = dy/dA_kij the gradient of the
score y, Z the number of places, and <x> the sum of x over the places. Grids may have any number of axes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.tensor import first_component, spatial_mean, spatial_sum, weighted_sum
from seewhy.types import Activations, Gradients, Map, Weights


def grad_cam(activations: Activations, gradients: Gradients, *, rectify: bool = True) -> Map:
    """Grad-CAM: the feature maps, weighted by the mean gradient of the score with respect to each of them.

    L_ij = ReLU(sum_k alpha_k A_kij),  alpha_k = <g_k> / Z

    Identity: with global average pooling and one linear layer, alpha_k = w_k / Z, so Z * L is CAM after a ReLU.

    Args:
        activations: A, the output of a layer with a spatial grid, best the last one, after its rectifier.
        gradients: g, of the score before any softmax; a saturated probability has hardly any gradient.
        rectify: Keep the positive part, as the paper does. Off, negative values speak against the class.

    Returns:
        The map at the layer's resolution, in units of the score divided by Z, not stretched to 0..1.

    Reference:
        Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017,
        arXiv:1610.02391; short form "Grad-CAM: Why did you say that?", arXiv:1611.07450, equations 2 and 3. The
        authors' code sums gradients where the paper averages them: a factor Z, the same picture.

    Weakness:
        The mean over space forgets where the gradient was, so the map may mark places that the score does not depend
        on: behind a wall of zero weights Grad-CAM sees on, HiResCAM and LayerCAM do not.
    """
    map = weighted_sum(spatial_mean(gradients), activations)
    return map.relu() if rectify else map


def grad_cam_pp(
    activations: Activations, gradients: Gradients, *, alpha_normalize: bool = False, rectify: bool = True
) -> Map:
    """Grad-CAM++: positive gradients only, each place weighted so that small objects count like large ones.

    L_ij = ReLU(sum_k w_k A_kij),  w_k = sum_ij alpha_kij ReLU(g_kij),  alpha_kij = 1 / (2 + g_kij <A_k>)

    The paper's alpha, g^2 / (2 g^2 + <A> g^3), is this fraction with g^2 cancelled: exact at any scale of the gradient,
    where an epsilon in the denominator swamps the g^3 of real networks. It is derived for the score Y = exp(y), and for
    a network that is piecewise linear above the layer; exp(y) itself is one factor for the whole map and is left out,
    so the map is that of exp(y) divided by exp(y). Where g <= 0 the weight is zero whatever alpha is; a negative <A_k>,
    which the derivation's rectified feature maps cannot have, counts as zero, since the denominator might vanish.

    Identity: with global average pooling and one linear layer, w_k = Z g / (2 + g <A_k>) for g = w_k / Z > 0, else 0;
    with `alpha_normalize`, w_k = ReLU(g), the positive part of Grad-CAM's weight.

    Args:
        activations: A, rectified (not negative).
        gradients: g, of the logit y.
        alpha_normalize: Divide alpha by its sum over the places of positive gradient, as the authors' code does and
            the paper's text does not.
        rectify: Keep the positive part, as the paper does.

    Returns:
        The map at the layer's resolution.

    Reference:
        Chattopadhay et al., Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks, WACV 2018,
        arXiv:1710.11063, equation 19. The authors' code normalizes alpha (see above); xplique takes the mean of A
        in place of its sum; pytorch-grad-cam adds 1e-6 to the denominator.

    Weakness:
        Not linear in the score: doubling the logits changes the picture. Sees through walls as Grad-CAM does.
    """
    positive = gradients.relu()
    alpha = 1 / (2 + positive * _spread(spatial_sum(activations).relu(), gradients))
    if alpha_normalize:
        alpha = alpha.where(positive > 0, torch.zeros_like(alpha))
        alpha = _divide(alpha, _spread(spatial_sum(alpha), alpha))
    map = weighted_sum(spatial_sum(alpha * positive), activations)
    return map.relu() if rectify else map


def xgrad_cam(activations: Activations, gradients: Gradients, *, rectify: bool = False) -> Map:
    """XGrad-CAM: the gradient averaged where the channel is active, from the axioms of sensitivity and conservation.

    L_ij = sum_k alpha_k A_kij,  alpha_k = <g_k A_k> / <A_k>

    Identity: L sums over the places to <g A>, the sum of HiResCAM. With one linear layer on the flattened activations,
    sum_ij L_ij + bias = y (conservation), and alpha_k <A_k> is the drop of y when channel k is set to zero
    (sensitivity). With global average pooling it equals Grad-CAM before its ReLU.

    Args:
        activations: A, rectified (not negative).
        gradients: g, of the score.
        rectify: Keep the positive part. Off by default: the conservation is one of the signed map.

    Returns:
        The map at the layer's resolution, signed, in units of the score. A channel whose activations sum to exactly
        zero gets weight zero.

    Reference:
        Fu et al., Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs, BMVC 2020,
        arXiv:2008.02312. The authors' code adds 1e-6 to <A_k> and rectifies before it draws.

    Weakness:
        Derived for ReLU networks: where activations may be negative (GELU, SiLU) <A_k> may come near zero and the
        weight explodes. Sees through walls as Grad-CAM does.
    """
    weights = _divide(spatial_sum(gradients * activations), spatial_sum(activations))
    map = weighted_sum(weights, activations)
    return map.relu() if rectify else map


def hires_cam(activations: Activations, gradients: Gradients, *, rectify: bool = False) -> Map:
    """HiResCAM: gradient times activation, summed over channels, each place by itself.

    L_ij = sum_k g_kij A_kij

    Identity (completeness): sum_ij L_ij + bias = y where y is linear in A, and L_ij is then what y loses when place ij
    is set to zero; sum_ij L_ij = y at any layer of a bias-free network of ReLU and max-pooling (Euler).

    Args:
        activations: A, any layer's output.
        gradients: g, of the score.
        rectify: Keep the positive part, which the paper does for display only.

    Returns:
        The map at the layer's resolution, signed, in units of the score.

    Reference:
        Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks,
        arXiv:2011.08891.

    Weakness:
        Blocky, since nothing is averaged; with biases or smooth activations above the layer the sum is not the score.
    """
    map = (gradients * activations).sum(1)
    return map.relu() if rectify else map


def layer_cam(activations: Activations, gradients: Gradients, *, rectify: bool = True) -> Map:
    """LayerCAM: activations weighted, place by place, by the positive part of the gradient.

    L_ij = ReLU(sum_k ReLU(g_kij) A_kij)

    Identity: with global average pooling and one linear layer, Z * L = ReLU(sum_k ReLU(w_k) A_k): CAM of the positive
    weights.

    Args:
        activations: A, any layer's output; made for early layers too.
        gradients: g, of the score.
        rectify: Keep the positive part, as the paper does; without effect where A >= 0.

    Returns:
        The map at the layer's resolution. Several layers are fused by `ensemble.fuse(maps, "max_tanh")`.

    Reference:
        Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, IEEE Transactions on
        Image Processing 30, 2021. The authors' script for localization rectifies the product g A instead of g: the
        same where A >= 0.

    Weakness:
        Evidence against the class is left out, so the map does not sum to the score.
    """
    map = (gradients.relu() * activations).sum(1)
    return map.relu() if rectify else map


def grad_cam_elementwise(activations: Activations, gradients: Gradients) -> Map:
    """Element-wise Grad-CAM: the positive products of gradient and activation, summed over channels.

    L_ij = sum_k ReLU(g_kij A_kij)

    Identity: equals LayerCAM where A >= 0; L >= ReLU(HiResCAM) everywhere.

    Args:
        activations: A, any layer's output.
        gradients: g, of the score.

    Returns:
        The map at the layer's resolution, never negative.

    Reference:
        No publication: the definition is that of the pytorch-grad-cam package.

    Weakness:
        What speaks against the class is dropped channel by channel, so places where channels cancel look important.
    """
    return (gradients * activations).relu().sum(1)


def eigen_grad_cam(activations: Activations, gradients: Gradients, *, center: bool = False) -> Map:
    """Eigen-Grad-CAM: the first principal component of gradient times activation.

    L = X^T v_1, with X = g * A as (channels, places) and v_1 its first left singular vector.

    Identity: |L| = sigma_1(X). With one channel L = +-HiResCAM, with the sign that makes its sum at least zero.

    Args:
        activations: A, any layer's output.
        gradients: g, of the score.
        center: Subtract each channel's mean over the places from X first, as pytorch-grad-cam does.

    Returns:
        The map at the layer's resolution, with Eigen-CAM's rule for the sign: sum at least zero, or, centered, a
        correlation of at least zero with the mean of X over channels.

    Reference:
        No publication: the definition is that of the pytorch-grad-cam package, which centers and fixes no sign.

    Weakness:
        Keeps the direction of largest spread, not the sum: its sign is a convention, and its values are no shares of
        the score.
    """
    return first_component(gradients * activations, center)


def shapley_cam(
    activations: Activations, gradients: Gradients, hessian_product: Gradients, *, rectify: bool = True
) -> Map:
    """ShapleyCAM: Grad-CAM with each channel's Shapley value in the score's second-order expansion.

    L_ij = ReLU(sum_k alpha_k A_kij),  alpha_k = <g_k - (H A)_k / 2> / Z,  H_kij,lmn = d^2 y / dA_kij dA_lmn

    Identity: where y is quadratic in A, sum_kij (g - H A / 2)_kij A_kij = y(A) - y(0); if it depends on the channels'
    means alone, the map before its ReLU sums to that. Where the network above the layer is piecewise linear (ReLU,
    max-pooling, a logit) H is exactly zero, and this is Grad-CAM.

    Args:
        activations: A, the output of a layer with a spatial grid.
        gradients: g, of the score.
        hessian_product: H A, the Hessian of the score times the activations.
        rectify: Keep the positive part, as the paper does.

    Returns:
        The map at the layer's resolution, in units of the score divided by Z.

    Reference:
        Cai, CAMs as Shapley Value-based Explainers, arXiv:2501.06261. Its target, "ReST", is the logit plus the log
        probability, whose Hessian is not zero anywhere. Equal to pytorch-grad-cam's ShapleyCAM.

    Weakness:
        The same as Grad-CAM for the logits of networks of rectifiers; a second backward pass for nothing there.
    """
    map = weighted_sum(spatial_mean(gradients - hessian_product / 2), activations)
    return map.relu() if rectify else map


def _spread(per_channel: Weights, x: Gradients) -> Float[Tensor, "b c *ones"]:
    """One number a channel, with an axis of length one for every axis of the grid of `x`."""
    return per_channel.reshape(per_channel.shape + (1,) * (x.ndim - 2))


def _divide(x: Float[Tensor, "b c *grid"], by: Float[Tensor, "b c *grid_or_ones"]) -> Float[Tensor, "b c *grid"]:
    """Quotient that is zero where the divisor is: free of a scale, unlike an added epsilon."""
    defined = by != 0
    return torch.where(defined, x / by.where(defined, torch.ones_like(by)), torch.zeros_like(x))
