"""Keras 3 models on the torch backend, as modules whose layers can be observed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import nn

from seewhy.types import ModelError

_WRAPPED: WeakKeyDictionary[nn.Module, "KerasModule"] = WeakKeyDictionary()

OTHER_BACKEND = (
    "got a Keras model on another backend than torch, whose layers torch cannot see; set the environment variable "
    "KERAS_BACKEND=torch before keras is imported and load the model again, or give activations and gradients as "
    "arrays: seewhy.from_arrays"
)


class Layer(nn.Module):
    """Stands for a layer of Keras: what passes through it is what that layer computes."""

    def forward(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the layer returns."""
        return call(*args, **kwargs)


class KerasModule(nn.Module):
    """A Keras model whose layers are modules: `conv1`, and of a model within it `resnet50/conv5_block3_out`.

    Keras calls its layers by a way of its own, on which hooks of torch are never called. So while this runs, each layer
    computes through a module of its name; the model is referred to weakly, as this is remembered with it.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = ref(model)
        self.layer_names = [name for name, _ in layers_of(model)]
        for name in self.layer_names:
            self.add_module(name, Layer())
        self._weights = nn.ParameterList(model.parameters())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns in inference."""
        model: Any = self._model()
        with ExitStack() as stack:
            for name, layer in layers_of(model):
                stack.enter_context(_through(self.get_submodule(name), layer))
            return model(*args, **kwargs)


def observable(model: nn.Module) -> nn.Module:
    """The model itself; of Keras, a module that runs it and shows its layers, always the same for one model.

    Raises:
        ModelError: a layer has the name of another one, or of what every module has.
    """
    if not is_keras(model):
        return model
    known, names = _WRAPPED.get(model), [name for name, _ in layers_of(model)]
    taken = next((name for name in names if names.count(name) > 1 or hasattr(nn.Module, name)), None)
    if taken is not None:
        raise ModelError(f"a layer of the Keras model has the name {taken!r}, which is taken; give it one of its own")
    if known is None or known.layer_names != names:
        known = _WRAPPED[model] = KerasModule(model).train(model.training)
    return known


def is_keras(model: object) -> bool:
    """Whether it is a model of Keras; told without importing Keras."""
    return any(kind.__module__.partition(".")[0] == "keras" for kind in type(model).__mro__)


def channels_last(model: nn.Module) -> bool:
    """Whether it is a model of Keras whose layers have the channels last."""
    formats = {getattr(layer, "data_format", None) for _, layer in layers_of(model)} if is_keras(model) else set[Any]()
    return "channels_last" in formats or (bool(formats) and "channels_first" not in formats)


def layers_of(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every layer of a Keras model and of the models within it, by name, but for those that only hand on the input."""
    for layer in model.layers:
        name = prefix + layer.name.replace(".", "_")
        if type(layer).__name__ != "InputLayer":
            yield name, layer
            yield from layers_of(layer, f"{name}/") if hasattr(layer, "layers") else ()


@contextmanager
def _through(module: nn.Module, layer: Any) -> Iterator[None]:
    # past Keras' own bookkeeping of attributes; what the class defines is found again afterwards
    own, call = vars(layer), layer.call
    had = own.get("call")
    own["call"] = partial(module, call)
    try:
        yield
    finally:
        if had is None:
            del own["call"]
        else:
            own["call"] = had
