"""Running a model again: on changed images, or with changed activations at one layer; in chunks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.model.capture import Spot, rerouted
from seewhy.model.observe import untouched
from seewhy.model.tokens import Layout
from seewhy.tensor import chunked
from seewhy.types import Target


@dataclass(frozen=True)
class Replay:
    """A model with the inputs of one clean pass, ready to be run again without a graph.

    Args:
        model: the module; left as it was by every run.
        inputs: the images of the clean pass.
        args: the model's further positional arguments; tensors with a row for each image follow the rows.
        kwargs: its keyword arguments, likewise.
        spots: where each named layer is.
        chunk: how many rows are run at once; it changes the memory, never the scores.
        edits: the model writes into its input, and is given a copy.
    """

    model: nn.Module
    inputs: Float[Tensor, "b c *s"]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    spots: Mapping[str, Spot]
    chunk: int = 32
    edits: bool = False

    def scores_at(
        self, questions: Sequence[Target], inputs: Float[Tensor, "m c *s"], rows: Int[Tensor, " m"]
    ) -> Float[Tensor, "q m"]:
        """The questions' scores of `inputs`, of which the j-th was made from image `rows[j]`."""
        with untouched(self.model), torch.no_grad():
            parts = [self._scores(questions, inputs[part], rows[part]) for part in chunked(len(inputs), self.chunk)]
        return torch.cat(parts, 1)

    def score_tail(
        self,
        questions: Sequence[Target],
        layer: str,
        layout: Layout,
        activations: Float[Tensor, "m c *grid"],
        rows: Int[Tensor, " m"],
    ) -> Float[Tensor, "q m"]:
        """The questions' scores if `layer` had put out these activations, the j-th in place of image `rows[j]`'s."""
        parts: list[Tensor] = []
        for part in chunked(len(rows), self.chunk):

            def swapped(_name: str, raw: Tensor, cells: Tensor = activations[part]) -> Tensor:
                return layout.from_cells(cells.to(raw.dtype), raw)

            with untouched(self.model), torch.no_grad(), rerouted(self.model, {layer: self.spots[layer]}, swapped):
                parts.append(self._scores(questions, self.inputs[rows[part]], rows[part]))
        return torch.cat(parts, 1)

    def _scores(self, questions: Sequence[Target], inputs: Tensor, rows: Tensor) -> Tensor:
        args = [self._of_rows(value, rows) for value in self.args]
        kwargs = {name: self._of_rows(value, rows) for name, value in self.kwargs.items()}
        output = self.model(inputs.clone() if self.edits else inputs, *args, **kwargs)
        return torch.stack([target(output, rows) for target in questions])

    def _of_rows(self, value: Any, rows: Tensor) -> Any:
        per_image = isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(self.inputs)
        return value[rows] if per_image else value
