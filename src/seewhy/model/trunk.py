"""Running only the end of a model: what had finished when a layer put out its tensor is not computed again.

Each module that had finished by then, and is not a part of a larger one that had, gives back what it put out on the
clean pass, for as long as the replay lasts. What the model does between modules, by functions, runs as always.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from seewhy.model.batch import Batch
from seewhy.model.observe import untouched, watched
from seewhy.model.spot import Spot
from seewhy.nested import mapped


@dataclass(frozen=True)
class Trunk:
    """The outputs, on the clean images, of the modules that need not run again; for each its calls in order.

    Args:
        finished: by module name.
        spot: where the layer's tensor is, counted by the calls that are left.
        images: how many rows the outputs have.
    """

    finished: Mapping[str, Sequence[Any]]
    spot: Spot
    images: int

    @staticmethod
    def of(model: nn.Module, batch: Batch, spot: Spot) -> "Trunk":
        """Run the model once on this, and keep what had finished when the tensor at `spot` came up."""
        ended: list[tuple[str, Any]] = []
        begun: list[int] = []
        reached: list[bool] = []

        def begin(_name: str, _call: int, _inputs: Any) -> None:
            begun.append(len(ended))

        def end(name: str, call: int, output: Any) -> None:
            start = begun.pop()
            if reached:
                return
            del ended[start:]  # parts of this module: it gives back all of it
            ended.append((name, mapped(output, Tensor.detach)))
            if (name, call) == (spot.module, spot.call):
                reached.append(True)

        modules = {name: module for name, module in model.named_modules() if name}
        with untouched(model), torch.no_grad(), watched(modules, begin, before=True), watched(modules, end):
            args, kwargs = batch.given
            model(*args, **kwargs)
        finished: dict[str, list[Any]] = {}
        for name, output in ended:
            finished.setdefault(name, []).append(output)
        return Trunk(finished, replace(spot, call=len(finished.get(spot.module, ()))), len(batch))

    @contextmanager
    def standing_in(self, model: nn.Module, rows: Int[Tensor, " m"]) -> Iterator[None]:
        """Inside, the finished modules give back their outputs, as rows `rows` of them, in this thread only."""
        stubbed: list[tuple[dict[str, Any], Any]] = []
        try:
            for name, outputs in self.finished.items():
                module = model.get_submodule(name)
                state = vars(module)
                stubbed.append((state, state.get("forward")))
                own = name == self.spot.module and self.spot.rectifier is not None  # perhaps rectified in place
                state["forward"] = self._stub(module.forward, deque(outputs), rows, own)
            yield
        finally:
            for state, before in stubbed:
                if before is None:
                    del state["forward"]
                else:
                    state["forward"] = before

    def _stub(
        self, forward: Callable[..., Any], outputs: deque[Any], rows: Int[Tensor, " m"], own: bool
    ) -> Callable[..., Any]:
        """`own`: each row of the outputs in memory of its own."""
        owner = threading.get_ident()

        def stub(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != owner or not outputs:
                return forward(*args, **kwargs)
            return mapped(outputs.popleft(), rows_of_own if own else rows_of_all)

        def rows_of_all(tensor: Tensor) -> Tensor:
            return rows_of(tensor, rows, self.images)

        def rows_of_own(tensor: Tensor) -> Tensor:
            return rows_of_all(tensor).clone()

        return stub


def rows_of(value: Tensor, rows: Int[Tensor, " m"], images: int) -> Tensor:
    """Of a tensor with a row for each image, these rows; without a copy where they are all of one image."""
    if value.ndim == 0 or len(value) != images:
        return value
    first = int(rows[0])
    if bool((rows == first).all()):
        return value[first : first + 1].expand(len(rows), *value.shape[1:])
    return value[rows]
