"""What a settled question marks in an image."""

from collections.abc import Iterator

from seewhy.marks import Marks, joined
from seewhy.targets.arithmetic import Each, Sum
from seewhy.targets.question import Open, Question
from seewhy.types import Target


def marked(target: Target | Open, question: Question, image: int) -> Marks:
    """Where in one image lies what is asked about; a target that is about places has a method `marks` for it."""
    found = (getattr(leaf, "marks", None) for leaf in _about(target, image))
    return joined([marks(question, image) for marks in found if marks])


def _about(target: Target | Open, image: int) -> Iterator[Target | Open]:
    """The parts of a question that are about one image."""
    if isinstance(target, Each):
        yield from _about(target.targets[image], image)
    elif isinstance(target, Sum):
        for _, part in target.terms:
            yield from _about(part, image)
    else:
        yield target
