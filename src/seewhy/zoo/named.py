"""Names of classes that a model in memory brings along, as transformers and timm keep them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn

from seewhy.labels import in_order

_MADE_UP = re.compile(r"(LABEL_)?\d+")


def class_names(model: nn.Module) -> tuple[str, ...] | None:
    """The names in the config of a model of transformers, those of one of Ultralytics, or of the weights of timm."""
    config: Any = getattr(model, "config", None)
    named: Any = getattr(config, "id2label", None) or getattr(model, "names", None)
    if isinstance(named, Mapping):
        return names_of(cast(Mapping[Any, Any], named))
    cfg: Any = getattr(model, "pretrained_cfg", None)
    own: Any = cast(Mapping[str, Any], cfg).get("label_names") if isinstance(cfg, Mapping) else None
    return tuple(map(str, cast(Sequence[Any], own))) if isinstance(own, list | tuple) and own else None


def names_of(id2label: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """The names in index order; None for the "LABEL_0" or "0" that libraries make up, or where an index has no name."""
    names = tuple(map(str, in_order(id2label) or ()))
    return None if all(map(_MADE_UP.fullmatch, names)) else names
