"""Models of torchvision: "torchvision:resnet50", "torchvision:deeplabv3_mobilenet_v3_large", ..."""

import pickle
from inspect import signature
from types import ModuleType
from typing import Any

from torch import nn

from seewhy.data.preprocess import Preprocess
from seewhy.types import ModelError
from seewhy.wording import closest
from seewhy.zoo.loaded import RANDOM_NOTE, Loaded, Request
from seewhy.zoo.optional import optional, unreachable
from seewhy.zoo.weights import load_file

GREATEST = "DEFAULT"  # torchvision's name for the best weights that a model has
_UNKNOWN = "torchvision has no weights of it that say so"


def load_torchvision(request: Request) -> Loaded:
    """A torchvision model with the transforms and categories of its default weights."""
    models = optional("torchvision.models", "torchvision", request.full_name)
    if request.name not in models.list_models():
        near = closest(request.name, models.list_models())
        raise ModelError(f"no torchvision model {request.name!r}; {near}; torchvision.models.list_models() lists them")
    weights = getattr(models.get_model_weights(request.name), GREATEST, None)
    module = _built(models, request, weights)
    notes = (RANDOM_NOTE,) if request.weights == "random" else load_file(module, request)
    if weights is None:
        label_notes = () if request.labels else (f"no labels: {_UNKNOWN}; give labels=",)
        unprepared = (f"no preprocessing: {_UNKNOWN}; give one, or tensors",)
        return Loaded(module.eval(), None, request.labels, request.full_name, notes, unprepared, label_notes)
    preprocess, reasons = preprocess_of(weights.transforms())
    assumed = () if request.weights is None or reasons else (f"preprocessing of {weights}",)
    names = tuple(weights.meta["categories"]) if "categories" in weights.meta else None
    own = names if request.head is None else None
    labels = request.checked_labels(own, len(names) if names and request.head is None else request.head)
    return Loaded(module.eval(), preprocess, labels, request.full_name, notes, (*assumed, *reasons))


def preprocess_of(transforms: Any) -> tuple[Preprocess | None, tuple[str, ...]]:
    """The transforms of torchvision's weights as an equal `Preprocess`, or None and the reason why there is none."""
    kind = type(transforms).__name__
    if kind == "ObjectDetection":  # detectors resize and normalize by themselves
        return Preprocess(None, mean=(0.0,) * 3, std=(1.0,) * 3), ()
    if kind not in ("ImageClassification", "SemanticSegmentation"):
        return None, (f"no preprocessing: torchvision's {kind} has no equal Preprocess; give one, or tensors",)
    short, crop = next(iter(transforms.resize_size or [None])), getattr(transforms, "crop_size", None)
    return Preprocess(
        size=(crop[0], crop[-1]) if crop else None,
        fit="crop",
        resize=short,
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    ), ()


def _built(models: ModuleType, request: Request, weights: Any) -> nn.Module:
    options: dict[str, Any] = {} if request.head is None else {"num_classes": request.head}
    if "weights_backbone" in signature(models.get_model_builder(request.name)).parameters:
        options["weights_backbone"] = None  # else a bare architecture would fetch the weights of its backbone
    if request.weights is not None:
        return models.get_model(request.name, weights=None, **options)
    try:
        # its own loading unpickles; a file that loads without code here is safe there, and is cached by then
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return models.get_model(request.name, weights=weights, progress=False)
    except (OSError, RuntimeError, AttributeError, pickle.UnpicklingError) as error:
        raise unreachable(request.full_name, error) from error
