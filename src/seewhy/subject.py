"""What is to be explained: a model and its images, in whatever form the user has them, made ready to run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from seewhy.data.frame import Frame
from seewhy.data.image import Photo, read
from seewhy.data.preprocess import Preprocess
from seewhy.inputs import named
from seewhy.item import Picture
from seewhy.model.batch import Batch
from seewhy.model.forms import GRIDS, Channels, Form, channels_axis, uncut
from seewhy.render.recording import Recording
from seewhy.types import ModelError, ShapeError
from seewhy.wording import by, some
from seewhy.zoo import Loaded
from seewhy.zoo.foreign import adapter_of
from seewhy.zoo.named import class_names

_UNSEEN = 0.02
"""The share of a photo that may be cropped away without a word."""


@dataclass(frozen=True)
class Subject:
    """A module with the inputs of one forward pass, and what is needed to show the result.

    Args:
        batch: what the model is given.
        labels: names of its classes.
        pictures: the photo behind each image; None where it is no picture.
        brought: names that the model in memory brings along, which may be of another head than it has now.
    """

    module: nn.Module
    batch: Batch
    labels: tuple[str, ...] | None
    name: str
    pictures: tuple[Picture | Recording | None, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    brought: tuple[str, ...] | None = None

    def labels_of(self, scores: Sequence[int]) -> tuple[str, ...] | None:
        """The names of the classes of scores of this shape: given, or the model's own where they are as many."""
        if self.labels is not None or self.brought is None:
            return self.labels
        return self.brought if len(scores) not in (2, 4) or scores[1] == len(self.brought) else None

    @property
    def sights(self) -> tuple[Frame | None, ...]:
        """What is seen of the photo behind each image; None where there is no photo."""
        return tuple(picture.frame if isinstance(picture, Picture) else None for picture in self.pictures)

    @property
    def inputs(self) -> Float[Tensor, "b c *s"]:
        """The images as the model takes them."""
        return self.batch.inputs

    def noted(self, *notes: str) -> "Subject":
        """The same with more to be said of it."""
        return replace(self, notes=(*self.notes, *notes)) if notes else self


def subject(
    model: nn.Module | Loaded,
    images: Any,
    *,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    labels: Sequence[str] | None,
    preprocess: Preprocess | None,
) -> Subject:
    """Make a model and images ready: photos are read and preprocessed, tensors are taken as they are.

    Raises:
        ImageError: a photo cannot be read.
        ModelError: photos were given, but it is not known how the model wants them.
        ShapeError: an empty batch, a tensor that is no batch of images, or values that are not finite.
    """
    loaded = _loaded(model)
    own = _eager(loaded.module)
    images, name, further = named(own, images, kwargs or {})
    check_given(images, args, preprocess)
    adapter, how = adapter_of(own), preprocess or loaded.preprocess
    module, last = (adapter.observable(own), adapter.channels_last(own)) if adapter else (own, False)
    _check_batch(images, module)
    form: Form
    if isinstance(images, Tensor) and images.ndim == 2 and GRIDS in further:
        inputs, form = uncut(module, images, further[GRIDS])
        pictures, notes = _drawn(inputs, how), ()
    elif isinstance(images, Tensor) and not _are_photos(images, how):
        form = Channels(images.ndim - 1 if last else channels_axis(module, images.shape))
        inputs = images if form.axis == 1 else images.movedim(form.axis, 1)
        pictures, notes = _drawn(inputs, how), _ordered(form.axis, images.ndim)
    else:
        inputs, pictures, notes = _prepared(images, how, loaded if isinstance(model, Loaded) else None)
        inputs, form = inputs.to(*_place(module)), Channels(inputs.ndim - 1 if last else 1)
        notes = notes if preprocess else (*loaded.preprocess_notes, *notes)
    _check(inputs)
    return Subject(
        module=module,
        batch=Batch(inputs, tuple(args), further, name, form=form),
        labels=tuple(labels) if labels is not None else loaded.labels,
        name=loaded.name,
        pictures=pictures,
        notes=(*loaded.notes, *(loaded.label_notes if labels is None else ()), *notes),
        brought=class_names(loaded.module),
    )


def check_given(images: Any, args: Any, preprocess: Any) -> None:
    """What was given for a model to run on is what `explain` takes.

    Raises:
        ModelError: it is of another kind.
    """
    if not isinstance(args, list | tuple):
        raise ModelError(
            f"got {type(args).__name__} as args; they are a tuple of the model's further inputs: args=(x,)"
        )
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        raise ModelError(
            f"got {type(preprocess).__name__} as preprocess, which does not tell where on the photo its pixels come "
            "from; describe it by seewhy.Preprocess(size=..., mean=..., std=...), or apply it and give the tensor"
        )
    if (
        isinstance(images, list | tuple)
        and images
        and all(isinstance(e, Tensor) and e.is_floating_point() for e in images)
    ):
        raise ModelError(
            f"got a {type(images).__name__} of {len(images)} tensors as images; make one batch of images, as by "
            "torch.stack, and give the model's other inputs by args="
        )


def _loaded(model: Any) -> Loaded:
    if isinstance(model, Loaded):
        return model
    if isinstance(model, nn.Module):
        return Loaded(_eager(model), None, None, type(model).__name__)
    adapter = adapter_of(model)
    if adapter is not None:
        raise ModelError(adapter.elsewhere)
    raise ModelError(
        f"got {type(model).__name__} as the model; pass a torch.nn.Module, or load one by name: seewhy.load(...)"
    )


def _check_batch(images: Any, module: nn.Module) -> None:
    """A floating tensor is a batch, as the model takes it.

    Raises:
        ShapeError: it is a single image or signal.
    """
    if not isinstance(images, Tensor) or images.ndim > 3 or not images.is_floating_point():
        return
    convolutions = [each for each in module.modules() if isinstance(each, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    ranks = {len(each.kernel_size) for each in convolutions}
    if ranks <= {1, 2} and ranks == {images.ndim - 1}:
        what, batch = ("image", "(b c h w)") if images.ndim == 3 else ("signal", "(b c l)")
        last = images.ndim == 3 and images.shape[-1] in (1, 3, 4) and images.shape[0] not in (1, 3, 4)
        raise ShapeError(
            f"got a single {what} of shape {tuple(images.shape)}; this model takes a batch {batch}: give "
            f"images{'.permute(2, 0, 1)' * last}[None]"
        )


def _ordered(channels: int, axes: int) -> tuple[str, ...]:
    """What is told of images whose channels are not where they usually are."""
    if channels == 1:
        return ()
    names = list({4: "bhw", 5: "bthw" if channels == 2 else "bdhw"}.get(axes, "bl"))
    names.insert(channels, "c")
    return (f"images: read as ({' '.join(names)}), as the model takes them; maps are without the channels",)


def _eager(module: nn.Module) -> nn.Module:
    """The module itself where it is wrapped by torch.compile, so that layers are called by the user's own names."""
    return cast(nn.Module, getattr(module, "_orig_mod", module))


def _are_photos(images: Tensor, how: Preprocess | None) -> bool:
    """Pictures (c h w) or (b c h w) of uint8, or one (h w); floating tensors are what the model takes, and batches."""
    return images.ndim == 2 or (images.dtype == torch.uint8 and images.ndim in (3, 4) and how is not None)


def _prepared(
    images: Any, how: Preprocess | None, loaded: Loaded | None
) -> tuple[Tensor, tuple[Picture | None, ...], tuple[str, ...]]:
    several = isinstance(images, list | tuple) or (isinstance(images, Tensor | np.ndarray) and images.ndim == 4)
    listed: list[Any] = list(images) if several else [images]
    if not listed:
        raise ShapeError("got an empty list of images; give at least one")
    if how is None:
        what = f"a tensor {tuple(listed[0].shape)}" if isinstance(listed[0], Tensor) else type(listed[0]).__name__
        why = (
            f" ({next(iter(loaded.preprocess_notes)).partition(';')[0]})" if loaded and loaded.preprocess_notes else ""
        )
        raise ModelError(
            f"got {what} for images, but it is not known how this model wants its photos{why}; pass a tensor (b c h w) "
            "as the model takes it, or preprocess=seewhy.Preprocess(...)"
            f"{', or load the model by seewhy.load, which knows it' if loaded is None else ''}"
        )
    photos = [read(each) for each in listed]
    ready = [how(photo) for photo in photos]
    sizes = list(dict.fromkeys(by(tensor.shape[1:]) for tensor, _ in ready))
    if len(sizes) > 1:
        raise ShapeError(
            f"got photos that become inputs of several sizes ({some(sizes)}), which are no batch; explain them one by "
            "one, or give a preprocess= with a size"
        )
    pictures = tuple(
        Picture(partial(_itself, photo), frame, photo.name) for photo, (_, frame) in zip(photos, ready, strict=True)
    )
    notes = tuple(f"{photo.name}: {note}" for photo in photos for note in photo.notes)
    cut = max(1 - frame.seen for _, frame in ready)
    if cut > _UNSEEN:
        notes = (*notes, f"the preprocessing crops photos: up to {cut:.0%} of one was not seen, and shows no heat")
    return torch.stack([tensor for tensor, _ in ready]), pictures, notes


def _itself(photo: Photo) -> Image.Image:
    return photo.image


def _drawn(inputs: Tensor, how: Preprocess | None) -> tuple[Picture | Recording | None, ...]:
    """Pictures of inputs that came as a tensor."""
    if inputs.ndim in (3, 5) and inputs.is_floating_point():
        return tuple(Recording(row.clone(), f"image{index}") for index, row in enumerate(inputs.detach()))
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or not inputs.is_floating_point():
        return (None,) * len(inputs)
    frame = Frame.identity((inputs.shape[2], inputs.shape[3]))
    rows = [row.clone() for row in inputs.detach()]  # drawn later, when the caller may have written into the tensor
    return tuple(Picture(partial(_image, row, how), frame, f"image{index}") for index, row in enumerate(rows))


def _image(row: Float[Tensor, "c h w"], how: Preprocess | None) -> Image.Image:
    """An input as a picture: without its normalization if that is known, else stretched to full range."""
    if how is not None:
        return Image.fromarray(how.pixels(row.detach()[None])[0])
    values = row.detach().float().cpu()
    scaled = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12) * 255
    pixels = scaled.round().expand(3, -1, -1).permute(1, 2, 0).to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))


def _place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the model's parameters are, and of what precision."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.get_default_dtype()


def _check(inputs: Tensor) -> None:
    if inputs.ndim < 3:
        raise ShapeError(f"got images of shape {tuple(inputs.shape)}; give a batch (b c h w), (b c l) or (b c d h w)")
    if not inputs.is_floating_point():
        raise ShapeError(f"got images of type {inputs.dtype}; give floating numbers, as the model takes them")
    if 0 in inputs.shape:
        raise ShapeError(f"got an empty batch of shape {tuple(inputs.shape)}; give at least one image")
    if inputs.is_meta:
        raise ShapeError("got images on the device 'meta', which hold no values; give them on the model's device")
    # a sum is finite only if all its terms are; where it is not, it may still have overflowed
    if not bool(inputs.detach().sum().isfinite()) and not bool(inputs.isfinite().all()):
        raise ShapeError("the images hold NaN or infinite values; clean them before they are explained")
