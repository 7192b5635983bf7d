"""Names of layers: as the user writes them, and as the record has them."""

from collections.abc import Mapping

from torch import nn

from seewhy.model.trace import Trace
from seewhy.types import LayerError
from seewhy.wording import closest

WAY_OUT = "seewhy.layers(model, images) lists the layers that can be explained"


def name_of(modules: Mapping[str, nn.Module], layer: str | nn.Module) -> str:
    """The name of a layer that was given by name or as the module itself.

    Raises:
        LayerError: the module is not one of these.
    """
    if isinstance(layer, str):
        return layer
    for name, module in modules.items():
        if module is layer:
            return name
    raise LayerError(
        f"got a {type(layer).__name__} as layer, which is no part of the model; pass one of its {len(modules)} modules "
        "or a name, as in layer='layer4'"
    )


def recorded(trace: Trace, name: str) -> str:
    """The name as it stands on the record: with `@` exactly if the module ran several times."""
    called, _, rectifier = name.partition(" + ")
    module, _, call = called.partition("@")
    if name in trace.outputs:
        return name
    if module not in trace.modules or rectifier or not (call or "1").isdigit():
        near = closest(name, [*trace.modules, *trace.outputs])
        raise LayerError(
            f"no layer {name!r}; the model has {len(trace.modules)}, {near}; "
            "list them with seewhy.layers(model, images)"
        )
    ran = trace.calls.get(module, 0)
    if ran == 0:
        raise LayerError(f"layer {module!r} did not run in this forward pass; {WAY_OUT}")
    if ran > 1 and not 1 <= int(call or 0) <= ran:
        calls = ", ".join(f"{module}@{index}" for index in range(1, ran + 1))
        raise LayerError(f"layer {name!r} asks for one call of a module that ran {ran} times; say which: {calls}")
    if int(call or 1) > ran:
        raise LayerError(f"layer {name!r} asks for call {call} of a module that ran once; write {module!r}")
    return module if ran == 1 else name
