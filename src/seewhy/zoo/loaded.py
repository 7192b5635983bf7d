"""What loading gives, and what it is asked for."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from seewhy.data.preprocess import Preprocess
from seewhy.types import ModelError
from seewhy.wording import by

_FILES = (".bin", ".onnx", ".pt", ".pth", ".safetensors", ".h5", ".keras")

RANDOM_NOTE = "random weights: nothing it shows is a finding"

SCHEMES = {"timm": "NAME", "torchvision": "NAME", "hf": "NAME_OR_FOLDER", "onnx": "FILE"}
"""What a model's name may begin with, before a colon, and what stands after it."""


def spelled(name: str = "") -> str:
    """How models are named that are not the demo's; with the name in the place of the first."""
    named = {scheme: (name or what) if what == "NAME" else what for scheme, what in SCHEMES.items()}
    return f"{', '.join(f'{scheme}:{what}' for scheme, what in named.items())} or package.module:factory"


def is_path(name: str) -> bool:
    """Whether a name is one of a file or folder, and no model's, that of a hub included."""
    looks = name.startswith(("/", ".", "~", "\\")) or Path(name).suffix in _FILES
    return looks or (name != "" and Path(name).exists())


@dataclass(frozen=True, repr=False)
class Loaded:
    """A model with what belongs to it.

    Args:
        module: the network, in eval mode, on the CPU.
        preprocess: how a photo becomes its input; None if unknown: then give tensors.
        labels: the classes' names in index order, each perhaps with comma separated synonyms; None if unknown.
        name: what it was loaded by.
        notes: everything else that was assumed or done on the way.
        preprocess_notes: what was assumed of `preprocess`, or why there is none; another one makes them void.
        label_notes: what was assumed of `labels`, or why there are none; others make them void.
    """

    module: nn.Module
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None
    name: str
    notes: tuple[str, ...] = ()
    preprocess_notes: tuple[str, ...] = ()
    label_notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else f"{len(self.labels)} labels"
        at = by(self.preprocess.size) if self.preprocess and self.preprocess.size else "a size of their own"
        size = "no preprocessing" if self.preprocess is None else f"photos at {at}"
        return f"<Loaded {self.name!r}: {type(self.module).__name__}, {labels}, {size}>"


@dataclass(frozen=True)
class Request:
    """What the user asked for: the library's own name of the model, and what shall replace the library's choice."""

    scheme: str
    name: str
    weights: Path | str | None = None
    labels: tuple[str, ...] | None = None
    trust_code: bool = False

    @property
    def full_name(self) -> str:
        """The name with its scheme, as the user wrote it."""
        return f"{self.scheme}:{self.name}" if self.scheme else self.name

    @property
    def file(self) -> Path | None:
        """The weights file, if weights are to come from one."""
        return None if self.weights is None or self.weights == "random" else Path(self.weights)

    @property
    def head(self) -> int | None:
        """The number of classes to build the head for: the user's labels decide it, unless pretrained weights do."""
        return None if self.labels is None or self.weights is None else len(self.labels)

    def checked_labels(self, own: tuple[str, ...] | None, classes: int | None) -> tuple[str, ...] | None:
        """The user's labels, else the model's own.

        Raises:
            ModelError: the user's labels are not as many as the model's classes.
        """
        if self.labels is None:
            return own
        if classes is not None and len(self.labels) != classes:
            raise ModelError(
                f"{self.full_name} has {classes} classes, but labels= names {len(self.labels)}; give one for each, "
                "or weights=FILE of a network with that many"
            )
        return self.labels
