"""What is compared with whom, and why they disagree where they do.

Where a reason can be written down as a formula, it is: the proof makes their map by what the reason says they do.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from peers import Made, Map, Scene, Way, captum, either_way, grad_cam_library, ours, signed, torch_cam, unit


@dataclass(frozen=True)
class Because:
    """Why two maps differ: whose doing it is, in words, and, where it can be, their map made by these words."""

    verdict: Literal["variant", "theirs"]
    reason: str
    proof: Made | None = None


@dataclass(frozen=True)
class Case:
    """A method of ours beside one of another library, on some scenes; they agree unless there is a reason."""

    ours: Way
    theirs: Way
    scenes: tuple[str, ...]
    because: Because | None = None
    scale: Callable[[Map], Map] = unit


RANDOM = ("tiny", "ResNet-18")
CNNS = (*RANDOM, "MobileNetV2", "SqueezeNet")
ALL = (*CNNS, "EfficientNet-Lite0", "ViT")


def component(name: str, weighed: bool) -> Way:
    """pytorch-grad-cam's projection, before it is clipped."""

    def made(scene: Scene) -> Map:
        from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

        cells = scene.activations() * (scene.gradients() if weighed else 1)
        return torch.from_numpy(get_2d_projection(cells.numpy()))

    return Way("pytorch-grad-cam", f"{name}, before it is clipped", made)


def kernel_component(scene: Scene) -> Map:
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_kernel

    return torch.from_numpy(get_2d_projection_kernel(scene.activations().numpy()))


def guided(scene: Scene) -> Map:
    """pytorch-grad-cam's guided backpropagation, which takes one image at a time."""
    from pytorch_grad_cam import GuidedBackpropReLUModel

    found = []
    for image, index in zip(scene.images.split(1), scene.classes, strict=True):
        model, _ = scene.alone()
        found.append(torch.from_numpy(GuidedBackpropReLUModel(model)(image.clone(), index)).movedim(-1, 0))
    return torch.stack(found).abs().amax(1)


def legrad_library(scene: Scene) -> Map:
    """torch-cam's LeGrad over all blocks of torchvision's transformer."""
    from torchcam.methods import LeGrad

    model, _ = scene.alone()
    with LeGrad(model, list(model.encoder.layers)) as cam:
        return cam(list(scene.classes), model(scene.images), normalized=False)[0]


# What a reason says they do, written from the reason


def undivided(scene: Scene) -> Map:
    g = scene.gradients()
    return torch.einsum("bc,bchw->bhw", (g**2 * g.relu()).sum((2, 3)), scene.activations())


def product_summed(scene: Scene) -> Map:
    g, a = scene.gradients(), scene.activations()
    alpha = g**2 / (2 * g**2 + (a * g**3).sum((2, 3), keepdim=True) + 1e-8)
    return torch.einsum("bc,bchw->bhw", (alpha * g.relu()).sum((2, 3)), a)


def last_alone(scene: Scene) -> Map:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # as every way starts
        copies = [scene.images + 0.3 * torch.randn(scene.images.shape) for _ in range(8)]
    noisy = [replace(scene, images=each) for each in copies]
    samples = torch.stack([each.gradients() for each in noisy])
    square, cube, a = (samples**2).mean(0), (samples**3).mean(0), scene.activations()
    alpha = square / (2 * square + (a * cube).sum((2, 3), keepdim=True) + 1e-8)
    return torch.einsum("bc,bchw->bhw", (alpha * samples[-1].relu()).sum((2, 3)), noisy[-1].activations())


def with_epsilon(scene: Scene) -> Map:
    g, a = scene.gradients(), scene.activations()
    alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + 1e-6)
    return torch.einsum("bc,bchw->bhw", (alpha * g.relu()).sum((2, 3)), a)


def score_cam_of(enlarged: Callable[[Tensor, list[int]], Tensor]) -> Made:
    """Score-CAM with masks that are made otherwise."""

    def made(scene: Scene) -> Map:
        a, size, weights = scene.activations(), list(scene.images.shape[2:]), []
        for image, cells, index in zip(scene.images, a, scene.classes, strict=True):
            with torch.no_grad():
                masked = image * enlarged(cells[:, None], size)
                weights.append(torch.cat([scene.model(part) for part in masked.split(64)])[:, index].softmax(0))
        return torch.einsum("bc,bchw->bhw", torch.stack(weights), a)

    return made


def stretched(x: Tensor) -> Tensor:
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low + 1e-8)


def with_corners(cells: Tensor, size: list[int]) -> Tensor:
    return stretched(F.interpolate(cells, size, mode="bilinear", align_corners=True))


def stretched_before(cells: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(stretched(cells), size, mode="bilinear")


def filled_low(scene: Scene) -> Map:
    """pytorch-grad-cam's weights where activations are signed: each row below the last, in one batch of copies."""
    a, weights = scene.activations(), []
    for row, index in enumerate(scene.classes):
        copies = a[row : row + 1].repeat(a.shape[1], 1, 1, 1)
        for channel in range(a.shape[1]):
            copies[channel, channel] = 0 if copies.min() == 0 else copies.min() - 1e7
        with torch.no_grad():
            model = scene.model
            tail = model.head(model.bend(model.hidden(copies.flatten(1))))
            score = model(scene.images[row : row + 1])[0, index]
        weights.append((score - tail[:, index]) / score)
    return torch.einsum("bc,bchw->bhw", torch.stack(weights), a)


def layers_of(method: str, scene: Scene, change: Callable[[Map], Map]) -> Tensor:
    """Our maps of each layer by itself, changed and then enlarged."""
    size = tuple(scene.images.shape[2:])
    maps = [change(ours(method)(replace(scene, layers=(layer,)))) for layer in scene.layers]
    return torch.stack([F.interpolate(map[:, None], size, mode="bilinear")[:, 0] for map in maps])


def mean_of_stretched(scene: Scene) -> Map:
    return layers_of("grad_cam", scene, unit).mean(0)


def all_through_tanh(scene: Scene) -> Map:
    return layers_of("layer_cam", scene, lambda map: torch.tanh(2 * unit(map))).amax(0)


def of_nearest_cells(scene: Scene) -> Map:
    coarse = ours("grad_cam")(scene)[:, None]
    return ours("guided_backprop")(scene) * F.interpolate(coarse, scene.images.shape[2:])[:, 0]


def product_of(of_layer: Made, again: bool) -> Made:
    """RefineCAM as it is there: maps stretched from minimum to maximum, and (`again`) so after being enlarged."""

    def made(scene: Scene) -> Map:
        size, result = tuple(scene.images.shape[2:]), torch.ones(())
        for layer in scene.layers:
            cells = unit(of_layer(replace(scene, layers=(layer,))))
            large = F.interpolate(cells[:, None], size, mode="bilinear")[:, 0]
            result = result * (unit(large) if again else large)
        return result

    return made


def cases() -> list[Case]:
    """All of them."""
    return [*_gradients(), *_activations(), *_layers(), *_masks(), *_pixels()]


def _gradients() -> list[Case]:
    mean = "Contrast(gamma=0.6, weighting='mean')"
    epsilon = "an epsilon of 1e-6 beside the squared gradients in the denominator of alpha, as large as they are"
    lost = "the division by alpha's denominator acts on a copy, `alpha[mask].div_`: w = sum g^2 ReLU(g)"
    product = "alpha's denominator has the sum of A g^3 over the places; equation 19 has the sum of A, times g^3 there"
    last = f"alpha, a mean over noisy copies, meets gradient and activations of the last copy alone; and {product}"
    no_relu = "no ReLU by default; `relu_attributions=True` has it"
    smooth = ("tiny", "tiny (smooth)")
    real = ("ResNet-18", "MobileNetV2", "SqueezeNet")
    return [
        Case(ours("grad_cam"), grad_cam_library("GradCAM"), ALL),
        Case(ours("grad_cam"), torch_cam("GradCAM"), ALL),
        Case(ours("grad_cam", rectify=False), captum("LayerGradCam", layer=True), ALL[:-1], scale=signed),
        Case(
            ours("grad_cam"),
            captum("LayerGradCam", layer=True),
            ("tiny",),
            Because("variant", no_relu, ours("grad_cam", rectify=False)),
            signed,
        ),
        Case(ours("grad_cam_pp"), grad_cam_library("GradCAMPlusPlus"), smooth),
        Case(
            ours("grad_cam_pp"),
            grad_cam_library("GradCAMPlusPlus"),
            real,
            Because("theirs", epsilon, with_epsilon),
        ),
        Case(ours("grad_cam_pp"), torch_cam("GradCAMpp"), CNNS, Because("theirs", lost, undivided)),
        Case(
            ours("smooth_grad_cam_pp", samples=1, noise=0.0),
            torch_cam("SmoothGradCAMpp", num_samples=1, std=1e-9),
            ("tiny",),
            Because("theirs", product, product_summed),
        ),
        Case(
            ours("smooth_grad_cam_pp", samples=8, noise=0.3, absolute=True),
            torch_cam("SmoothGradCAMpp", num_samples=8),
            RANDOM,
            Because("theirs", last, last_alone),
        ),
        Case(ours("xgrad_cam"), grad_cam_library("XGradCAM"), CNNS),
        Case(ours("xgrad_cam"), torch_cam("XGradCAM"), CNNS),
        Case(ours("hires_cam"), grad_cam_library("HiResCAM"), ALL),
        Case(ours("layer_cam"), grad_cam_library("LayerCAM"), ALL),
        Case(ours("layer_cam"), torch_cam("LayerCAM"), ALL),
        Case(ours("grad_cam_elementwise"), grad_cam_library("GradCAMElementWise"), ALL),
        Case(ours("shapley_cam"), grad_cam_library("ShapleyCAM"), (*smooth, "ResNet-18")),
        Case(ours("legrad"), Way("torch-cam", "LeGrad", legrad_library), ("ViT",)),
        Case(ours("grad_cam", of="Contrast()"), grad_cam_library("FinerCAM"), CNNS),
        Case(ours("grad_cam", of=mean), torch_cam("FinerCAM"), CNNS),
        Case(ours("layer_cam", of=mean), torch_cam("FinerCAM", base_method="LayerCAM"), CNNS),
    ]


def _activations() -> list[Case]:
    chance = (
        "each channel's mean is subtracted first, which the paper does not do; and negative values are cut off before "
        "the component, whose sign is free, got one"
    )
    share = "channels are weighed by the share of places that they mark; the authors' code sums their means there"
    some = (*RANDOM, "MobileNetV2")
    marked = ours("fem", variant="pytorch_grad_cam")
    kernel = Way("pytorch-grad-cam", "KPCA_CAM, before it is clipped", kernel_component)
    return [
        Case(ours("cam"), torch_cam("CAM", fc_layer="fc"), ("ResNet-18",), scale=signed),
        Case(ours("cam"), torch_cam("CAM", fc_layer="classifier.1"), ("MobileNetV2",), scale=signed),
        Case(ours("eigen_cam", center=True), component("EigenCAM", False), some, scale=either_way),
        Case(ours("eigen_cam"), grad_cam_library("EigenCAM"), some, Because("theirs", chance)),
        Case(ours("eigen_grad_cam", center=True), component("EigenGradCAM", True), RANDOM, scale=either_way),
        Case(ours("kpca_cam"), kernel, CNNS, scale=either_way),
        Case(marked, grad_cam_library("FEM"), CNNS),
        Case(ours("fem"), grad_cam_library("FEM"), CNNS, Because("variant", share, marked)),
    ]


def _layers() -> list[Case]:
    each = "every channel is stretched to 0..1 by itself; the authors' code stretches a layer"
    minimum = "maps are stretched from their minimum; ours are divided by their maximum, so that zero stays zero"
    tanh = "tanh on every layer; the paper has it for shallow ones, and ours leaves the deepest as it is"
    twice = "maps are stretched from minimum to maximum, again when they are enlarged; Grad-CAM++ has its epsilon"
    lost = "Grad-CAM++ without its division; maps are stretched from their minimum"
    by_channel, whole = ours("full_grad", variant="per_channel"), grad_cam_library("FullGrad", enlarged=True)
    several = {"several": True}
    return [
        Case(by_channel, whole, (*RANDOM, "MobileNetV2")),
        Case(ours("full_grad"), whole, RANDOM, Because("variant", each, by_channel)),
        Case(
            ours("grad_cam", **several),
            grad_cam_library("GradCAM", **several),
            CNNS[1:],
            Because("variant", minimum, mean_of_stretched),
        ),
        Case(
            ours("layer_cam", **several),
            torch_cam("LayerCAM", **several),
            CNNS,
            Because("variant", tanh, all_through_tanh),
        ),
        Case(
            ours("refine_cam", **several),
            grad_cam_library("RefineCAM", **several),
            ("tiny", "SqueezeNet"),
            Because("theirs", twice, product_of(with_epsilon, True)),
        ),
        Case(
            ours("refine_cam", **several),
            torch_cam("RefineCAM", **several),
            ("tiny",),
            Because("theirs", lost, product_of(undivided, False)),
        ),
    ]


def _masks() -> list[Case]:
    order = "minimum and maximum are taken before masks are enlarged; the paper and ours take those of enlarged masks"
    corners = "masks are enlarged with aligned corners (`UpsamplingBilinear2d`), so that cells lie elsewhere"
    luck = "every channel has noise of its own; with the same for all, ours, it is not what channels are compared by"
    sums = "the factors of the mask add up, .1, .3, .6 to 5.5; the paper has .1, .2, .3 to 1"
    turned = "weights are divided by the score, not by its size: where it is negative the map is turned round"
    deep = (
        "where activations may be negative a channel is not set to 0 but to 10^7 below the smallest value, the next to "
        "10^7 below that"
    )
    tiny, added = ("tiny",), ours("is_cam", cumulative=True)
    against = lambda scene: -ours("ablation_cam", rectify=False)(scene)  # noqa: E731
    return [
        Case(ours("score_cam"), torch_cam("ScoreCAM"), tiny),
        Case(
            ours("score_cam"),
            torch_cam("ScoreCAM"),
            ("tiny (even grid)",),
            Because("variant", order, score_cam_of(stretched_before)),
        ),
        Case(
            ours("score_cam"),
            grad_cam_library("ScoreCAM"),
            ("tiny", "tiny (even grid)"),
            Because("theirs", corners, score_cam_of(with_corners)),
        ),
        Case(ours("ss_cam", sigma=0.0, samples=2), torch_cam("SSCAM", std=1e-9, num_samples=2), tiny),
        Case(ours("ss_cam", samples=35), torch_cam("SSCAM"), tiny, Because("variant", luck)),
        Case(added, torch_cam("ISCAM"), tiny),
        Case(ours("is_cam"), torch_cam("ISCAM"), tiny, Because("theirs", sums, added)),
        Case(ours("ablation_cam"), grad_cam_library("AblationCAM"), RANDOM),
        Case(
            ours("ablation_cam"),
            grad_cam_library("AblationCAM"),
            ("tiny (least class)",),
            Because("theirs", turned, against),
        ),
        Case(
            ours("ablation_cam"),
            grad_cam_library("AblationCAM"),
            ("tiny (leaky)",),
            Because("theirs", deep, filled_low),
        ),
    ]


def _pixels() -> list[Case]:
    hooked = "only modules that are `nn.ReLU` get the rule: this is the plain gradient, and nothing says so"
    midpoint = "Gauss-Legendre by default; ours is the midpoint rule"
    nearest = "the coarse map is enlarged to the nearest cell by default; the paper's is bilinear"
    plain = Because("theirs", hooked, ours("saliency"))
    legendre = ours("integrated_gradients", rule="gauss_legendre")
    unruled = ("tiny (functional)", "tiny (ReLU6)", "MobileNetV2")
    ruled = (*RANDOM, "SqueezeNet")
    largest, total = "largest color", "sum of colors"
    replaced = Way("pytorch-grad-cam", "GuidedBackpropReLUModel, largest color", guided)
    patches = {"sliding_window_shapes": (3, 9, 9), "strides": (3, 3, 3), "baselines": 0}
    return [
        Case(ours("saliency"), captum("Saliency", largest), CNNS),
        Case(ours("input_x_gradient"), captum("InputXGradient", total), CNNS, scale=signed),
        Case(legendre, captum("IntegratedGradients", total), RANDOM, scale=signed),
        Case(
            ours("integrated_gradients"),
            captum("IntegratedGradients", total),
            ("tiny",),
            Because("variant", midpoint, legendre),
            signed,
        ),
        Case(ours("guided_backprop"), captum("GuidedBackprop", largest), ruled),
        Case(ours("guided_backprop"), captum("GuidedBackprop", largest), unruled, plain),
        Case(ours("guided_backprop"), replaced, ruled),
        Case(ours("guided_backprop"), replaced, unruled, plain),
        Case(ours("deconvnet"), captum("Deconvolution", largest), RANDOM),
        Case(ours("deconvnet"), captum("Deconvolution", largest), unruled, plain),
        Case(
            ours("guided_grad_cam"),
            captum("GuidedGradCam", largest, layer=True, interpolate_mode="bilinear"),
            ruled,
        ),
        Case(
            ours("guided_grad_cam"),
            captum("GuidedGradCam", largest, layer=True),
            ruled,
            Because("variant", nearest, of_nearest_cells),
        ),
        Case(ours("occlusion", patch=9, stride=3), captum("Occlusion", **patches), ("tiny",), scale=signed),
    ]
