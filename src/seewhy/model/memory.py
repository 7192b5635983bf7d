"""What is remembered of a model, for as long as it lives."""

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

T = TypeVar("T")
_KEYS = 32  # of one model: sizes of images, kinds of further arguments


class Memory(Generic[T]):
    """Remembers a value for each model and key for as long as the model lives, of the last keys of each."""

    def __init__(self) -> None:
        self._values: WeakKeyDictionary[nn.Module, dict[Hashable, T]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self, model: nn.Module, key: Hashable) -> T | None:
        """What was put there, or None."""
        with self._lock:
            return self._values.get(model, {}).get(key)

    def put(self, model: nn.Module, key: Hashable, value: T) -> None:
        """Remember a value, in place of any earlier one."""
        with self._lock:
            kept = self._values.setdefault(model, {})
            kept.pop(key, None)
            kept[key] = value
            while len(kept) > _KEYS:
                del kept[next(iter(kept))]
