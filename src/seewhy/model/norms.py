"""Gradients through batch norms, which torch computes wrongly for one image on a CPU."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]


@contextmanager
def sound(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Through these modules' batch norms go only tensors whose order in memory is not ambiguous.

    A batch of one may have any stride along its axis. Tokens that were taken from a map of features send a gradient
    back that has an odd one, passes for channels last, and has torch (2.13, on CPUs) read the other tensors in that
    order too: it answers with gradients of other places. LeViT, EfficientFormer, XCiT and RT-DETR do this.
    """
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    handles = [norm.register_forward_pre_hook(_plain_input) for norm in norms]
    handles += [norm.register_forward_hook(_plain_gradient) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _plain_input(_module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    given = inputs[0] if inputs else None
    return (_plain(given), *inputs[1:]) if isinstance(given, Tensor) and given.requires_grad else None


def _plain_gradient(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
    if isinstance(output, Tensor) and output.requires_grad:
        output.register_hook(_plain)


def _plain(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    odd = tensor.ndim > 2 and len(tensor) == 1 and tensor.stride(0) != tensor[0].numel()
    return tensor.clone(memory_format=torch.contiguous_format) if odd else tensor
