"""What the graph of a forward pass does not keep, seen as the functions of torch are called."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from seewhy.model.graph import Edge, edge_of
from seewhy.model.kinds import ACTIVATION_FUNCTIONS
from seewhy.model.observe import sets_grad_mode

_JOINS = {torch.cat, torch.concat, torch.concatenate}


class Functions(TorchFunctionMode):
    """Notes what the graph does not keep: rectifiers called as functions, the lengths of what was joined, and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.rectified: list[tuple[Edge, str, Edge]] = []
        self.joined: dict[Node, tuple[int, ...]] = {}
        self.gated = False
        self._closed = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if sets_grad_mode(func):
            self.gated = self.gated or bool(args[0] and not self._closed)  # a capture runs the trunk without a graph
            self._closed = not args[0]
            return None if self._closed else func(*args)
        name = getattr(func, "__name__", "").strip("_")
        before = edge_of(args[0]) if name in ACTIVATION_FUNCTIONS and args and isinstance(args[0], Tensor) else None
        result = func(*args, **(kwargs or {}))
        self.gated = self.gated or (self._closed and isinstance(result, Tensor) and result.requires_grad)
        after = edge_of(result) if before or func in _JOINS else None
        if before and after:
            self.rectified.append((before, name, after))
        elif after:
            parts, dim = _joined(*args, **(kwargs or {}))
            # torch.cat takes an empty vector beside any tensors: how caches of keys and values begin
            self.joined[after[0]] = tuple(part.shape[dim] if part.ndim == result.ndim else 0 for part in parts)
        return result


def _joined(tensors: Sequence[Tensor], dim: int = 0, **_options: Any) -> tuple[Sequence[Tensor], int]:
    return tensors, dim
