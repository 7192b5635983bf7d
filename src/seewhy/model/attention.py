"""Attention probabilities of any model, while it runs and without a change to it.

A fused kernel never holds the probabilities. Inside `attentions` it is written out as softmax and product, so that
gradients flow through them; eager code, which has them, is watched: a softmax over the last axis whose result is then
multiplied with something is an attention.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from seewhy.types import ModelError

_SOFTMAX = {"softmax", "special_softmax"}
_PRODUCTS = {"matmul", "__matmul__", "bmm"}
_PASSING = {"dropout", "to", "type", "type_as", "float", "half", "bfloat16", "double"} | {
    *("contiguous", "clone", "view", "reshape", "nan_to_num")
}
_MULTI_HEAD = inspect.signature(functional.multi_head_attention_forward)


@dataclass(frozen=True)
class Attention:
    """One attention as it ran: output = probabilities @ values.

    All but the probabilities are `(b heads n d)`, where the code that ran let them be seen; the first axis counts
    something else than images where attention is within windows. `probabilities` and `output` are on the graph.
    """

    probabilities: Float[Tensor, "..."]
    output: Float[Tensor, "..."] | None = None
    queries: Float[Tensor, "..."] | None = None
    keys: Float[Tensor, "..."] | None = None
    values: Float[Tensor, "..."] | None = None


@contextmanager
def attentions(images: int, *, graph: bool = True) -> Iterator[list[Attention]]:
    """Inside, every attention of this thread is put on the list that is yielded, in order of execution.

    What the model computes stays the same up to rounding. Attention dropout is not applied: models run in eval mode.

    Args:
        images: in the batch; three axes `(b * heads) n m` are taken apart by it.
        graph: Start the autograd graph at the first probabilities, where none has begun. What comes before runs without
            one, under the caller's `no_grad`. The grad mode is restored on leaving.

    Raises:
        ModelError: the model calls multi-head attention with a bias or zeros appended to its keys.
    """
    seen: list[Attention] = []
    with torch.set_grad_enabled(torch.is_grad_enabled()), _Watching(images, graph, seen):
        yield seen


class _Watching(TorchFunctionMode):
    """Writes fused attention out, and sees where eager code multiplies the result of a softmax."""

    def __init__(self, images: int, graph: bool, seen: list[Attention]) -> None:
        super().__init__()
        self.images, self.graph, self.seen = images, graph, seen
        self.shares: dict[int, Tensor] = {}  # results of a softmax; held, so that ids stay theirs
        self.product: tuple[Tensor, Tensor, Tensor] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func is functional.scaled_dot_product_attention:
            return self.fused(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self.multi_head(_MULTI_HEAD.bind(*args, **kwargs))
        if name in _PRODUCTS and len(args) > 1 and id(args[0]) in self.shares:
            return self.multiplied(func, args[0], args[1])
        if name == "einsum" and any(id(arg) in self.shares for arg in args):
            return func(*(self.recorded(arg) if id(arg) in self.shares else arg for arg in args), **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.ndim > 2:
            self.note(name, args, kwargs, result)
        return result

    def note(self, name: str, args: Any, kwargs: Any, result: Tensor) -> None:
        """Remember the results of softmaxes, and the last product, which may be that of queries and keys."""
        if name in _SOFTMAX:
            axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if axis in (-1, result.ndim - 1):
                self.shares[id(result)] = result
        elif name in _PASSING and args and id(args[0]) in self.shares:
            self.shares[id(result)] = result
        elif name in _PRODUCTS and len(args) > 1:
            self.product = (args[0], args[1], result)

    def recorded(self, probabilities: Tensor) -> Tensor:
        """Eager probabilities whose product is not known to be one with `(b heads n d)` values."""
        started = self.started(self.split(probabilities))
        self.seen.append(Attention(started))
        return self.joined(started, probabilities)

    def multiplied(self, product: Callable[..., Tensor], probabilities: Tensor, values: Tensor) -> Tensor:
        """The product of eager probabilities with the values."""
        queries = keys = None
        if self.product is not None and self.product[2].shape == probabilities.shape:
            queries, keys = self.product[0], self.product[1].mT
        return self.attended(probabilities, values, queries, keys, product)

    def attended(
        self,
        probabilities: Tensor,
        values: Tensor,
        queries: Tensor | None,
        keys: Tensor | None,
        product: Callable[..., Tensor] = torch.matmul,
    ) -> Tensor:
        """Put an attention on the list, and return what it puts out."""
        started = self.started(self.split(probabilities))
        output = self.split(product(self.joined(started, probabilities), values))
        known = [None if x is None else self.split(x.detach()) for x in (queries, keys, values)]
        self.seen.append(Attention(started, output, *known))
        # a clone flows on: an operation in place would otherwise take the output's place on the graph
        return self.joined(output.clone() if output.requires_grad else output, probabilities)

    def started(self, probabilities: Tensor) -> Tensor:
        """The same, on the autograd graph, which begins here where it has not yet."""
        if not self.graph or probabilities.requires_grad:
            return probabilities
        torch.set_grad_enabled(True)
        return probabilities.detach().requires_grad_()

    def split(self, x: Tensor) -> Tensor:
        """Three axes, as eager code has them, as `(b heads n m)`."""
        if x.ndim != 3:
            return x
        return x.unflatten(0, (self.images, -1)) if x.shape[0] % self.images == 0 else x.unsqueeze(1)

    @staticmethod
    def joined(x: Tensor, like: Tensor) -> Tensor:
        """As many axes again as the model has."""
        return x.flatten(0, 1) if x.ndim > like.ndim else x

    def fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,  # noqa: ARG002  no dropout: the name belongs to the signature
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """What `scaled_dot_product_attention` computes, with the probabilities."""
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        logits = query * scale @ key.mT
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        probabilities = logits.softmax(-1) if attn_mask is None else _masked_softmax(logits, attn_mask)
        return self.attended(probabilities.to(value.dtype), value, query, key)

    def multi_head(self, bound: inspect.BoundArguments) -> tuple[Tensor, Tensor | None]:
        """What `multi_head_attention_forward` computes: its own body would call the kernel out of our sight."""
        bound.apply_defaults()
        given = bound.arguments
        if given["bias_k"] is not None or given["add_zero_attn"] or given["static_k"] is not None:
            raise ModelError(
                "the model calls multi-head attention with keys appended (add_bias_kv, add_zero_attn) or stood in for, "
                "which is not followed; use grad_cam or another method that needs no attention"
            )
        batched = given["query"].ndim == 3
        queries, keys, values = (_heads(x, given["num_heads"]) for x in _projected(given, batched))
        output = self.fused(queries, keys, values, _mask_of(given, queries, keys))
        output = functional.linear(
            output.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"]
        )
        weights = self.seen[-1].probabilities if given["need_weights"] else None
        if weights is not None and given["average_attn_weights"]:
            weights = weights.mean(1)
        return (output, weights) if batched else (output.squeeze(1), None if weights is None else weights.squeeze(0))


def _masked_softmax(logits: Float[Tensor, "*b n m"], mask: Bool[Tensor, "..."] | Float[Tensor, "..."]) -> Tensor:
    """Softmax over what the mask lets through (True, or added to the logits); zeros where it lets nothing through."""
    logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
    nothing = (logits == -math.inf).all(-1, keepdim=True)
    return logits.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)


def _projected(given: dict[str, Any], batched: bool) -> Iterator[Tensor]:
    """Queries, keys and values, `(n b c)`, of the arguments of `multi_head_attention_forward`."""
    if given["use_separate_proj_weight"]:
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    biases = (None,) * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        yield functional.linear(given[name] if batched else given[name].unsqueeze(1), weight, bias)


def _heads(x: Float[Tensor, "n b c"], heads: int) -> Float[Tensor, "b heads n d"]:
    return x.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)


def _mask_of(
    given: dict[str, Any], queries: Float[Tensor, "b heads n d"], keys: Float[Tensor, "b heads m d"]
) -> Float[Tensor, "..."] | None:
    """Both masks of `multi_head_attention_forward` as one that is added; there, True is what is hidden."""
    total: Tensor | None = None
    for name in ("attn_mask", "key_padding_mask"):
        mask = given[name]
        if mask is None:
            continue
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=queries.dtype).masked_fill(mask, -math.inf)
        if name == "key_padding_mask":
            mask = mask.reshape(-1, 1, 1, keys.shape[2])
        elif mask.ndim == 3:
            mask = mask.reshape(-1, queries.shape[1], *mask.shape[1:])  # first axis: images times heads, or 1
        total = mask if total is None else total + mask
    return total
