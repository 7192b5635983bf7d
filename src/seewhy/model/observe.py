"""Looking at a model while it runs, and leaving it as it was."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.model.norms import recording
from seewhy.types import ModelError
from seewhy.wording import some

# one for all models: the random state and the bypass of compiled code belong to the process
_LOCK = threading.RLock()
_HELD = threading.local()
_OURS = "_raised_by_seewhy"


@dataclass(frozen=True)
class Census:
    """A model's parts as they are now, from one walk over its modules: explaining is so cheap that walks count.

    `buffers` holds for each module that has some its table of them, and what is in it now.
    """

    modules: Sequence[nn.Module]
    parameters: Sequence[nn.Parameter]
    buffers: Sequence[tuple[dict[str, Tensor | None], Mapping[str, Tensor]]]
    training: Sequence[nn.Module]
    kinds: frozenset[type[nn.Module]]

    @staticmethod
    def of(model: nn.Module) -> "Census":
        """Walk over the model."""
        modules, known = [model], {id(model)}
        parameters: list[nn.Parameter] = []
        buffers: list[tuple[dict[str, Tensor | None], Mapping[str, Tensor]]] = []
        training: list[nn.Module] = []
        for module in modules:  # it grows on the way
            if isinstance(module, torch.jit.ScriptModule):
                within = list(module.modules())
                parameters += module.parameters()
                buffers.append((dict(module.named_buffers()), dict(module.named_buffers())))
                training += [each for each in within if each.training]
                continue
            state = vars(module)
            if owned := state["_parameters"]:
                parameters += [parameter for parameter in owned.values() if parameter is not None]
            if owned := state["_buffers"]:
                buffers.append((owned, {name: buffer for name, buffer in owned.items() if buffer is not None}))
            if module.training:
                training.append(module)
            for child in state["_modules"].values():
                if child is not None and id(child) not in known:
                    known.add(id(child))
                    modules.append(child)
        return Census(modules, parameters, buffers, training, frozenset(map(type, modules)))

    @property
    def scripted(self) -> str | None:
        """What kind of scripted or traced module there is, into which no hook reaches; None if there is none."""
        return next((kind.__name__ for kind in self.kinds if issubclass(kind, torch.jit.ScriptModule)), None)

    @property
    def recurrent(self) -> bool:
        """Whether there is a recurrent layer."""
        return any(issubclass(kind, nn.RNNBase) for kind in self.kinds)

    @property
    def by_mode(self) -> bool:
        """Whether a part in train mode looks at that, and so computes another thing in eval mode."""
        return any(_asks_for_mode(kind) for kind in {type(module) for module in self.training})

    def stamp(self) -> int:
        """Changes whenever a module is exchanged, or a parameter is exchanged or written to.

        Raises:
            ModelError: the model was built inside `inference_mode`.
        """
        try:
            versions = [parameter._version for parameter in self.parameters]
        except RuntimeError as error:  # tensors of inference mode have no version
            raise ModelError(
                "the model was built inside torch.inference_mode, so its parameters can take no part in a backward "
                "pass; build it outside of it"
            ) from error
        return hash((*map(id, self.modules), *map(id, self.parameters), *versions))


@contextmanager
def held(model: nn.Module) -> Iterator[Census]:
    """Keep other threads' explanations away, and know the model's parts; inside another `held`, for nothing.

    Raises:
        ModelError: the model is a DataParallel wrapper, has no forward pass of its own, or its parameters are spread
            over processes.
    """
    with _LOCK:
        known: dict[int, Census] = vars(_HELD).setdefault("census", {})
        outermost = id(model) not in known
        try:
            if outermost:
                known[id(model)] = Census.of(model)
                _check_observable(model, known[id(model)])
            yield known[id(model)]
        finally:
            if outermost:
                known.pop(id(model), None)


@contextmanager
def untouched(model: nn.Module) -> Iterator[Census]:
    """Run `model` in eval mode inside; on leaving, also by an error, everything is as it was.

    Restored: every module's training flag, every buffer (functional batch norm moves them even in eval mode), the
    global random state (functional dropout draws from it), and the grad mode. One thread at a time.
    Compiled code is bypassed, since it silently ignores hooks, and an enclosing `inference_mode` is left. Yields the
    model's parts.

    Raises:
        ModelError: as `held`.
    """
    with held(model) as census, ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(torch.is_grad_enabled()))
        stack.enter_context(_random_state_kept(census.parameters))
        stack.enter_context(_buffers_kept(census.buffers))
        stack.enter_context(_evaluating(census.training))
        if "torch._dynamo" in sys.modules:  # only then can anything be compiled; importing it costs a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if census.recurrent:
            # cuDNN has no backward of recurrent layers in eval mode, and training mode would change what they compute
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield census


@contextmanager
def passed_back(model: nn.Module) -> Iterator[None]:
    """Go back through `model` inside: checkpointing runs parts of it again there, so that it is `untouched`.

    Raises:
        ModelError: what it recomputes has no graph to go back through; and as `held`.
    """
    try:
        with untouched(model), recording():
            yield
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise ModelError(
            "the model recomputes activations by reentrant checkpointing, which hides them from the graph; switch "
            "gradient checkpointing off, or use its non-reentrant form (use_reentrant=False)"
        ) from error


@contextmanager
def watched(
    modules: Mapping[str, nn.Module], see: Callable[[str, int, Any], Any], *, before: bool = False
) -> Iterator[Counter[str]]:
    """Call `see(name, call, output)` after every call of these modules, calls counted from 1, in this thread only.

    What `see` returns replaces the output, unless it is None. With `before`, `see` gets the tuple of positional inputs
    ahead of the call instead. Yields the number of calls so far, by name. The hooks are gone on leaving.
    """
    owner, calls = threading.get_ident(), Counter[str]()

    def hook_of(name: str) -> Callable[..., Any]:
        def hook(_module: nn.Module, inputs: Any, *output: Any) -> Any:
            if threading.get_ident() != owner:
                return None
            calls[name] += 1
            try:
                return see(name, calls[name], inputs if before else output[0])
            except Exception as error:
                vars(error)[_OURS] = True
                raise

        return hook

    handles = [
        (module.register_forward_pre_hook if before else module.register_forward_hook)(hook_of(name))
        for name, module in modules.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def is_ours(error: Exception) -> bool:
    """Whether an error that came out of a running model is one of what watches it, not of the model."""
    return _OURS in vars(error)


def _asks_for_mode(kind: type[nn.Module]) -> bool:
    code = getattr(getattr_static(kind, "forward"), "__code__", None)  # a scripted class makes none of its own
    return code is not None and "training" in code.co_names


def _check_observable(model: nn.Module, census: Census) -> None:
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(
            f"got a {type(model).__name__} wrapper, whose replicas cannot be observed; pass the model inside it, "
            "model.module"
        )
    if getattr(model.forward, "__func__", None) is nn.Module.forward:
        held = [f"model.{name}" for name, _ in model.named_children()]
        raise ModelError(
            f"got {type(model).__name__}, which has no forward pass of its own; pass the network"
            f"{f' that it holds, {some(held)}' if held else ''}"
        )
    spread = {"FullyShardedDataParallel", "FSDPModule"}
    if any(base.__name__ in spread for kind in census.kinds for base in kind.__mro__):
        raise ModelError(
            "got a model wrapped by FSDP, whose parameters are spread over processes; gather its full state dict, load "
            "that into the plain model, and pass that"
        )


@contextmanager
def _evaluating(training: Sequence[nn.Module]) -> Iterator[None]:
    # the flags are set one by one: model.eval() may be overridden with side effects (merged adapters, frozen stages)
    switched = [module for module in training if module.training]
    try:
        for module in switched:
            module.training = False
        yield
    finally:
        for module in switched:
            module.training = True


@contextmanager
def _buffers_kept(owned: Sequence[tuple[dict[str, Tensor | None], Mapping[str, Tensor]]]) -> Iterator[None]:
    alike: dict[tuple[torch.dtype, int], list[Tensor]] = {}
    for _, held_now in owned:
        for buffer in held_now.values():
            if not buffer.is_inference():
                alike.setdefault((buffer.dtype, buffer.get_device()), []).append(buffer)
    copies = [(buffers, _joined(buffers)) for buffers in alike.values()]
    try:
        yield
    finally:
        for buffers, copy in copies:
            if not torch.equal(_joined(buffers), copy):
                for buffer, part in zip(buffers, copy.split([b.numel() for b in buffers]), strict=True):
                    # batch norm writes its statistics without a new version, and we write them back without one, which
                    # would break a backward pass that the user may have waiting
                    buffer.data.copy_(part.reshape(buffer.shape))
        for table, held_before in owned:
            if any(table.get(name) is not buffer for name, buffer in held_before.items()):
                table.update(held_before)


def _joined(buffers: Sequence[Tensor]) -> Tensor:
    """All values in one tensor: a copy, and a comparison, of hundreds of small buffers in one operation."""
    with torch.no_grad():
        return torch.cat([buffer if buffer.ndim == 1 else buffer.reshape(-1) for buffer in buffers])


@contextmanager
def _random_state_kept(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    devices = {parameter.device for parameter in parameters if not parameter.is_cpu} - {torch.device("meta")}
    state = torch.get_rng_state()
    with ExitStack() as stack:
        stack.callback(torch.set_rng_state, state)
        for device in devices:
            stack.enter_context(torch.random.fork_rng(devices=[device.index or 0], device_type=device.type))
        yield


def sets_grad_mode(func: Any) -> bool:
    """Whether a function that a function mode sees is the entry or exit of a `no_grad` or `enable_grad` block.

    A model's own `no_grad` blocks save memory in training; what it computes does not depend on them, so that neither a
    trace nor a capture follows them.
    """
    return getattr(func, "__name__", "") == "_set_grad_enabled"


def outside_inference(value: Any) -> Any:
    """A tensor that autograd can record: itself, or a copy where it was made inside `inference_mode`."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
