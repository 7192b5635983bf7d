"""Models that end in global average pooling and one linear layer, and the proof that one pass was of that form."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import Node

from seewhy.model.capture import Capture
from seewhy.model.graph import kind, saved
from seewhy.model.kinds import AVERAGING
from seewhy.nested import follow
from seewhy.tensor import spatial_mean
from seewhy.types import Path


@dataclass(frozen=True)
class Head:
    """The last linear layer of a model that may end so, and where in the output its scores are; None: pooling alone."""

    linear: nn.Linear | None
    path: Path

    def reads_mean(self, capture: Capture, layer: str, activations: Float[Tensor, "b c *grid"]) -> bool:
        """Whether this pass proves that the scores are W x + b of the mean x of these activations of the layer.

        Args:
            capture: the pass.
            layer: the name of the layer among its activations.
            activations: the layer's, as `(b c *grid)`.
        """
        read = follow(capture.output, self.path)
        pooled, scores = capture.head or (None, None) if self.linear is not None else (read, read)
        if pooled is None or scores is not read or (self.linear is not None and not _is_plain(self.linear)):
            return False
        means = spatial_mean(activations)
        if pooled.dtype != means.dtype or pooled.shape != means.shape:
            return False
        return _averaged(pooled, capture.activations[layer]) and _same(pooled, means)

    def back(self, cotangents: Float[Tensor, "q b k"]) -> Float[Tensor, "q b c"]:
        """From gradients with respect to the scores to those with respect to the mean."""
        if self.linear is None:
            return cotangents
        rows = cotangents.flatten(0, 1)
        if int(rows.count_nonzero()) * 8 > rows.numel():
            return cotangents @ self.linear.weight
        # of logits, one weight in a row is not zero
        return (rows.to_sparse() @ self.linear.weight).unflatten(0, cotangents.shape[:2])


def _averaged(pooled: Tensor, layer: Tensor) -> bool:
    """Whether the graph leads from `pooled` to the layer by means, poolings of averages and reshapes alone.

    Equal values would be no proof: a block that is still the identity passes them on, and the gradient differs.
    """
    node, first = pooled.grad_fn, torch.autograd.graph.get_gradient_edge(layer).node
    while node is not None and node is not first and kind(node) in AVERAGING and not _overlaps(node):
        following = [before for before, _ in node.next_functions if before is not None]
        node = following[0] if len(following) == 1 else None
    return node is first


def _overlaps(node: Node) -> bool:
    """Whether an average pooling's windows overlap, leave gaps or look beyond the border: then it is no mean of all."""
    if not kind(node).startswith("AvgPool"):
        return False
    kernel, stride, padding = (list(saved(node, name)) for name in ("kernel_size", "stride", "padding"))
    return any(padding) or (bool(stride) and stride != kernel)


def _is_plain(linear: nn.Linear) -> bool:
    """Whether the module computes W x + b and nothing else: no subclass (cosine heads, adapters), nobody's hooks."""
    hooks = (vars(linear)[name] for name in ("_forward_hooks", "_forward_pre_hooks"))
    return type(linear) is nn.Linear and not any(hooks)


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of a mean in a's precision."""
    tolerance = 64 * torch.finfo(a.dtype).eps
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.detach().abs().amax()))
