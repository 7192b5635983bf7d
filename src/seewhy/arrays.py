"""Maps of models that torch cannot run: a method on activations and gradients that another framework computed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from seewhy import given
from seewhy.data.image import Photo
from seewhy.data.preprocess import Preprocess
from seewhy.explain import explain
from seewhy.explanation import Explanation
from seewhy.facts import FACTS
from seewhy.maps import asked
from seewhy.types import MethodError, ShapeError

_KNOWN = {
    *("activations", "activations_by_layer", "gradients", "gradients_by_layer"),
    *("inputs", "upsample", "upsample_by_layer"),
}
"""The facts that activations and gradients tell, with the images."""


def from_arrays(
    method: str | Callable[..., Tensor],
    activations: Any,
    gradients: Any = None,
    *,
    images: Any = None,
    scores: Any = None,
    target: str | Sequence[str] = "the score",
    layout: str,
    options: Mapping[str, Any] | None = None,
    rectify: bool | None = None,
    preprocess: Preprocess | None = None,
    model: str = "arrays",
) -> Explanation:
    """Why did a model of TensorFlow, JAX or any other framework say that? The method's map of arrays that it computed.

    The same numbers as `explain(..., align="tile")` gives of a torch model with these activations and gradients.

    Args:
        method: a method that looks at nothing else, such as `grad_cam`, `hires_cam` or `eigen_cam`.
        activations: what a layer put out, with a row for each image: anything that `numpy.asarray` takes. Of several
            layers, whose maps are fused: a dictionary from their names, shallow to deep.
        gradients: of each image's score with respect to these, of the same shapes. None: for methods without.
        images: what the maps are laid over: the model's own images, channels first or last, or photos with
            `preprocess`. None: maps are of the layer's own size, and there are no pictures.
        scores: of each image; NaN, and null in manifests, if they are not given.
        target: what the score is, in words: one for all, or one for each image.
        layout: the axes of activations and gradients: `b h w c` as most of Keras and JAX have them, `b c h w`, or,
            with a class token, `b 1+n c`.
        options: the method's options.
        rectify: as in `explain`.
        preprocess: how photos became what the model was given; it tells where on the photo the maps lie.
        model: its name, for files and manifests.

    Returns:
        What `explain` returns.

    Raises:
        MethodError: a method that asks for more than these arrays tell.
        ShapeError: arrays that do not belong together, or hold no numbers.
    """
    layers = _by_name(activations, "activations")
    _check(method, given.options_of(options), gradients is not None)
    changes = None if gradients is None else _by_name(gradients, next(iter(layers)))
    first = next(iter(layers.values()))
    numbers = len(first)
    known = first.new_full((numbers,), torch.nan) if scores is None else _tensor(scores, "scores").reshape(-1)
    _check_shapes(layers, changes, known, target)
    stand_in = Expansion(layers, changes or {name: torch.ones_like(each) for name, each in layers.items()})
    shown = _blank(first, layout) if images is None else _images(images, preprocess)
    if _count(shown) != numbers:
        raise ShapeError(f"got {_count(shown)} images for activations of {numbers}; give one for each row")
    e = explain(
        *(stand_in.eval(), shown, 0, method, list(layers)),
        options=options,
        rectify=rectify,
        align="tile",
        layout=layout,
        preprocess=preprocess,
    )
    return replace(
        e,
        scores=known,
        target=(target,) * numbers if isinstance(target, str) else tuple(target),
        class_indices=(None,) * numbers,
        probabilities=(None,) * numbers,
        model=model,
        pictures=e.pictures if images is not None else (None,) * numbers,
    )


class Layer(nn.Module):
    """Puts out what a layer put out, whatever the images are."""

    def __init__(self, activations: Float[Tensor, "b *_"]) -> None:
        super().__init__()
        self.register_buffer("_held", activations)

    def forward(self, images: Tensor) -> Tensor:
        """The activations of the first images, with a graph to these, which are seen to be their cause."""
        first = self.get_buffer("_held")[: len(images)]
        return first + 0 * images.flatten(1).sum(1).reshape(-1, *[1] * (first.ndim - 1))


class Expansion(nn.Module):
    """All that arrays tell of a model: its score to first order in the activations, up to a constant: sum of G A."""

    def __init__(self, layers: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._gradients = gradients
        self._names = tuple(layers)
        for name, activations in sorted(layers.items(), key=lambda each: each[0].count(".")):
            *above, last = name.split(".")
            part: nn.Module = self
            for step in above:
                part = part._modules.get(step) or _added(part, step, nn.Module())
            _added(part, last, Layer(activations))

    def forward(self, images: Tensor) -> Float[Tensor, "b 1"]:
        """The scores, as if there were one class."""
        read = [self._gradients[name][: len(images)] * self.get_submodule(name)(images) for name in self._names]
        return sum((each.flatten(1).sum(1, keepdim=True) for each in read), images.new_zeros(len(images), 1))


def _added(part: nn.Module, name: str, child: nn.Module) -> nn.Module:
    part.add_module(name, child)
    return child


def _check(method: str | Callable[..., Tensor], options: Mapping[str, Any], with_gradients: bool) -> None:
    """That the method asks for nothing else.

    Raises:
        MethodError: it does.
    """
    way = asked(given.method_of(method), options)
    known = _KNOWN if with_gradients else {name for name in _KNOWN if not name.startswith("gradients")}
    missing = [f"{name} ({FACTS[name].told})" for name in sorted(way.needed - known)]
    if way.method.ensemble:
        missing.append("activations and gradients of changed images")
    if missing:
        raise MethodError(
            f"{way.method.name} needs {' and '.join(missing)}, which these arrays do not tell; take a method of "
            f"{'activations and gradients, such as grad_cam' if with_gradients else 'activations, or give gradients'}"
        )


def _check_shapes(
    layers: Mapping[str, Tensor], gradients: Mapping[str, Tensor] | None, scores: Tensor, target: Any
) -> None:
    shapes = {name: tuple(each.shape) for name, each in layers.items()}
    others = shapes if gradients is None else {name: tuple(each.shape) for name, each in gradients.items()}
    if shapes != others:
        raise ShapeError(f"got activations {shapes} and gradients {others}; give one of each layer, of the same shape")
    targets = len(scores) if isinstance(target, str) else len(target)
    if {len(scores), targets} | {shape[0] for shape in shapes.values()} != {len(scores)}:
        raise ShapeError(
            f"got activations {shapes}, {len(scores)} scores and {targets} targets; give a row, a score and, if "
            "several, a target for each image"
        )


def _by_name(arrays: Any, name: str) -> dict[str, Tensor]:
    named = cast(Mapping[str, Any], arrays) if isinstance(arrays, Mapping) else {name: arrays}
    if not named:
        raise ShapeError(f"got an empty dictionary as {name}; give what at least one layer put out")
    tensors = dict[str, Tensor]()
    for given_name, array in named.items():
        allowed = ".".join(map(_allowed, given_name.split(".")))
        while allowed in tensors:
            allowed += "_"
        tensors[allowed] = _tensor(array, given_name)
    for name, tensor in tensors.items():
        if tensor.ndim < 3:
            raise ShapeError(
                f"{name} are of shape {tuple(tensor.shape)}; give a row for each image, with channels and places: "
                "(b h w c), (b c h w) or (b n c)"
            )
    return tensors


def _allowed(name: str) -> str:
    """The name as that of a module's part: none that every module has."""
    taken = not name or name in (*dir(nn.Module()), "_gradients", "_names", "_held")
    return f"{name}_" if taken else name


def _tensor(array: Any, what: str) -> Tensor:
    """The numbers of an array of any framework, in memory of their own."""
    values = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
    kind = np.float64 if values.dtype == np.float64 else np.float32
    try:
        numbers = torch.from_numpy(np.array(values, dtype=kind))
    except (TypeError, ValueError) as error:
        raise ShapeError(f"got {type(array).__name__} as {what}, which is no array of numbers ({error})") from error
    if not bool(numbers.isfinite().all()) or 0 in numbers.shape:
        raise ShapeError(f"{what} of shape {tuple(numbers.shape)} hold NaN, infinite values or none; mend them first")
    return numbers


def _images(images: Any, how: Preprocess | None) -> Any:
    """Photos as they are, arrays of a batch as tensors."""
    if isinstance(images, str | PathLike | Image.Image | Photo | list | tuple | Tensor):
        return cast(Any, images)
    values = np.asarray(images)
    photos = how is not None and (values.dtype == np.uint8 or values.ndim < 4)
    return values if photos else _tensor(values, "images")


def _count(images: Any) -> int:
    if isinstance(images, list | tuple):
        return len(cast(Sequence[Any], images))
    floating = isinstance(images, Tensor) and images.is_floating_point()
    return len(images) if floating or (isinstance(images, Tensor | np.ndarray) and images.ndim > 3) else 1


def _blank(activations: Tensor, layout: str) -> Float[Tensor, "b 2 *grid"]:
    """Images of the size of the layer's grid, which are no pictures."""
    axes = layout.split() if " " in layout else list(layout)
    grid = [length for axis, length in zip(axes, activations.shape, strict=False) if axis not in ("b", "c")]
    if len(axes) != activations.ndim or any(len(axis) > 1 or axis == "n" for axis in axes):
        raise ShapeError(
            f"got no images for activations {tuple(activations.shape)} with layout={layout!r}; give images=, whose "
            "size tells the grid"
        )
    return activations.new_zeros(len(activations), 2, *grid)
