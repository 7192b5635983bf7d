"""One forward pass that keeps the tensors of any layers, and the gradients of any scores with respect to them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seewhy.model.batch import Batch
from seewhy.model.forward import forward
from seewhy.model.norms import recording
from seewhy.model.observe import passed_back, sets_grad_mode, untouched, watched
from seewhy.model.spot import Spot, rerouted
from seewhy.types import RUNS_ONLY, LayerError

INPUT = "<input>"
"""What the model's input is called where it is captured like a layer."""


@dataclass(frozen=True)
class Capture:
    """What one forward pass showed: the model's whole output, and the tensor at each spot that was asked for.

    `head` holds the input and output of the module that was asked for as such, if it ran with tensors.
    """

    model: nn.Module
    output: Any
    activations: Mapping[str, Tensor]
    head: tuple[Tensor, Tensor] | None
    calls: Mapping[str, int]
    differentiable: bool = False

    def gradients(self, cotangents: Sequence[tuple[Tensor, Tensor]], layers: Sequence[str]) -> dict[str, Tensor]:
        """Gradients of q scores with respect to the layers' tensors, from one batched backward pass.

        Args:
            cotangents: for tensors of the output, the gradient of each of the q scores with respect to it `(q ...)`.
            layers: names of captured layers.

        Returns:
            For each layer `(q ...)`, in the shape that the layer's tensor has.

        Raises:
            LayerError: a layer does not influence the scores.
        """
        through = [(tensor, gradient) for tensor, gradient in cotangents if tensor.requires_grad]
        wanted = [self.activations[name] for name in layers]
        if not through:
            raise LayerError(_without_influence(layers))
        with passed_back(self.model), torch.set_grad_enabled(self.differentiable):
            found = self._backward([t for t, _ in through], [g for _, g in through], wanted)
        missing = [name for name, gradient in zip(layers, found, strict=True) if gradient is None]
        if missing:
            raise LayerError(_without_influence(missing))
        return {name: gradient for name, gradient in zip(layers, found, strict=True) if gradient is not None}

    def _backward(
        self, outputs: list[Tensor], cotangents: list[Tensor], wanted: list[Tensor]
    ) -> tuple[Tensor | None, ...]:
        def backward(seeds: list[Tensor], batched: bool) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(
                outputs,
                wanted,
                grad_outputs=seeds,
                retain_graph=True,
                create_graph=self.differentiable,
                allow_unused=True,
                is_grads_batched=batched,
            )

        questions = cotangents[0].shape[0]
        if questions > 1 and not self.differentiable:
            try:
                return backward(cotangents, True)
            except RuntimeError as error:
                if "vmap" not in str(error) and "batching rule" not in str(error).lower():
                    raise
        # one backward each: for a single question, and where an operation of the tail has no batched backward
        alone = [backward([seed[q] for seed in cotangents], False) for q in range(questions)]
        return tuple(
            None if parts[0] is None else torch.stack([part for part in parts if part is not None])
            for parts in zip(*alone, strict=True)
        )


def capture(
    model: nn.Module,
    batch: Batch,
    spots: Mapping[str, Spot],
    *,
    head: str | None = None,
    graph: bool = True,
    differentiable: bool = False,
    gated: bool = False,
    leaf: bool = False,
    within: AbstractContextManager[Any] | None = None,
) -> Capture:
    """Run the model once and keep the tensors at `spots`.

    The forward runs without a graph up to the first of them. There the tensor is detached and starts the graph; a
    later one, which already hangs on the graph, is kept as it is, so that each layer gets exactly the gradient that it
    has alone. What flows on is a clone, since a later in-place operation would overwrite what was captured.

    Args:
        model: any module; it is left as it was.
        batch: what the model is given.
        spots: what to keep, by name.
        head: a module whose (first) input and output are kept too.
        graph: whether gradients will be asked for.
        differentiable: keep the whole graph, from the model's inputs and parameters on.
        leaf: keep the images too, under the name `INPUT`; the graph then starts there.
        within: what the forward pass runs inside of, such as a function mode that rules how rectifiers differentiate.
        gated: the model has `no_grad` or `enable_grad` blocks of its own, whose ends shall not end the graph.

    Raises:
        ModelError: the model does not run on what it is given.
        LayerError: a spot was not reached: its module did not run, or not that often, or returned something else.
    """
    kept: dict[str, Tensor] = {}
    heads: list[tuple[Tensor, Tensor]] = []

    def keep(name: str, tensor: Tensor) -> Tensor:
        if differentiable or tensor.requires_grad or not graph:
            kept[name] = tensor
        else:
            stack.enter_context(recording())
            # the tensor itself, since the model may hold it elsewhere too; not where it is the caller's or a buffer
            kept[name] = (tensor.detach() if id(tensor) in others else tensor).requires_grad_()
        return kept[name].clone()

    args, kwargs = batch.given
    others = {id(value) for value in (*args, *kwargs.values())}
    with untouched(model) as census, torch.set_grad_enabled(differentiable), ExitStack() as stack:
        if differentiable:
            stack.enter_context(recording())
        others |= {id(buffer) for _, owned in census.buffers for buffer in owned.values()}
        batch = batch.outside_inference()
        gates, around = _Open() if gated else nullcontext(), within or nullcontext()
        with rerouted(model, spots, keep) as calls, _head_watched(model, head, heads), gates, around:
            if leaf:
                images = batch.inputs
                followed = differentiable and images.requires_grad
                batch = batch.of(keep(INPUT, images if followed else images.detach().requires_grad_(differentiable)))
            output = forward(model, batch)
    _check_reached(spots, kept, calls)
    return Capture(model, output, kept, heads[-1] if heads else None, dict(calls), differentiable)


class _Open(TorchFunctionMode):
    """Once the graph has begun, neither entry nor exit of a block of the model's own ends it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if sets_grad_mode(func) and not args[0] and torch.is_grad_enabled():
            return None
        return func(*args, **(kwargs or {}))


@contextmanager
def _head_watched(model: nn.Module, head: str | None, seen: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    if head is None:
        yield
        return
    inputs: list[Any] = []
    module = {head: model.get_submodule(head)}

    def see(_name: str, _call: int, output: Any) -> None:
        given = inputs.pop()
        if isinstance(given, Tensor) and isinstance(output, Tensor):
            seen.append((given, output))

    def take(_name: str, _call: int, given: tuple[Any, ...]) -> None:
        inputs.append(given[0] if given else None)

    with watched(module, take, before=True), watched(module, see):
        yield


def _check_reached(spots: Mapping[str, Spot], kept: Mapping[str, Tensor], calls: Mapping[str, int]) -> None:
    for name, spot in spots.items():
        if name in kept:
            continue
        ran = calls.get(spot.module, 0)
        if ran == 0:
            raise LayerError(
                f"layer {name!r} did not run in this forward pass; seewhy.layers(model, images) lists those"
            )
        if ran < spot.call:
            raise LayerError(f"layer {name!r} asks for call {spot.call}, but {spot.module!r} ran {ran} times")
        raise LayerError(f"layer {name!r} did not return a floating tensor at {spot.index or 'its output'}")


def _without_influence(layers: Sequence[str]) -> str:
    if INPUT in layers:
        return (
            "no gradient of the score reaches the images: something on the way has none, such as detach, numpy or a "
            f"quantised layer; take {RUNS_ONLY}"
        )
    which = ", ".join(repr(name) for name in layers)
    return (
        f"the score does not depend on layer {which}, so no gradient reaches it; choose a layer between the image and "
        "the score: seewhy.layers(model, images) lists them"
    )
