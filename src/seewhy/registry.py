"""Finding a method: by its name in any spelling, or by the function that it is."""

import re
from collections.abc import Callable
from dataclasses import replace

from seewhy.catalog import METHODS as METHODS
from seewhy.delegates.listed import DELEGATES, delegate
from seewhy.method import Method
from seewhy.types import Map, MethodError
from seewhy.wording import near


def find(name: str) -> Method:
    """The method of that name, in any spelling: "grad_cam_pp", "Grad-CAM++" and "gradcamplusplus" are one.

    Raises:
        MethodError: No such method; the closest names are listed.
    """
    if name in METHODS:
        return METHODS[name]
    if name.lower().startswith("captum:"):
        return delegate(name)
    spellings = {_letters(spelling): row for row in METHODS.values() for spelling in (row.name, row.title)}
    if (row := spellings.get(_letters(name))) is not None:
        return row
    spelled = near(_letters(name), spellings, 4)
    names = dict.fromkeys(spellings[spelling].name for spelling in spelled) or METHODS
    listed = ", ".join(repr(known) for known in names)
    raise MethodError(f"no method {name!r}; there are {len(METHODS)}, {'closest' if spelled else 'namely'} {listed}")


def row_of(function: Callable[..., Map]) -> Method:
    """The row of a method given as a function; of a user's own function, a row that says what it is."""
    for row in (*METHODS.values(), *DELEGATES.values()):
        if row.function is function:
            return row
    own = Method(function, "", 0, "none: the caller's own function", True, "not checked against any paper")
    return replace(own, title=own.name)


def _letters(name: str) -> str:
    """The letters of a name without case and separators, with "+" and "plus" spelled "p"."""
    return re.sub("[^a-z0-9]", "", name.lower().replace("plus", "p").replace("+", "p"))
