"""Models of timm: "timm:resnet50", "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k", ..."""

from collections.abc import Mapping
from math import floor
from types import ModuleType
from typing import Any

from seewhy.data.preprocess import Preprocess
from seewhy.types import ModelError
from seewhy.wording import closest
from seewhy.zoo.loaded import RANDOM_NOTE, Loaded, Request
from seewhy.zoo.optional import optional, unreachable
from seewhy.zoo.weights import load_file

FITS: dict[str, Any] = {"center": "crop", "squash": "squash", "border": "letterbox"}
HUBS = ("hf-hub:", "hf_hub:", "local-dir:")  # timm's own schemes for models outside its registry


def load_timm(request: Request) -> Loaded:
    """A timm model, the preprocessing of its evaluation transform, and ImageNet's names if it has that many classes."""
    timm = optional("timm", "timm", request.full_name)
    module = _built(timm, request)
    notes = (RANDOM_NOTE,) if request.weights == "random" else load_file(module, request)
    preprocess, preprocess_notes = preprocess_of(timm.data.resolve_model_data_config(module))
    own, label_notes = _labels(timm, module)
    labels = request.checked_labels(own, module.num_classes)
    label_notes = label_notes if request.labels is None else ()
    return Loaded(module.eval(), preprocess, labels, request.full_name, notes, preprocess_notes, label_notes)


def preprocess_of(config: Mapping[str, Any]) -> tuple[Preprocess | None, tuple[str, ...]]:
    """timm's data config as a `Preprocess` that equals `create_transform(**config)`, or None and the reason why not."""
    channels, *size = config["input_size"]
    mode, percent, mean = config["crop_mode"], config["crop_pct"], tuple(config["mean"])
    if channels not in (1, 3) or (mode != "center" and percent != 1):
        asked = f"crop_mode {mode!r} with crop_pct {percent} of {channels} channels"
        return None, (f"no preprocessing: timm's {asked} has no equal Preprocess; give one, or tensors",)
    return Preprocess(
        size=(size[0], size[1]),
        fit=FITS[mode],
        resize=(floor(size[0] / percent), floor(size[1] / percent)) if mode == "center" else None,
        interpolation="bicubic" if config["interpolation"] == "random" else config["interpolation"],
        mean=mean,
        std=tuple(config["std"]),
        channels="grey" if channels == 1 else "rgb",
        fill=(round(255 * mean[0]), round(255 * mean[len(mean) // 2]), round(255 * mean[-1]))
        if mode == "border"
        else (0, 0, 0),
    ), ()


def _built(timm: ModuleType, request: Request) -> Any:
    if not _known(timm, request.name):
        known = [*timm.list_models(), *timm.list_pretrained()]
        raise ModelError(
            f"no timm model {request.name!r}; {closest(request.name, known)}; timm.list_models() lists them"
        )
    options = {} if request.head is None else {"num_classes": request.head}
    try:
        return timm.create_model(request.name, pretrained=request.weights is None, **options)
    except (OSError, RuntimeError) as error:
        raise unreachable(request.full_name, error) from error


def _known(timm: ModuleType, name: str) -> bool:
    architecture, _, tag = name.partition(".")
    return name.startswith(HUBS) or (timm.is_model(architecture) and (not tag or name in timm.list_pretrained()))


def _labels(timm: ModuleType, module: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The names that came with the weights, else those of the ImageNet subset with this number of classes."""
    own = module.pretrained_cfg.get("label_names")
    if own and len(own) == module.num_classes:
        return tuple(own), ()
    subset = timm.data.infer_imagenet_subset(module)
    if subset is None:
        return None, (f"no labels: timm names none for {module.num_classes} classes; give labels=",)
    names = timm.data.ImageNetInfo(subset).label_descriptions()
    return tuple(names), (f"labels of {subset}, taken by the number of classes",)
