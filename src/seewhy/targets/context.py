"""Whether the model has read the words that stand ahead of those that are asked about."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

_OF_WORDS = ("ids", "label", "tokens")
_NOT_OF_WORDS = ("position", "type", "mask")


def unread(ids: Sequence[int], given: Mapping[str | int, Any], image: int) -> str:
    """The names of the texts that a model was given for an image, if none of them holds these ids in a row.

    Empty where one does, and where no text is known. Negative ids stand for any, as in labels.
    """
    texts = {name: tensor for name, tensor in given.items() if _is_text(name, tensor)}
    for tensor in texts.values():
        row: list[int] = tensor[image if len(tensor) > 1 else 0].tolist()
        if any(_is_at(start, ids, row) for start in range(len(row) - len(ids) + 1)):
            return ""
    return " and ".join(f"argument {name}" if isinstance(name, int) else name for name in texts)


def _is_text(name: str | int, value: Any) -> bool:
    """Whole numbers for each place of each image, which are no masks."""
    if not isinstance(value, Tensor) or value.ndim != 2 or value.is_floating_point() or not value.numel():
        return False
    of_words = isinstance(name, int) or any(part in name for part in _OF_WORDS)
    return of_words and not any(part in str(name) for part in _NOT_OF_WORDS) and int(value.max()) > 1


def _is_at(start: int, ids: Sequence[int], row: Sequence[int]) -> bool:
    return all(own < 0 or other < 0 or own == other for own, other in zip(ids, row[start:], strict=False))
