"""Methods that look at activations alone: no backward pass."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.tensor import first_component, leading_eigenvector, weighted_sum
from seewhy.types import Activations, Map, MethodError, Weights


def cam(activations: Activations, class_weights: Weights, *, rectify: bool = False) -> Map:
    """Class activation map: the feature maps, weighted by the last linear layer's row of the class.

    L_ij = sum_k w_k A_kij

    Identity: with global average pooling and one linear layer, y = mean_ij(L_ij) + bias. There Z * Grad-CAM, with Z the
    number of places, is this map after its ReLU.

    Args:
        activations: A, the tensor that is averaged over space before the linear layer.
        class_weights: w, that layer's row of the class of each image.
        rectify: Keep the positive part only.

    Returns:
        The map at the layer's resolution, signed, in units of the score.

    Reference:
        Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, arXiv:1512.04150. The paper has
        no ReLU; torch-cam's documentation shows one that its code does not apply.

    Weakness:
        Only for networks that end in global average pooling and one linear layer.
    """
    map = weighted_sum(class_weights, activations)
    return map.relu() if rectify else map


def eigen_cam(activations: Activations, *, center: bool = False) -> Map:
    """Eigen-CAM: the first principal component of the activations, whatever the question.

    L = A^T v_1, with A as (channels, places) and v_1 its first left singular vector.

    Identity: |L| = sigma_1, the largest singular value. Rectified activations give L >= 0 (Perron), so nothing is lost
    to a ReLU. Centered, L sums to zero.

    Args:
        activations: A, any layer's output.
        center: Subtract each channel's mean over the places first, as pytorch-grad-cam does. The paper does not.

    Returns:
        The map at the layer's resolution, in units of the activations; signed where these are, or with `center`.
        A principal component has no sign of its own. Ours: the map sums to at least zero, or, where it is centered and
        so always sums to zero, correlates with the mean activation. pytorch-grad-cam fixes none, so it may blank the
        very object that it found.

    Reference:
        Muhammad and Yeasin, Eigen-CAM: Class Activation Map using Principal Components, IJCNN 2020, arXiv:2008.00299.

    Weakness:
        The same map for every class. It changes when channels are rescaled and the next layer undoes it, though the
        network's function does not; Grad-CAM, XGrad-CAM, HiResCAM and LayerCAM do not change then.
    """
    return first_component(activations, center)


def kpca_cam(activations: Activations, *, kernel: str = "sigmoid", gamma: float | None = None) -> Map:
    """KPCA-CAM: the first kernel principal component of the channel vectors of all places, whatever the question.

    L = sqrt(lambda_1) v_1, the leading eigenpair of C K C, with K_pq = kernel(x_p, x_q), x_p the channels at place p
    minus their means over the places, and C = 1 - 1/Z the centering in the kernel's space.

    Identity: the linear kernel gives centered Eigen-CAM. L sums to zero, and |L|^2 = lambda_1.

    Args:
        activations: A, any layer's output.
        kernel: "sigmoid", tanh(gamma x.y + 1); "rbf", exp(-gamma |x - y|^2); or "linear", x.y.
        gamma: The scale of the first two; None means 1 / channels, scikit-learn's choice.

    Returns:
        The map at the layer's resolution, signed. Its sign, which the decomposition leaves open, is Eigen-CAM's: a
        correlation of at least zero with the mean activation. Zero where no eigenvalue is positive.

    Raises:
        MethodError: An unknown kernel.

    Reference:
        Karmani et al., KPCA-CAM: Visual Explainability of Deep Computer Vision Models using Kernel PCA,
        arXiv:2410.00267. Kernels, defaults and the first centering are those of the pytorch-grad-cam package, where
        the authors put it; there the sign is that of scikit-learn, which may blank the object.

    Weakness:
        The same map for every class, and dependent on the scale of the activations. Memory grows with the square of
        the number of places, time with its cube: for grids of up to about 28 x 28.
    """
    flat = activations.flatten(2)
    flat = flat - flat.mean(-1, keepdim=True)
    centered = _kernel(flat, kernel, gamma)
    centered = centered - centered.mean(-1, keepdim=True)
    centered = centered - centered.mean(-2, keepdim=True)
    direction = leading_eigenvector(centered)
    value = torch.einsum("bp,bpq,bq->b", direction, centered, direction)[:, None]
    positive = value > 0
    root = value.where(positive, torch.ones_like(value)).sqrt()
    projection = (root * direction).where(positive | value.isnan(), torch.zeros_like(direction))
    sign = torch.where((projection * flat.mean(1)).sum(-1, keepdim=True) < 0, -1.0, 1.0).to(projection)
    return (sign * projection).reshape(activations.shape[:1] + activations.shape[2:])


def fem(activations: Activations, *, sigmas: float = 2.0, variant: str = "authors") -> Map:
    """FEM, feature explanation method: how much the channels agree that a place is out of the ordinary.

    L_ij = sum_k mu_k [A_kij > mu_k + sigmas s_k], with mu_k and s_k the mean and standard deviation of channel k.

    Identity: by Chebyshev's inequality no channel marks more than 1 / (1 + sigmas^2) of the places.

    Args:
        activations: A, rectified (not negative).
        sigmas: How many standard deviations above its mean a value has to be.
        variant: "authors", as above; or "pytorch_grad_cam", sum_k (share of places that channel k marks) A_kij.

    Returns:
        The map at the layer's resolution, in units of the activations; negative only where means or, in the second
        variant, activations are.

    Raises:
        MethodError: An unknown variant.

    Reference:
        Fuad et al., Features Understanding in 3D CNNs for Actions Recognition in Video, IPTA 2020; the authors' code
        for the strict comparison, the deviation of the whole population and the 2.

    Weakness:
        The same map for every class. Thresholds make it jump: a channel counts fully or not at all.
    """
    flat = activations.flatten(2)
    mean, deviation = flat.mean(-1, keepdim=True), flat.std(-1, correction=0, keepdim=True)
    marked = (flat > mean + sigmas * deviation).to(flat)
    if variant == "authors":
        map = (mean * marked).sum(1)
    elif variant == "pytorch_grad_cam":
        map = (marked.mean(-1, keepdim=True) * flat).sum(1)
    else:
        raise MethodError(f"no variant {variant!r} of FEM; choose 'authors' or 'pytorch_grad_cam'")
    return map.reshape(activations.shape[:1] + activations.shape[2:])


def _kernel(x: Float[Tensor, "b c n"], kernel: str, gamma: float | None) -> Float[Tensor, "b n n"]:
    """The kernel of every pair of places, less its value at zero: a constant that centering would take away anyway."""
    scale = 1 / x.shape[1] if gamma is None else gamma
    products = x.mT @ x
    if kernel == "sigmoid":
        # tanh(u + 1) - tanh(1) without its cancellation: exactly zero at u = 0, and no flicker of rounding around it
        bent = torch.tanh(scale * products)
        return bent * (1 - math.tanh(1) ** 2) / (1 + math.tanh(1) * bent)
    if kernel == "rbf":
        squares = products.diagonal(dim1=-2, dim2=-1)
        return torch.expm1(-scale * (squares[:, :, None] + squares[:, None] - 2 * products).clamp_min(0))
    if kernel == "linear":
        return products
    raise MethodError(f"no kernel {kernel!r}; choose 'sigmoid', 'rbf' or 'linear'")
