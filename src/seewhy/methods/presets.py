"""Our own combinations of published methods: of no paper, made because they were measured to be best on photos."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.methods.gradient import grad_cam, layer_cam
from seewhy.tensor import unit


def sharp(
    activations_by_layer: Sequence[Float[Tensor, "b _ ..."]],
    gradients_by_layer: Sequence[Float[Tensor, "b _ ..."]],
    upsample_by_layer: Sequence[Callable[[Tensor], Tensor]],
) -> Float[Tensor, "b *s"]:
    """Ours, of no paper: what Grad-CAM of the last layer and LayerCAM of finer ones before it agree on.

    M = (u(U_n Grad-CAM_n) prod_(l < n) u(U_l LayerCAM_l))^(1/n),  u the positive part divided by its maximum

    By itself it looks at the last layer with a grid, and where that is coarse, under 10 cells along an axis, at the
    deepest rectified tensor of twice that grid too: one knows what, the other where, to half a cell.

    Identity: of one layer it is Grad-CAM, divided by its maximum.

    Args:
        activations_by_layer: A of each layer, shallow to deep.
        gradients_by_layer: g of each.
        upsample_by_layer: U, which lays each layer's map where its cells look.

    Returns:
        The map over the image, relative, 0..1: the geometric mean, which is zero wherever one of the maps is.

    Reference:
        None. Measured in docs/quality.md beside the methods that it is made of.

    Weakness:
        Says where, not how much; evidence that only one of its layers sees is lost.
    """
    *finer, (activations, gradients, upsample) = zip(
        activations_by_layer, gradients_by_layer, upsample_by_layer, strict=True
    )
    return agreement([*(lay(layer_cam(a, g)) for a, g, lay in finer), upsample(grad_cam(activations, gradients))])


def agreement(maps: Sequence[Float[Tensor, "b *s"]]) -> Float[Tensor, "b *s"]:
    """The geometric mean of maps over the image, each its positive part divided by its maximum."""
    return reduce(torch.mul, map(unit, maps)) ** (1 / len(maps))


def best(
    activations_by_layer: Sequence[Float[Tensor, "b _ ..."]],
    gradients_by_layer: Sequence[Float[Tensor, "b _ ..."]],
    upsample_by_layer: Sequence[Callable[[Tensor], Tensor]],
) -> Float[Tensor, "b *s"]:
    """Ours, of no paper: `sharp`, and when asked for by name its mean over flips and two sizes of the image.

    L = (1/4) sum over the image, its mirror image, and both twice as large, of M as in `sharp`, each brought back

    This function is the formula of `sharp`; the registry's row adds the ensemble, Flips((-1,)) and Scales((1, 2)).

    Identity: without the ensemble it is `sharp`.

    Args:
        activations_by_layer: A of each layer, shallow to deep.
        gradients_by_layer: g of each.
        upsample_by_layer: U, which lays each layer's map where its cells look.

    Returns:
        The map over the image, relative, 0..1.

    Reference:
        None. Measured in docs/quality.md beside `sharp`.

    Weakness:
        Ten to sixteen times the cost of `sharp` for a little more; an image twice as large is news to the network. Not
        for questions about left and right, coordinates or text: what is evidence in the mirror image is another thing.
    """
    return sharp(activations_by_layer, gradients_by_layer, upsample_by_layer)
