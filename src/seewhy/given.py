"""What callers hand to the verbs: of the kind that it must be, or one sentence that says what it must be."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from reprlib import repr  # what is far too long is cut
from typing import Any, cast

from torch import Tensor, nn

from seewhy.ensemble import COMBINATIONS, Change
from seewhy.labels import labels_of as labels_of
from seewhy.model.places import LayerName
from seewhy.observation import Manner
from seewhy.targets.walking import preferred
from seewhy.types import LayerError, MethodError, ModelError, Path


def layers_of(layer: Any) -> list[LayerName | None]:
    """The layers that become one map; [None] where they are to be found.

    Raises:
        LayerError: neither names nor modules.
    """
    if layer is None or isinstance(layer, str | nn.Module):
        return [layer]
    listed = cast(Sequence[Any], layer) if isinstance(layer, list | tuple) else ()
    if not listed or not all(isinstance(each, str | nn.Module) for each in listed):
        raise LayerError(f"got {repr(layer)} as the layer; give a layer's name, the module itself, or several of them")
    return list(listed)


def method_of(method: Any) -> str | Callable[..., Tensor]:
    """A method's name, or a function of facts.

    Raises:
        MethodError: neither.
    """
    if isinstance(method, str):
        return method
    if isinstance(method, list | tuple):
        raise MethodError(f"got {len(method)} methods; give one, or did you mean compare, which takes several?")
    if not callable(method) or isinstance(method, type) or not _tells_its_arguments(method):
        raise MethodError(
            f"got {repr(method)} as the method; give a method's name, such as 'grad_cam' (seewhy.METHODS lists them), "
            "or a function whose positional parameters name facts"
        )
    return cast(Callable[..., Tensor], method)


def usual(questions: Sequence[Any]) -> tuple[str, tuple[str, ...]]:
    """The method where none is named; with a note where that is not Grad-CAM."""
    found = preferred(questions)
    if found is None:
        return "grad_cam", ()
    return found, (f"method: {found}, the default where the gradient is at few places (boxes): grad_cam spreads it",)


def way_of(method: Any) -> tuple[str | Callable[..., Tensor], Mapping[str, Any]]:
    """A method with options of its own, where it was given as a pair.

    Raises:
        MethodError: no method, or no options.
    """
    if isinstance(method, tuple) and len(cast(tuple[Any, ...], method)) == 2 and not isinstance(method[1], str):
        return method_of(method[0]), options_of(method[1])
    return method_of(method), {}


def options_of(options: Any) -> Mapping[Any, Any]:
    """A method's options by their names, or several methods' options by these.

    Raises:
        MethodError: no dictionary.
    """
    if options is None or isinstance(options, Mapping):
        return cast(Mapping[Any, Any], options or {})
    raise MethodError(
        f"got {repr(options)} as options; give a dictionary from names to values, such as {{'rectify': False}}"
    )


def keywords_of(kwargs: Any) -> Mapping[str, Any] | None:
    """The model's keyword arguments.

    Raises:
        ModelError: no dictionary from names.
    """
    if kwargs is None or (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        return cast(Mapping[str, Any] | None, kwargs)
    raise ModelError(
        f"got {type(kwargs).__name__} as kwargs; they are a dictionary of the model's keyword arguments: "
        "kwargs={'mask': x}"
    )


def path_of(output: Any) -> Path | None:
    """Keys and indices that lead to the scores.

    Raises:
        ModelError: something else.
    """
    listed = cast(Sequence[Any], output) if isinstance(output, list | tuple) else (output,)
    if any(isinstance(step, bool) or not isinstance(step, str | int) for step in listed) and output is not None:
        raise ModelError(
            f"got {repr(output)} as output; give the key or index of the scores in the model's output, or a tuple of "
            "these where they are nested"
        )
    return None if output is None else tuple(listed)


def manner_of(align: Any, layout: Any, ensemble: Any, combine: Any, output: Any, differentiable: Any = False) -> Manner:
    """How the answers are wanted.

    Raises:
        LayerError: a layout that is no text.
        MethodError: an alignment, ensemble or way of combining that is none, or no yes or no.
        ModelError: an output that is no path.
    """
    if layout is not None and not isinstance(layout, str):
        raise LayerError(f"got {repr(layout)} as the layout; write one letter for each axis, such as layout='b h w c'")
    if not isinstance(align, str):
        raise MethodError(f"align is {repr(align)}; it is 'measured', 'analytic' or 'tile': choose one of them")
    if not isinstance(combine, str) or combine not in COMBINATIONS:
        raise MethodError(f"no way {repr(combine)} of combining; choose {' or '.join(map(repr, COMBINATIONS))}")
    if not isinstance(differentiable, bool):
        raise MethodError(f"differentiable is {repr(differentiable)}; it is True or False: choose one of them")
    return Manner(align, layout, _changes_of(ensemble), combine, path_of(output), differentiable)


def several(what: str, given: Any) -> Sequence[Any]:
    """What `compare` takes several of: a list, or a single one.

    Raises:
        MethodError: an empty list.
    """
    listed = cast(Sequence[Any], given) if isinstance(given, list | tuple) else [given]
    if len(listed) == 0:
        raise MethodError(f"got no {what} to compare; give at least one")
    return listed


def _changes_of(ensemble: Any) -> tuple[Change, ...]:
    listed = cast(Sequence[Any], ensemble) if isinstance(ensemble, list | tuple) else (ensemble,)
    if not all(isinstance(each, Change) and not isinstance(each, type) for each in listed):
        raise MethodError(
            f"got {repr(ensemble)} as the ensemble; give seewhy.Noise(), seewhy.Flips(), seewhy.Scales(), or several "
            "of them"
        )
    return tuple(listed)


def _tells_its_arguments(function: Callable[..., Any]) -> bool:
    try:
        signature(function)
    except ValueError:
        return False
    return True
