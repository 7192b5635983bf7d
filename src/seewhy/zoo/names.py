"""Near misses: which known names a user may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def closest(name: str, known: Iterable[str]) -> str:
    """The known names nearest to `name`, as a clause for an error's sentence."""
    names = list(known)
    near = get_close_matches(name, names, n=4, cutoff=0.5)
    return f"closest {', '.join(map(repr, near))}" if near else f"{len(names)} are known and none is close"
