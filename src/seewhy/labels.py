"""Names of classes: find one by what a person would type, read a list of them from a file."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr  # what is far too long is cut
from typing import Any, cast

from seewhy.types import ModelError, TargetError
from seewhy.wording import near, some

Labels = Sequence[str] | Mapping[Any, str]
"""Names of classes, in index order or by index."""


def in_order(names: Mapping[Any, Any]) -> list[Any] | None:
    """The names by index, as numbers or as JSON spells them, in their order; None where an index has no name."""
    by_index = {str(index): name for index, name in names.items()}
    every = [str(index) for index in range(len(names))]
    return [by_index[index] for index in every] if set(by_index) == set(every) else None


def labels_of(labels: Any) -> Sequence[str] | None:
    """The names of the classes, in the order of the scores, also of a dictionary from their indices.

    Raises:
        TargetError: no list of names.
    """
    if labels is None:
        return None
    listed = labels.tolist() if hasattr(labels, "tolist") else labels
    listed = in_order(cast(Mapping[Any, Any], listed)) if isinstance(listed, Mapping) else listed
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise TargetError(
            f"got {repr(labels)} as labels; give a list with the name of each class, in the order of the scores"
        )
    return cast(Sequence[str], listed)


def find_label(labels: Sequence[str], text: str) -> int:
    """The index of the class that is called `text`.

    A label may hold several comma separated synonyms ("tabby, tabby cat"); the text may be one of them or the whole
    label. Exact spelling is tried first ("Cardigan" is a dog, "cardigan" a garment), then any case, `_` as a space.

    Args:
        labels: one label for each class, in index order.
        text: the name that is looked for.

    Returns:
        The index, 0 to `len(labels) - 1`.

    Raises:
        TargetError: no class is called so (the nearest labels are listed), or several are (all of them are listed).
    """
    wanted = " ".join(text.split())
    for spelling in (str, _folded):
        found = [index for index, label in enumerate(labels) if _is_called(label, wanted, spelling)]
        if len(found) == 1:
            return found[0]
        if found:
            raise TargetError(
                f"label {text!r} names {len(found)} classes, it must name one: {_listed(labels, found)}; "
                "give the full label or the index"
            )
    nearest = _nearest(labels, wanted)
    hint = f"closest {_listed(labels, nearest)}; " if nearest else ""
    raise TargetError(f"no label {text!r}; {hint}give a label or an index from 0 to {len(labels) - 1}")


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels in a file: a JSON list, a JSON object from index to name, or plain text with one label a line.

    Raises:
        ModelError: the file is missing or has another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the labels file {path} cannot be read ({error}); give a .txt or .json file in UTF-8"
        ) from error
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(
            f"the labels file {path} is not JSON ({error}); give a list of names in index order"
        ) from error
    listed = in_order(entries) if isinstance(entries, dict) else entries
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise ModelError(
            f"labels file {path} must hold a list of names in index order, or an object "
            f'{{"0": name, "1": name, ...}} without gaps; it holds a {type(entries).__name__} of another form'
        )
    return tuple(listed)


def _folded(text: str) -> str:
    return text.replace("_", " ").casefold()


def _names(label: str) -> Iterator[str]:
    """The whole label, then each synonym."""
    yield label.strip()
    yield from (name.strip() for name in label.split(","))


def _is_called(label: str, wanted: str, spelling: Callable[[str], str]) -> bool:
    return any(spelling(name) == spelling(wanted) for name in _names(label))


def _nearest(labels: Sequence[str], wanted: str, count: int = 5) -> list[int]:
    """Labels that hold the text as a whole word ("panda": giant panda), then those with a similar spelling."""
    owner = {_folded(name): index for index, label in enumerate(labels) for name in _names(label)}
    text = _folded(wanted)
    holding = [index for name, index in owner.items() if text and f" {text} " in f" {name.replace(',', ' ')} "]
    similar = [owner[name] for name in near(text, owner, count)]
    return list(dict.fromkeys([*holding, *similar]))[:count]


def _listed(labels: Sequence[str], indices: Sequence[int]) -> str:
    return some([f"{labels[index]!r} ({index})" for index in indices], 6)
