"""The facts about the tokens and the attention of a transformer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.backward import Backward
from seewhy.model.blocks import HEADS, Attended, gradients_by_depth, mean_token_gradients, token_map, tokens_read
from seewhy.model.replay import Replay
from seewhy.model.tokens import Layout
from seewhy.tensor import full
from seewhy.types import MethodError


@dataclass(frozen=True)
class Attending:
    """Facts about all blocks of one pass and some questions; each property is one, computed on first use.

    Args:
        backward: the questions' backward pass, through the attentions too.
        attended: the attentions, block by block.
        layout: how the last block's tokens become `(b c *grid)`.
        replay: runs the end of the model again.
    """

    backward: Backward
    attended: Attended
    layout: Layout
    replay: Replay

    @cached_property
    def attentions(self) -> Sequence[Float[Tensor, "b heads n n"]]:
        """The attention probabilities of every block, as they ran."""
        return [full(each.probabilities.detach()) for each in self.attended.attentions]

    @cached_property
    def attention_gradients(self) -> Sequence[Sequence[Float[Tensor, "b heads n n"]]]:
        """For each question d score / d attention probabilities of every block."""
        found = [full(self.backward.gradients[name]) for name, _ in self.attended.names]
        return [[gradients[q] for gradients in found] for q in range(len(self.backward.questions))]

    @cached_property
    def attention_gradients_by_depth(self) -> Sequence[Sequence[Float[Tensor, "b heads n n"]]]:
        """For each question and block the gradient of the block's own score, that of the mean of its tokens."""
        attended, last = self.attended, self.attended.last
        layer, kept = attended.names[-1][1], self.backward.capture.activations

        def tail(tokens: Tensor, rows: Tensor) -> Tensor:
            return self.replay.differentiable_tail(self.backward.questions, layer, last.of_images(tokens), rows)

        pairs = [(tokens, block, name) for (name, tokens), block in zip(attended.names, attended.blocks, strict=True)]
        put_out = [block.of_images(kept[tokens]) for tokens, block, _ in pairs]
        found = gradients_by_depth(self.backward.capture, pairs, mean_token_gradients(tail, put_out))
        return [[full(gradients[q]) for gradients in found] for q in range(len(self.backward.questions))]

    @property
    def queries(self) -> Float[Tensor, "b heads n d"]:
        """Queries of the last block."""
        return self._of_last("queries")

    @property
    def keys(self) -> Float[Tensor, "b heads n d"]:
        """Keys of the last block."""
        return self._of_last("keys")

    @property
    def values(self) -> Float[Tensor, "b heads n d"]:
        """Values of the last block."""
        return self._of_last("values")

    @cached_property
    def head_gradients(self) -> Float[Tensor, "q b heads n d"]:
        """d score / d what the last attention put out, probabilities @ values, before its heads are joined."""
        self._of_last("output")
        return full(self.backward.gradients[HEADS])

    @property
    def token_map(self) -> Callable[[Tensor], Tensor]:
        """From one number for each token `(b n)` to a map `(b *grid)` of the patches."""
        return token_map(self.layout, self.attended.attentions[-1].probabilities.shape[-1])

    @cached_property
    def reading(self) -> Float[Tensor, "q b n"]:
        """How much of each token each question's score reads at the last block; rows sum to 1."""
        gradients = self.backward.gradients[self.attended.names[-1][1]]
        return torch.stack([full(tokens_read(self.attended.last.of_images(each))) for each in gradients])

    def _of_last(self, what: str) -> Tensor:
        found = getattr(self.attended.attentions[-1], what)
        if found is None:
            raise MethodError(
                f"the {what} of the last block's attention could not be seen, as its code has a form of its own; use "
                "chefer or another method that needs only the probabilities"
            )
        return full(found.detach())
