"""What a user writes in a question: whole numbers, classes, one thing for all images or one for each."""

from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeVar, cast

from seewhy.labels import find_label
from seewhy.targets.question import Question
from seewhy.types import TargetError

Class = int | str
"""A class by index, or by one of its labels."""
Classes = Class | SupportsIndex | Sequence[Class | SupportsIndex]
"""What may be written for it: one for all images or one for each, with whole numbers of any library."""
_T = TypeVar("_T")


def plain(given: Any) -> Any:
    """A tensor, an array or a number of numpy's as Python's own."""
    return given.tolist() if hasattr(given, "tolist") and not callable(given) else given


def whole(given: Any) -> int | None:
    """A whole number, also numpy's or torch's, as Python's own; None where it is none."""
    number = plain(given)
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def wholes(given: Any) -> list[int] | None:
    """A list, a tuple or an array of whole numbers; None where it is none."""
    listed = plain(given)
    numbers = [whole(each) for each in cast(Sequence[Any], listed)] if isinstance(listed, list | tuple) else [None]
    return None if None in numbers else cast(list[int], numbers)


def classes_of(given: Any) -> Class | tuple[Class, ...]:
    """A class, or one for each image, checked to be indices and labels.

    Raises:
        TargetError: it is another thing.
    """
    given = plain(given)
    listed = [plain(each) for each in given] if isinstance(given, list | tuple | range) else [given]
    for each in listed:
        if not isinstance(each, str) and whole(each) is None:
            raise TargetError(
                f"got {each!r} as a class; give its index or its label, or a list with one for each image"
            )
    return listed[0] if not isinstance(given, list | tuple | range) else tuple(listed)


def for_each(given: _T | tuple[_T, ...], images: int, what: str) -> tuple[_T, ...]:
    """What was given for all images, once for each; or one for each, as it is.

    Raises:
        TargetError: a number of them that is neither 1 nor that of the images.
    """
    listed = cast(tuple[_T, ...], given if isinstance(given, tuple) else (given,))
    if len(listed) not in (1, images):
        raise TargetError(wrong_number(len(listed), images, what))
    return listed if len(listed) == images else listed * images


def wrong_number(count: int, images: int, what: str) -> str:
    """What is told of a list that has not one thing for each image."""
    plural = "s" * (images != 1)
    return f"got {count} {what} for {images} image{plural}; give one for all, or exactly one for each"


def class_index(which: Class, question: Question, ask: str = "Logit") -> int:
    """The place of a class, or of a number that has a name, among the scores; `ask` is what asks for it.

    Raises:
        TargetError: out of range, or an unknown or ambiguous label.
    """
    if isinstance(which, str):
        return _labelled(which, question, ask)
    if not 0 <= which < question.classes:
        raise TargetError(_beyond(which, question, ask))
    return int(which)


def _labelled(label: str, question: Question, ask: str) -> int:
    if question.labels is None:
        raise TargetError(f"got the label {label!r}, but this model comes without labels; pass labels=, or an index")
    found = find_label(question.labels, label)
    if question.of_two and found == 0:
        raise TargetError(
            f"the model's only score speaks for {question.labels[1]!r}; what speaks for {label!r} is what speaks "
            f"against it: -{ask}(0)"
        )
    return 0 if question.of_two else found


def _beyond(which: int, question: Question, ask: str) -> str:
    if ask == "Value":
        plural = "s" * (question.classes != 1)
        return (
            f"value {which} is out of range; the model puts out {question.classes} number{plural} for each image: "
            f"indices 0 to {question.classes - 1}"
        )
    if question.of_two and question.labels:
        return (
            f"class {which} is out of range; the model has a single score, index 0, which speaks for "
            f"{question.labels[1]!r}; what speaks for {question.labels[0]!r} is -{ask}(0)"
        )
    plural = "es" * (question.classes != 1)
    return f"class {which} is out of range; the model has {question.classes} class{plural}: 0 to {question.classes - 1}"
