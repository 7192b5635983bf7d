"""Methods that look at activations alone: no backward pass."""

from seewhy.tensor import first_component, weighted_sum
from seewhy.types import Activations, Map, Weights


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
