"""A model with the inputs that it is to be run on, and its recorded run on noise in their place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from seewhy.model.alignment import probe
from seewhy.model.batch import Batch
from seewhy.model.outputs import read_scores, score_path
from seewhy.model.trace import Trace
from seewhy.nested import tensors
from seewhy.types import ModelError, Path

Reading = Callable[[Any], Sequence[tuple[Tensor, tuple[float, ...]]]]
"""From a model's output to several scores, each with one number for each of its places and each image, and how many
pixels each place takes up along each axis, one after the other."""


@dataclass(frozen=True)
class Run:
    """A model with what it is to be run on, and where its scores are (None: found by itself)."""

    model: nn.Module
    batch: Batch
    output: Path | None = None

    def trace(self) -> Trace:
        """One recorded forward pass on noise: what is found does not depend on which photo came first."""
        return self._recorded(self.probe(), self._scores)

    def traces(self, read: Reading) -> list[Trace]:
        """One recorded forward pass on the images themselves, seen from each of the numbers that are read of it.

        Args:
            read: what is read.
        """
        found: list[tuple[Tensor, tuple[float, ...]]] = []

        def scores(output: Any) -> Tensor:
            found.extend(read(output))
            return torch.cat([number for number, _ in found])

        whole = self._recorded(self.batch, scores)
        return [whole.about(number, extent) for number, extent in found]

    def _recorded(self, batch: Batch, scores: Callable[[Any], Tensor]) -> Trace:
        return Trace.of(self.model, batch, scores, told=self.batch)

    def probe(self) -> Batch:
        """Noise in place of the images, with the further arguments."""
        noise = probe(self.batch.inputs)
        if not self.batch.images_only:  # the other arguments may have a row for each image
            noise = noise.expand(len(self.batch), *noise.shape[1:]).clone()
        return self.batch.of(noise)

    def key(self) -> tuple[Any, ...]:
        """What the findings depend on, beside the weights."""
        inputs, others = self.batch.inputs, (*self.batch.args, *self.batch.kwargs.items())
        return inputs.shape[1:], inputs.dtype, self.output, self.batch.name, self.batch.form, *map(_spelled, others)

    def _scores(self, output: Any) -> Tensor:
        images = 1 if self.batch.images_only else len(self.batch)
        try:
            return read_scores(output, score_path(output, images)[0] if self.output is None else self.output)
        except ModelError:
            if self.output is not None:
                raise
        # no tensor of scores can be told: the layers are those that everything in the output depends on
        read = [tensor.flatten() for _, tensor in tensors(output) if tensor.requires_grad]
        return torch.cat(read) if read else self.batch.inputs.new_zeros(0)


def _spelled(value: Any) -> str:
    """What of a further argument may change which layers run: a tensor's shape, any other value as it is written."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key!r}: {_spelled(each)}' for key, each in cast(Mapping[Any, Any], value).items())})"
    return f"({', '.join(map(_spelled, value))})" if isinstance(value, tuple | list) else repr(value)
