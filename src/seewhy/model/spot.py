"""A tensor of a model by its place, and letting something else flow on from there while the model runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seewhy.model.observe import watched
from seewhy.nested import mapped, tensors
from seewhy.types import Path


@dataclass(frozen=True)
class Spot:
    """A tensor of a model: what `module` returned at its `call`-th call (1 is the first), or that rectified.

    `index` is its place where the module returns a tuple; `rectifier` names the function that is applied to it outside
    of any module (torchvision's DenseNet rectifies its last features by a bare `F.relu`: `features + relu`).
    """

    module: str
    call: int = 1
    index: Path = ()
    rectifier: str | None = None


Awaited = dict[int, tuple[str, Spot, Tensor]]
"""Outputs whose rectified form is wanted, by their ids; they are held, so that the ids stay theirs."""


class _Rectifiers(TorchFunctionMode):
    """Sees the rectifiers that are called as functions, and keeps what the awaited one returns."""

    def __init__(self, awaited: Awaited, keep: Callable[[str, Tensor], Tensor]) -> None:
        super().__init__()
        self._awaited, self._keep = awaited, keep

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name, spot, _ = self._awaited.get(id(args[0]), (None, None, None)) if args else (None, None, None)
        if name is None or spot is None or func.__name__.strip("_") != spot.rectifier:
            return result
        del self._awaited[id(args[0])]
        return self._keep(name, result)


@contextmanager
def rerouted(
    model: nn.Module, spots: Mapping[str, Spot], keep: Callable[[str, Tensor], Tensor]
) -> Iterator[Mapping[str, int]]:
    """Pass the tensor at each spot to `keep(name, tensor)` when it comes up, and let what that returns flow on."""
    modules = {spot.module: model.get_submodule(spot.module) for spot in spots.values()}
    # of one output, itself comes before what it is rectified to
    ordered = sorted(spots.items(), key=lambda named: named[1].rectifier is not None)
    awaited: Awaited = {}

    def see(module: str, call: int, output: Any) -> Any:
        for name, spot in ordered:
            tensor = dict(tensors(output)).get(spot.index) if (spot.module, spot.call) == (module, call) else None
            if tensor is None:
                continue
            if spot.rectifier:
                awaited[id(tensor)] = (name, spot, tensor)
            else:
                output = _exchanged(output, tensor, keep(name, tensor))
        return output

    with watched(modules, see) as calls:
        if any(spot.rectifier for spot in spots.values()):
            with _Rectifiers(awaited, keep):
                yield calls
        else:
            yield calls


def _exchanged(output: Any, old: Tensor, new: Tensor) -> Any:
    """`output` with `new` wherever it held `old`."""
    return mapped(output, lambda tensor: new if tensor is old else tensor)
