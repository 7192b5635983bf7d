"""Models of other libraries that run on torch: each library is one row, of which nothing outside is said by name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from seewhy.zoo import keras_models


@dataclass(frozen=True)
class Adapter:
    """How the models of a library are observed.

    Args:
        is_mine: whether something is a model of it, told without importing it.
        observable: a module that runs the model and shows its layers, always the same for one model.
        channels_last: whether its images have their channels last.
        elsewhere: what is said of a model of it that is no module of torch.
    """

    is_mine: Callable[[object], bool]
    observable: Callable[[nn.Module], nn.Module]
    channels_last: Callable[[nn.Module], bool]
    elsewhere: str


ADAPTERS = (
    Adapter(
        is_mine=keras_models.is_keras,
        observable=keras_models.observable,
        channels_last=keras_models.channels_last,
        elsewhere=keras_models.OTHER_BACKEND,
    ),
)


def adapter_of(model: object) -> Adapter | None:
    """The library that a model is of, where that is not torch itself."""
    return next((adapter for adapter in ADAPTERS if adapter.is_mine(model)), None)
