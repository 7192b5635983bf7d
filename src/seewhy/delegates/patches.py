"""Captum's methods that weigh patches of the image, by the scores of images with some of them covered.

In the formulas y is the score, x the image as the model takes it, x' what stands for no image.
"""

from importlib import import_module

from torch import Tensor

from seewhy.delegates.lending import PixelMap, by_patches, library
from seewhy.methods.sampling import baseline_of
from seewhy.model.scorer import Scorer
from seewhy.tensor import at_once
from seewhy.types import Images


def lime(
    inputs: Images,
    scorer: Scorer,
    *,
    patches: int = 7,
    samples: int = 1000,
    alpha: float = 0.01,
    baseline: float | Tensor = 0.0,
    seed: int = 0,
    chunk: int | None = None,
) -> PixelMap:
    """LIME: the weights of patches in a sparse linear model, fitted to the scores of images with random patches shown.

    L_i = w_p(i),  w = argmin over w and w_0 of sum_z pi(z) (y(x_z) - w_0 - w z)^2 / 2 m + alpha |w|_1

    where p(i) is the patch of pixel i, z has a 1 for each patch that x_z shows (x' covers the others), and pi(z) is the
    greater the nearer x_z is to x, summing to m.

    Identity: of a score that no patch changes, the map is zero.

    Args:
        inputs: x. Each image gets a model of its own.
        scorer: y, of changed images.
        patches: How many patches along each axis, at most one for each pixel.
        samples: How many images with half of their patches covered; 1000 in the authors' code, 50 in Captum's.
        alpha: The L1 penalty: weights far below it vanish. Choose a smaller one for probabilities.
        baseline: x', what covers a patch: as in `integrated_gradients`.
        seed: Of the random patches.
        chunk: How many changed images are made at once: memory, never the result. None: what is fastest.

    Returns:
        At each pixel its patch's weight, signed, in units of the score.

    Reference:
        Ribeiro et al., "Why should I trust you?", KDD 2016, arXiv:1602.04938. Captum's `Lime`: Lasso, an exponential
        kernel of the cosine distance. The authors take superpixels for patches and ridge regression.
    """
    start = baseline_of(inputs, baseline)

    def attribute(image: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        surrogate = import_module("captum._utils.models.linear_model").SkLearnLasso(alpha=alpha)
        how = {"n_samples": samples, "perturbations_per_eval": at_once(chunk, inputs), "return_input_shape": False}
        explainer = library("lime").Lime(scorer, interpretable_model=surrogate)
        return explainer.attribute(image, start[rows], None, (rows,), mask, **how)

    return by_patches(inputs, scorer, "lime", patches, samples, seed, attribute)


def kernel_shap(
    inputs: Images,
    scorer: Scorer,
    *,
    patches: int = 7,
    samples: int = 2146,
    baseline: float | Tensor = 0.0,
    seed: int = 0,
    chunk: int | None = None,
) -> PixelMap:
    """KernelSHAP: patches' Shapley values, as a linear regression on random coalitions of patches.

    L_i = w_p(i),  w = argmin of sum_z pi(z) (y(x_z) - y(x') - w z)^2,  pi(z) = (M - 1) / (binom(M, |z|) |z| (M - |z|))

    where p(i) is the patch of pixel i, of M, and z has a 1 for each patch that x_z shows (x' covers the others).

    Identity: the values of all patches sum to y(x) - y(x'), to the rounding of a heavily weighted regression.

    Args:
        inputs: x.
        scorer: y, of changed images.
        patches: How many patches along each axis, at most one for each pixel.
        samples: How many coalitions; the authors' code takes 2 M + 2048 of M patches. With fewer than M + 2 the
            regression has no unique solution.
        baseline: x', what covers a patch: as in `integrated_gradients`.
        seed: Of the coalitions.
        chunk: How many changed images are made at once: memory, never the result. None: what is fastest.

    Returns:
        At each pixel its patch's value, signed, in units of the score.

    Reference:
        Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017, arXiv:1705.07874. Captum's
        `KernelShap`.
    """
    start = baseline_of(inputs, baseline)

    def attribute(image: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        how = {"n_samples": samples, "perturbations_per_eval": at_once(chunk, inputs), "return_input_shape": False}
        return library("kernel_shap").KernelShap(scorer).attribute(image, start[rows], None, (rows,), mask, **how)

    return by_patches(inputs, scorer, "kernel_shap", patches, samples, seed, attribute)


def shapley_sampling(
    inputs: Images,
    scorer: Scorer,
    *,
    patches: int = 7,
    samples: int = 25,
    baseline: float | Tensor = 0.0,
    seed: int = 0,
    chunk: int | None = None,
) -> PixelMap:
    """Shapley values by sampling: what each patch adds to the score when patches are shown in random orders.

    L_i = mean over orders of y(x' with x up to p(i)) - y(x' with x ahead of p(i)),  p(i) the patch of pixel i

    Identity: the values of all patches sum to y(x) - y(x'), whatever the number of orders.

    Args:
        inputs: x.
        scorer: y, of changed images.
        patches: How many patches along each axis, at most one for each pixel.
        samples: How many random orders; each costs a forward pass for each patch.
        baseline: x', what covers a patch: as in `integrated_gradients`.
        seed: Of the orders.
        chunk: How many changed images are made at once: memory, never the result. None: what is fastest.

    Returns:
        At each pixel its patch's value, signed, in units of the score.

    Reference:
        Castro et al., Polynomial calculation of the Shapley value based on sampling, 2009. Captum's
        `ShapleyValueSampling`.
    """
    start = baseline_of(inputs, baseline)

    def attribute(image: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        how = {"feature_mask": mask, "n_samples": samples, "perturbations_per_eval": at_once(chunk, inputs)}
        found = (
            library("shapley_sampling").ShapleyValueSampling(scorer).attribute(image, start[rows], None, (rows,), **how)
        )
        values = found.new_zeros(int(mask.max()) + 1)
        values[mask[0, 0]] = found[0, 0]  # every channel and pixel of a patch says the same
        return values

    return by_patches(inputs, scorer, "shapley_sampling", patches, samples, seed, attribute)
