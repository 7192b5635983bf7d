"""Trained networks on real pictures: the identities of the papers hold there too, not only on toys."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
import shared_models
from seewhy.zoo import Loaded

PHOTOS = ("demo/both.png", "voc/004218.jpg", "demo/dog_cat.jpg")
PRECISIONS = [(torch.float32, 1e-4), (torch.float64, 1e-10)]

pytestmark = pytest.mark.usefixtures("shared")


@cache
def network(build: Callable[[], Loaded], dtype: torch.dtype = torch.float64) -> Loaded:
    loaded = build()
    return Loaded(loaded.module.to(dtype), loaded.preprocess, loaded.labels, loaded.name)


def inputs(loaded: Loaded, shared: Path, files: tuple[str, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    assert loaded.preprocess is not None
    return torch.stack([loaded.preprocess(seewhy.read(shared / file))[0] for file in files]).to(dtype)


def digits(shared: Path) -> tuple[str, ...]:
    return tuple(entry["file"] for entry in json.loads((shared / "mnist" / "labels.json").read_text())[:4])


def seen(module: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer puts out, with its graph, and the logits: by a plain hook, without seewhy."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()

    handle = module.get_submodule(layer).register_forward_hook(keep)
    try:
        logits = module(images)
    finally:
        handle.remove()
    return kept[0], logits


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-10) -> None:
    """Equal, relative to the largest value."""
    ours, theirs = ours.detach(), theirs.detach()
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("closed_form", [True, False], ids=["closed form", "autograd"])
def test_mobilenets_grad_cam_is_cam_after_its_relu(
    shared: Path, dtype: torch.dtype, tolerance: float, closed_form: bool
) -> None:
    loaded = network(shared_models.mobilenet_v2, dtype)
    images = inputs(loaded, shared, PHOTOS, dtype)
    features, logits = seen(loaded.module, "features", images)
    weight = loaded.module.get_submodule("classifier.1").get_parameter("weight")
    cam = torch.einsum("bc,bchw->bhw", weight[logits.argmax(1)], features)
    e = seewhy.explain(loaded, images, differentiable=not closed_form)
    assert cam.min() < 0
    close(49 * e.raw["features"], cam.relu(), tolerance)
    close(seewhy.explain(loaded, images, method="cam").raw["features"], cam, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_mobilenets_hires_cam_sums_to_the_logit_without_its_bias(
    shared: Path, dtype: torch.dtype, tolerance: float
) -> None:
    loaded = network(shared_models.mobilenet_v2, dtype)
    images = inputs(loaded, shared, PHOTOS, dtype)
    with torch.no_grad():
        logits, predicted = loaded.module(images).max(1)
    bias = loaded.module.get_submodule("classifier.1").get_parameter("bias")[predicted]
    e = seewhy.explain(loaded, images, method="hires_cam")
    close(e.raw["features"].sum((1, 2)) + bias, logits, tolerance)
    assert e.class_indices == tuple(predicted.tolist())


@pytest.mark.parametrize(
    ("build", "layer"), [(shared_models.squeezenet, "classifier.2"), (shared_models.tiny_darknet, "conv16")]
)
def test_where_class_maps_are_averaged_the_class_map_is_cam_and_its_mean_the_logit(
    shared: Path, build: Callable[[], Loaded], layer: str
) -> None:
    loaded = network(build)
    images = inputs(loaded, shared, PHOTOS)
    classes, logits = seen(loaded.module, layer, images)
    predicted = logits.argmax(1)
    own = classes[torch.arange(len(images)), predicted]
    cam = seewhy.explain(loaded, images, method="cam").raw[layer]
    close(cam, own)
    close(cam.mean((1, 2)), logits.amax(1))
    for method in ("grad_cam", "xgrad_cam", "hires_cam", "layer_cam", "eigen_grad_cam"):
        raw = seewhy.explain(loaded, images, method=method).raw[layer]
        close(own[0].numel() * raw.relu(), own.relu())


def test_the_small_transformer_is_explained_at_the_patches_before_its_last_block(shared: Path) -> None:
    loaded = network(shared_models.vit_tiny_mnist)
    images = inputs(loaded, shared, digits(shared))
    tokens, logits = seen(loaded.module, "blocks.2", images)
    (gradients,) = torch.autograd.grad(logits.amax(1).sum(), tokens)
    alpha = gradients[:, 1:].mean(1)  # the first token is the class token
    expected = torch.einsum("bc,bnc->bn", alpha, tokens[:, 1:]).relu().unflatten(1, (7, 7))
    e = seewhy.explain(loaded, images)
    assert e.layers == ("blocks.2",)
    close(e.raw["blocks.2"], expected)
    assert e.map.flatten(1).amax(1).min() > 0


@pytest.mark.parametrize(
    ("build", "above"),
    [(shared_models.lenet5, ("convnet.c5", "fc.f6", "fc.f7")), (shared_models.tiny_vgg, ("output",))],
)
def test_behind_a_flatten_hires_cam_sums_to_the_logit_without_what_the_biases_add(
    shared: Path, build: Callable[[], Loaded], above: tuple[str, ...]
) -> None:
    loaded = network(build)
    lenet = build is shared_models.lenet5
    pictures = tuple(f"tiny_vgg/{path.name}" for path in sorted((shared / "tiny_vgg").glob("*.jpeg"))[:4])
    images = inputs(loaded, shared, digits(shared) if lenet else pictures)
    e = seewhy.explain(loaded, images, method="hires_cam")
    total = next(iter(e.raw.values())).sum((1, 2))
    assert e.map.flatten(1).amax(1).min() > 0
    biases = [loaded.module.get_submodule(name).get_parameter("bias") for name in above]
    for index, image in enumerate(images):
        logit = loaded.module(image[None]).amax()
        added = sum((b * g).sum() for b, g in zip(biases, torch.autograd.grad(logit, biases), strict=True))
        close(total[index] + added, logit)


@pytest.mark.parametrize("build", [shared_models.mobilenet_v2, shared_models.tiny_darknet, shared_models.squeezenet])
def test_a_batch_of_photos_is_explained_as_each_alone(shared: Path, build: Callable[[], Loaded]) -> None:
    loaded = network(build)
    images = inputs(loaded, shared, PHOTOS)
    images = F.interpolate(images, 128, mode="bilinear", align_corners=False)
    targets = loaded.module(images).argmax(1).tolist()
    assert len(set(targets)) > 1
    dear = {"masking", "perturbation", "smooth", "attention"}
    methods = [n for n, m in seewhy.METHODS.items() if m.family not in dear and not (m.batchwise or m.ensemble)]
    # too many passes; and on SqueezeNet nothing positive comes back through all rectifiers: zero, and warned
    methods = [name for name in methods if name not in ("integrated_gradients", "smooth_grad", "deconvnet")]
    together = seewhy.compare(loaded, images, [targets], methods)
    for index, target in enumerate(targets):
        alone = seewhy.compare(loaded, images[index : index + 1], [target], methods)
        for ours, single in zip(together, alone, strict=True):
            close(ours.map[index], single.map[0], 1e-9)
