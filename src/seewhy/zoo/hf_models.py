"""Models of transformers, from the hub or a local folder: "hf:google/vit-base-patch16-224", "hf:./mine"."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from seewhy.data.image import read
from seewhy.data.preprocess import Preprocess
from seewhy.types import ModelError
from seewhy.wording import some
from seewhy.zoo.loaded import RANDOM_NOTE, Loaded, Request, is_path
from seewhy.zoo.named import names_of
from seewhy.zoo.optional import broken_torchvision, optional, unreachable
from seewhy.zoo.weights import load_file

PROBE = (97, 131)  # an odd size, so that a crop's rounding shows
LEVELS = 2.0  # grey levels that a processor may differ: torchvision's resize of bytes and Pillow's differ by one
FILTERS: dict[int, Any] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}  # Pillow's numbers


def load_hf(request: Request) -> Loaded:
    """A model of transformers with its processor turned into a `Preprocess`, and the names in its config.

    It is of the class that its config says it was saved from: a classifier, a detector, CLIP, or one without a head.
    Weights are read from safetensors only, and code in the repository runs only with `trust_code=True`.

    Raises:
        ModelError: no such folder, weights that cannot be had, or that lack some of the model's tensors, which would
            be random.
    """
    _check_folder(request)
    library = optional("transformers", "hf", request.full_name)
    module, notes = _built(library, request)
    processor = _processor(library, request)
    preprocess, preprocess_notes = (
        preprocess_of(processor) if processor is not None else (None, (_unknown("it has no preprocessor_config.json"),))
    )
    own = names_of(module.config.id2label)
    labels = request.checked_labels(own, module.config.num_labels if own or request.head else None)
    label_notes = () if labels else ("no labels: its config names none; give labels=",)
    return Loaded(module.eval(), preprocess, labels, request.full_name, notes, preprocess_notes, label_notes)


def preprocess_of(processor: Any) -> tuple[Preprocess | None, tuple[str, ...]]:
    """A processor as a `Preprocess`, or None and the reason why there is none.

    Processors are code: some crop, flip or shift in ways of their own. So the two are compared on a probe picture, and
    a `Preprocess` that gives other numbers is not handed out.
    """
    fitting = _fitting(processor)
    if fitting is None or not getattr(processor, "do_resize", False):
        return None, (_unknown(f"{type(processor).__name__} resizes in a way of its own"),)
    normalized = getattr(processor, "do_normalize", False)
    flipped = getattr(processor, "do_flip_channel_order", False)
    preprocess = Preprocess(
        **fitting,
        interpolation=FILTERS[int(processor.resample)],
        mean=_triple(processor.image_mean) if normalized else (0.0,) * 3,
        std=_triple(processor.image_std) if normalized else (1.0,) * 3,
        scale=1 / processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0,
        channels="bgr" if flipped else "rgb",
        center="down",
    )
    if _differs(processor, preprocess):
        return None, (_unknown(f"{type(processor).__name__} does more than its settings say"),)
    return preprocess, ()


def _check_folder(request: Request) -> None:
    folder = Path(request.name)
    if is_path(request.name) and not folder.is_dir():
        raise ModelError(
            f"{request.full_name}: there is no folder {request.name!r}; give one that save_pretrained wrote"
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(
            f"{request.full_name}: the folder holds no config.json, which says what model it is; give one that "
            "save_pretrained wrote"
        )


def _built(library: ModuleType, request: Request) -> tuple[Any, tuple[str, ...]]:
    code = request.trust_code
    head = {} if request.head is None else {"num_labels": request.head}
    try:
        config = library.AutoConfig.from_pretrained(request.name, trust_remote_code=code, **head)
        kind = _kind(library, config)
        if request.weights is None:
            options = {"use_safetensors": True, "trust_remote_code": code, "output_loading_info": True}
            return _complete(request, *kind.from_pretrained(request.name, **options)), ()
        auto = kind.__name__.startswith("Auto")
        module = kind.from_config(config, trust_remote_code=code) if auto else kind(config)
    except ModelError:
        raise
    except (ImportError, RuntimeError) as error:
        broken = broken_torchvision()
        if broken is None and isinstance(error, RuntimeError):
            raise
        raise ModelError(broken) if broken else unreachable(request.full_name, error) from error
    except (OSError, ValueError) as error:  # ValueError: a repository with code of its own
        raise unreachable(request.full_name, error) from error
    return module, (RANDOM_NOTE,) if request.weights == "random" else load_file(module, request)


def _kind(library: ModuleType, config: Any) -> Any:
    """The class that the weights were saved from, or the way to one of the repository's own code.

    Where the config names none, an image classifier, whose weights are complete or refused like those of any other.
    """
    names: Sequence[str] = config.architectures or ()
    known = next((getattr(library, name) for name in names if hasattr(library, name)), None)
    own: dict[str, str] = getattr(config, "auto_map", None) or {}
    auto = next(
        (key for key, path in own.items() if path.rpartition(".")[2] in names), "AutoModelForImageClassification"
    )
    return known or getattr(library, auto)


def _complete(request: Request, module: Any, found: Mapping[str, Any]) -> Any:
    """The model itself, none of whose weights were made up."""
    missing = sorted(map(str, found["missing_keys"]))
    if missing:
        raise ModelError(
            f"{request.full_name} lacks {len(missing)} of the {len(module.state_dict())} tensors of a "
            f"{type(module).__name__} ({some(missing)}), which would be random; load the model that it was trained as, "
            "or build and load it yourself and pass the module"
        )
    return module


def _processor(library: ModuleType, request: Request) -> Any | None:
    pillow = {"use_fast": False} if library.__version__.startswith("4.") else {"backend": "pil"}
    try:
        return library.AutoImageProcessor.from_pretrained(request.name, trust_remote_code=request.trust_code, **pillow)
    except (OSError, ValueError):  # no preprocessor_config.json: said in the notes
        return None


def _fitting(processor: Any) -> dict[str, Any] | None:
    """`size`, `fit` and `resize` of a processor; None if it keeps the photo's shape or pads."""
    size: dict[str, int] = dict(getattr(processor, "size", None) or {})
    percent = getattr(processor, "crop_pct", None)
    crop: dict[str, int] = dict(processor.crop_size or {}) if getattr(processor, "do_center_crop", False) else {}
    if set(size) == {"height", "width"} and not crop:
        return {"size": (size["height"], size["width"]), "fit": "squash"}
    if set(size) != {"shortest_edge"}:
        return None
    short = size["shortest_edge"]
    if percent is not None and short >= 384:  # ConvNeXt's rule: large inputs are stretched, not cropped
        return {"size": (short, short), "fit": "squash"}
    if percent is not None:
        return {"size": (short, short), "fit": "crop", "resize": int(short / percent)}
    if not crop or max(crop.values()) > short:  # a crop that pads rounds in a way of its own
        return None
    return {"size": (crop["height"], crop["width"]), "fit": "crop", "resize": short}


def _triple(values: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(values) if isinstance(values, Sequence) else (values,) * 3


def _differs(processor: Any, preprocess: Preprocess) -> bool:
    pixels = np.random.default_rng(0).integers(0, 256, (*PROBE, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    theirs = torch.as_tensor(np.asarray(processor(images=picture, return_tensors="pt")["pixel_values"][0]))
    ours, _ = preprocess(read(picture))
    if theirs.shape != ours.shape:
        return True
    return (theirs - ours).abs().max().item() > LEVELS / preprocess.scale / min(preprocess.std)


def _unknown(reason: str) -> str:
    return f"no preprocessing: {reason}; give one, or tensors"
