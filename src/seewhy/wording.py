"""How sentences spell what stands in many of them: near misses, long lists, sizes."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def near(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """At most `count` of the known names, those whose spelling is nearest to `name`, the nearest first."""
    return get_close_matches(name, list(dict.fromkeys(known)), n=count, cutoff=0.5)


def closest(name: str, known: Iterable[str], otherwise: str = "none is close") -> str:
    """The names that may have been meant, as a clause of an error: "closest 'layer4', 'layer3'"."""
    found = near(name, known)
    return f"closest {', '.join(map(repr, found))}" if found else otherwise


def some(names: Sequence[str], count: int = 3) -> str:
    """The first of many names, and how many more there are: "a, b, c and 4 more"."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def by(sizes: Iterable[int]) -> str:
    """The sizes of a grid or a picture: "14x14"."""
    return "x".join(map(str, sizes))
