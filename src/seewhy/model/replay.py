"""Running a model again: on changed images, or with changed activations at one layer; in chunks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seewhy.model.batch import Batch
from seewhy.model.capture import Capture, capture
from seewhy.model.following import settled
from seewhy.model.forward import forward
from seewhy.model.norms import recording
from seewhy.model.observe import untouched
from seewhy.model.spot import Spot, rerouted
from seewhy.model.tokens import Layout
from seewhy.model.trunk import Trunk, rows_of
from seewhy.nested import tensors
from seewhy.tensor import chunked
from seewhy.types import Target


@dataclass(frozen=True)
class Replay:
    """A model with the inputs of one clean pass, ready to be run again without a graph.

    Args:
        model: the module; left as it was by every run.
        batch: what the clean pass was given.
        spots: where each named layer is.
        chunk: how many rows are run at once at most, whatever a caller gives; it changes the memory, never the scores.
        edits: the model writes into its input, and is given a copy.
        gated: the model has `no_grad` blocks of its own.
        questions: what will be asked; by their answers it is told which further arguments follow the images.
    """

    model: nn.Module
    batch: Batch
    spots: Mapping[str, Spot]
    chunk: int = 256
    edits: bool = False
    gated: bool = False
    questions: Sequence[Target] = ()

    def of(self, model: nn.Module) -> "Replay":
        """The same of a copy of the model; what was found out by trying stays."""
        return replace(self, model=model, batch=self._settled, questions=())

    @property
    def inputs(self) -> Float[Tensor, "b c *s"]:
        """The images of the clean pass."""
        return self.batch.inputs

    def scores_at(
        self, questions: Sequence[Target], inputs: Float[Tensor, "m c *s"], rows: Int[Tensor, " m"]
    ) -> Float[Tensor, "q m"]:
        """The questions' scores of `inputs`, of which the j-th was made from image `rows[j]`."""
        with untouched(self.model), torch.no_grad():
            parts = [self._scores(questions, inputs[part], rows[part]) for part in chunked(len(inputs), self.chunk)]
        return torch.cat(parts, 1)

    def differentiable_scores_at(
        self, question: Target, inputs: Float[Tensor, "m c *s"], rows: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        """The question's scores of `inputs`, all in one pass, with a graph to them."""
        with untouched(self.model), recording():
            return self._scores((question,), inputs, rows)[0]

    def captures(
        self, inputs: Float[Tensor, "m c *s"], rows: Int[Tensor, " m"], layers: Sequence[str], *, leaf: bool = False
    ) -> Iterator[tuple[Capture, Int[Tensor, " _"]]]:
        """Passes of changed inputs with a graph from these layers on (with `leaf`, from the inputs); and their rows."""
        spots = {name: self.spots[name] for name in layers}
        for part in chunked(len(inputs), self.chunk):
            yield (
                capture(self.model, self._of_rows(inputs[part], rows[part]), spots, gated=self.gated, leaf=leaf),
                rows[part],
            )

    def score_tail(
        self,
        questions: Sequence[Target],
        layer: str,
        layout: Layout,
        activations: Float[Tensor, "m c *grid"],
        rows: Int[Tensor, " m"],
    ) -> Float[Tensor, "q m"]:
        """The questions' scores if `layer` had put out these activations, the j-th in place of image `rows[j]`'s.

        Only what comes after the layer is run, where a replay of the clean pass proves that this is exact.
        """
        trunk = self._trunk(layer)
        spot = self.spots[layer] if trunk is None else trunk.spot
        parts: list[Tensor] = []
        for part in chunked(len(rows), self.chunk):

            def swapped(_name: str, raw: Tensor, cells: Tensor = activations[part]) -> Tensor:
                return layout.from_cells(cells.to(raw.dtype), raw)

            short = nullcontext() if trunk is None else trunk.standing_in(self.model, rows[part])
            with untouched(self.model), torch.no_grad(), short, rerouted(self.model, {layer: spot}, swapped):
                inputs = rows_of(self.inputs, rows[part], len(self.inputs))
                parts.append(self._scores(questions, inputs, rows[part], swapped=True))
        return torch.cat(parts, 1)

    def differentiable_tail(
        self, questions: Sequence[Target], layer: str, tensors: Float[Tensor, "m ..."], rows: Int[Tensor, " m"]
    ) -> Float[Tensor, "q m"]:
        """As `score_tail`, all in one pass and with a graph to `tensors`, which are laid out as the layer's own."""
        trunk = self._trunk(layer)

        def swapped(_name: str, raw: Tensor) -> Tensor:
            torch.set_grad_enabled(True)
            return tensors.to(raw.dtype)

        short = nullcontext() if trunk is None else trunk.standing_in(self.model, rows)
        spots = {layer: self.spots[layer] if trunk is None else trunk.spot}
        with untouched(self.model), torch.no_grad(), short, rerouted(self.model, spots, swapped):
            return self._scores(questions, rows_of(self.inputs, rows, len(self.inputs)), rows, swapped=True)

    def _trunk(self, layer: str) -> Trunk | None:
        """What need not run again for the tail after `layer`; None where replaying the clean pass is not exact."""
        if layer not in self._trunks:
            self._trunks[layer] = self._verified(self.spots[layer])
        return self._trunks[layer]

    @cached_property
    def _trunks(self) -> dict[str, Trunk | None]:
        return {}

    def _verified(self, spot: Spot) -> Trunk | None:
        every = self.batch.rows
        trunk = Trunk.of(self.model, self._of_rows(self.inputs, every), spot)
        with untouched(self.model), torch.no_grad():
            clean = dict(tensors(self._run(self.inputs, every)))
            for rows in (every, every[:1].expand(len(every) + 1)):
                inputs = rows_of(self.inputs, rows, len(every))
                try:
                    with trunk.standing_in(self.model, rows):
                        again = dict(tensors(self._run(inputs, rows)))
                except (RuntimeError, ValueError, TypeError, IndexError):
                    return None  # code between modules that does not take rows that share their memory
                if again.keys() != clean.keys() or not all(_same(again[path], clean[path], rows) for path in clean):
                    return None
        return trunk

    def _scores(self, questions: Sequence[Target], inputs: Tensor, rows: Tensor, *, swapped: bool = False) -> Tensor:
        output = self._run(inputs, rows, swapped=swapped)
        return torch.stack([target(output, rows) for target in questions])

    def _run(self, inputs: Tensor, rows: Tensor, *, swapped: bool = False) -> Any:
        given = self._of_rows(inputs, rows)
        if not swapped:
            return forward(self.model, given)
        args, kwargs = given.given  # what fails behind a layer whose output was swapped is no refusal of the inputs
        return self.model(*args, **kwargs)

    def _of_rows(self, inputs: Tensor, rows: Tensor) -> Batch:
        return self._settled.of_rows(inputs.clone() if self.edits else inputs, rows)

    @cached_property
    def _settled(self) -> Batch:
        return settled(self.model, self.batch, self.questions)


def _same(again: Tensor, clean: Tensor, rows: Tensor) -> bool:
    expected = rows_of(clean, rows, len(clean)) if clean.ndim and len(again) == len(rows) else clean
    if again.shape != expected.shape:
        return False
    tolerance = 256 * torch.finfo(clean.dtype).eps
    return torch.allclose(again, expected, rtol=tolerance, atol=tolerance * float(clean.abs().amax()))
