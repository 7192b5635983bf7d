"""What the model has read of a sentence: where this stands in its text, and whether the words ahead do at all."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

_OF_WORDS = ("ids", "label", "tokens")
_NOT_OF_WORDS = ("position", "type", "mask")


def unread(ids: Sequence[int], given: Mapping[str | int, Any], image: int) -> str:
    """The names of the texts that a model was given for an image, if none of them holds these ids in a row.

    Empty where one does, and where no text is known. Negative ids stand for any, as in labels.
    """
    texts = _texts(given, image)
    for row in texts.values():
        if any(_is_at(start, ids, row) for start in range(len(row) - len(ids) + 1)):
            return ""
    return " and ".join(f"argument {name}" if isinstance(name, int) else name for name in texts)


def reaches(ids: Sequence[int], asked: Collection[int], given: Mapping[str | int, Any], image: int) -> set[int]:
    """How many ids of a model's text there are from the sentence's first on: usually as many as the sentence has.

    Fewer where its end was not given to the model, more where the text goes on. Several where it stands at several
    places, none of them the end. A single place that is asked about may hold another word than the text. Of a sentence
    that stands nowhere, or where no text is known, as many as it has.
    """
    for other in (set[int](), set(asked) if len(asked) == 1 else set[int]()):
        found: set[int] = set()
        for row in _texts(given, image).values():
            usual = len(row) - len(ids)  # begins ahead of the text, where its first ids were not given
            starts = [usual, 0, *range(1, usual + 2)]  # may lack its last id; only as the whole text, more
            found |= {len(row) - start for start in starts if _overlaps(start, ids, row, other)}
        if found:
            return {len(ids)} if len(ids) in found else found
    return {len(ids)}


def _texts(given: Mapping[str | int, Any], image: int) -> dict[str | int, list[int]]:
    """The texts that a model was given for an image."""
    texts = {name: tensor for name, tensor in given.items() if _is_text(name, tensor)}
    return {name: tensor[image if len(tensor) > 1 else 0].tolist() for name, tensor in texts.items()}


def _is_text(name: str | int, value: Any) -> bool:
    """Whole numbers for each place of each image, which are no masks."""
    if not isinstance(value, Tensor) or value.ndim != 2 or value.is_floating_point() or not value.numel():
        return False
    of_words = isinstance(name, int) or any(part in name for part in _OF_WORDS)
    return of_words and not any(part in str(name) for part in _NOT_OF_WORDS) and int(value.max()) > 1


def _overlaps(start: int, ids: Sequence[int], row: Sequence[int], other: Collection[int]) -> bool:
    """Whether the ids are those of a text that begin here, as far as both go, but for some of their places."""
    kept = [n for n in range(len(ids)) if n not in other and 0 <= start + n < len(row)]
    pairs = [(ids[n], row[start + n]) for n in kept if ids[n] >= 0 and row[start + n] >= 0]
    return len(pairs) > 0 and all(own == read for own, read in pairs)


def _is_at(start: int, ids: Sequence[int], row: Sequence[int]) -> bool:
    return all(own < 0 or other < 0 or own == other for own, other in zip(ids, row[start:], strict=False))
