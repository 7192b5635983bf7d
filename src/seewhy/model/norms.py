"""Gradients through batch norms, which torch computes wrongly for one image on a CPU."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@contextmanager
def recording() -> Iterator[None]:
    """A graph is recorded inside, in this thread; through batch norms go only tensors of one order in memory.

    A batch of one may have any stride along its axis. Tokens that were taken from a map of features send a gradient
    back that has an odd one, passes for channels last, and has torch (2.13, on CPUs) read the other tensors in that
    order too: it answers with gradients of other places. LeViT, EfficientFormer, XCiT and RT-DETR do this.
    """
    owner = threading.get_ident()

    def plain_input(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        if not isinstance(module, _BatchNorm) or threading.get_ident() != owner:
            return None
        given = inputs[0] if inputs else None
        return (_plain(given), *inputs[1:]) if isinstance(given, Tensor) and given.requires_grad else None

    def plain_gradient(module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(module, _BatchNorm) or threading.get_ident() != owner:
            return
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(_plain)

    # two hooks for all modules: two for each of fifty norms would take 4 % of a small network's pass
    handles = [register_module_forward_pre_hook(plain_input), register_module_forward_hook(plain_gradient)]
    try:
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _plain(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    odd = tensor.ndim > 2 and len(tensor) == 1 and tensor.stride(0) != tensor[0].numel()
    return tensor.clone(memory_format=torch.contiguous_format) if odd else tensor
