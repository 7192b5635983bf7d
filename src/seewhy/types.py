"""Shape aliases, the Target protocol and the errors: the vocabulary that every other file speaks.

Axes: `b` images, `c` channels, `h w` pixels, `*s` the model's input size, `*grid` a layer's spatial grid of any rank,
`n` tokens, `k` classes, `q` questions, `m` rows of an output (each made from one of the `b` images).
"""

from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "b c *s"]
Activations = Float[Tensor, "b c *grid"]
Gradients = Float[Tensor, "b c *grid"]
Map = Float[Tensor, "b *grid"]
Weights = Float[Tensor, "b c"]
Scores = Float[Tensor, " m"]
Rows = Int[Tensor, " m"]


@runtime_checkable
class Target(Protocol):
    """A question about a model's output: which scalar, per row, shall be explained.

    `rows[j]` is the index of the image that row j of `output` was made from, so one target serves a clean pass, many
    changed copies of one image, and the replayed tail of a network alike. Any function of these two arguments is one.
    """

    def __call__(self, output: Any, rows: Rows, /) -> Scores:
        """Scores of the rows of `output`: one number for each, differentiable."""
        ...


Selection = Literal["last", "pair", "convolutions", "tokens"]
"""Layers found by themselves: the last with a grid; that and a finer one; every convolution's; the last block's."""

Path = tuple[str | int, ...]
"""Keys and indices that lead from a model's output to one tensor of it; empty where the output is that tensor."""

EMBEDDINGS = ("image_embeds", "image_embeddings", "embeddings", "embedding", "embeds", "pooler_output", "features")
"""What embeddings are called in outputs, the likeliest first: in transformers, and in models of users' own."""

RUNS_ONLY = "a method that only runs the model: 'rise' or 'occlusion'"
"""The way out where a model has no gradient, or no layer that can be seen."""


class SeewhyError(ValueError):
    """Something that the caller can mend. The text says, in one sentence, what was got, the rule, and the way out."""


class LayerError(SeewhyError):
    """No such layer, an ambiguous one, one without a spatial grid, or one that does not influence the score."""


class TargetError(SeewhyError):
    """A class out of range, an unknown label, targets of the wrong number, or a target that does not fit the output."""


class ShapeError(SeewhyError):
    """A tensor of the wrong shape, an empty batch, or numbers that are not finite."""


class ImageError(SeewhyError):
    """A picture that cannot be read: missing, truncated, no image at all, or too large."""


class OutputError(SeewhyError):
    """Results that could not be written."""


class ModelError(SeewhyError):
    """A model that cannot be loaded or observed."""


class MethodError(SeewhyError):
    """An unknown method or option, or a method whose needs the model cannot meet."""


class MapWarning(UserWarning):
    """A map that means nothing: zero or the same everywhere. It stands in the explanation's notes too."""
