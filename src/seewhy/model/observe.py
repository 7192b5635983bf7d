"""Looking at a model while it runs, and leaving it as it was."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from seewhy.types import ModelError

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run `model` in eval mode inside; on leaving, also by an error, everything is as it was.

    Restored: every module's training flag, every buffer (functional batch norm moves them even in eval mode), the
    global random state (functional dropout draws from it), and the grad mode. One thread at a time for each model.
    Compiled code is bypassed, since it silently ignores hooks, and an enclosing `inference_mode` is left.

    Raises:
        ModelError: the model is a DataParallel wrapper, or was built inside `inference_mode`.
    """
    check_observable(model)
    with ExitStack() as stack:
        stack.enter_context(_lock_of(model))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(torch.is_grad_enabled()))
        stack.enter_context(_random_state_kept(model))
        stack.enter_context(_buffers_kept(model))
        stack.enter_context(_evaluating(model))
        if "torch._dynamo" in sys.modules:  # only then can anything be compiled; importing it costs a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            # cuDNN has no backward of recurrent layers in eval mode, and training mode would change what they compute
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


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
            return see(name, calls[name], inputs if before else output[0])

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


def check_observable(model: nn.Module) -> None:
    """Refuse, in one sentence each, models whose forward pass cannot be watched.

    Raises:
        ModelError: see `untouched`.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ModelError(
            f"got a {type(model).__name__} wrapper, whose replicas cannot be observed; pass the model inside it, "
            "model.module"
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ModelError(
            "the model was built inside torch.inference_mode, so its parameters can take no part in a backward pass; "
            "build it outside, or copy it there with copy.deepcopy after cloning its parameters"
        )


def _lock_of(model: nn.Module) -> threading.RLock:
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(model, threading.RLock())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # the flags are set one by one: model.eval() may be overridden with side effects (merged adapters, frozen stages)
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    kept = [
        (vars(module)["_buffers"], name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in vars(module)["_buffers"].items()
        if buffer is not None and not buffer.is_inference()
    ]
    try:
        yield
    finally:
        for buffers, name, buffer, copy in kept:
            # batch norm writes its statistics without a change of version, so all are written back; through .data,
            # since a new version would break a backward pass that the user may have waiting
            buffer.data.copy_(copy)
            if buffers.get(name) is not buffer:
                buffers[name] = buffer


@contextmanager
def _random_state_kept(model: nn.Module) -> Iterator[None]:
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for device in devices:
            stack.enter_context(torch.random.fork_rng(devices=[device.index or 0], device_type=device.type))
        yield


def outside_inference(value: Any) -> Any:
    """A tensor that autograd can record: itself, or a copy where it was made inside `inference_mode`."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
