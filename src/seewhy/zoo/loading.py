"""`load`: any model by name, with its own preprocessing and labels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from seewhy.data.preprocess import Preprocess
from seewhy.labels import Labels, labels_of, read_labels
from seewhy.types import ModelError
from seewhy.zoo.efficientnet import SIZES, load_efficientnet
from seewhy.zoo.factory import load_factory
from seewhy.zoo.hf_models import load_hf
from seewhy.zoo.loaded import Loaded, Request, is_path, spelled
from seewhy.zoo.onnx_models import load_onnx
from seewhy.zoo.timm_models import load_timm
from seewhy.zoo.torchvision_models import load_torchvision

SOURCES: dict[str, Callable[[Request], Loaded]] = {
    "timm": load_timm,
    "torchvision": load_torchvision,
    "hf": load_hf,
    "onnx": load_onnx,
}


def load(
    name: str = "efficientnet_lite0",
    *,
    weights: str | Path | None = None,
    labels: Labels | str | Path | None = None,
    preprocess: Preprocess | None = None,
    trust_code: bool = False,
) -> Loaded:
    """Load a model by name, with the preprocessing and the class names that belong to it.

    Nothing that is read runs code unless you say so: weights are safetensors or plain tensors. The exception is
    "package.module:factory", where naming a module means importing it.

    Args:
        name: "efficientnet_lite0" (or 1, 2: `seewhy[demo]`), "timm:NAME", "torchvision:NAME", "hf:NAME_OR_FOLDER",
            "onnx:FILE", or "package.module:factory" for a function without arguments that returns a module or a
            `Loaded`.
        weights: None for the library's pretrained weights (which it may download), a .safetensors or .pt file of a
            state dict, or "random" for the bare architecture.
        labels: the class names in index order or by index, or a .txt or .json file of them; with `weights` given,
            their number decides the size of the head.
        preprocess: used instead of the library's own.
        trust_code: allow a weights file or a hub repository to run its code.

    Returns:
        The model in eval mode on the CPU, with notes on everything that was assumed.

    Raises:
        ModelError: an unknown name, a missing library, weights that cannot be had or do not fit.
    """
    if not isinstance(cast(object, name), str):
        raise ModelError(f"got {type(name).__name__} as the name of a model; a model in memory is explained as it is")
    scheme, colon, rest = name.partition(":")
    names = read_labels(Path(labels)) if isinstance(labels, str | Path) else tuple(labels_of(labels) or ())
    request = Request(scheme if colon else "", rest if colon else name, weights, names or None, trust_code)
    loaded = _source(request)(request)
    return loaded if preprocess is None else replace(loaded, preprocess=preprocess, preprocess_notes=())


def _source(request: Request) -> Callable[[Request], Loaded]:
    if request.scheme and request.name:
        return SOURCES.get(request.scheme, load_factory)
    if request.name not in SIZES and is_path(request.name):
        raise ModelError(
            f"got the path {request.name!r} as the name of a model; a file of weights is given beside the name of its "
            f"architecture, weights={request.name!r}; a folder of transformers is hf:FOLDER, a network onnx:FILE"
        )
    if request.name not in SIZES:
        raise ModelError(
            f"no model {request.full_name!r}; without a scheme there are {', '.join(SIZES)}; with one: "
            f"{spelled(request.name)}"
        )
    return load_efficientnet
