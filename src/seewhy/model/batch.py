"""What one forward pass is given: the images, and whatever else the model takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seewhy.model.forms import Channels, Form
from seewhy.model.observe import outside_inference


@dataclass(frozen=True)
class Batch:
    """The images with the model's further arguments.

    Args:
        inputs: the images.
        args: positional arguments, after the images where these are positional.
        kwargs: keyword arguments; here as there, tensors with a row for each image follow the rows.
        name: the keyword by which the model takes the images; None: they are its first positional argument.
        shared: further arguments, by position or keyword, that belong to no image however many rows they have.
        form: how the model takes the images.
    """

    inputs: Float[Tensor, "b c *s"]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    name: str | None = None
    form: Form = field(default_factory=Channels)
    shared: frozenset[int | str] = frozenset()

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def images_only(self) -> bool:
        """Whether the model gets nothing but images."""
        return not self.args and not self.kwargs

    @property
    def rows(self) -> Int[Tensor, " b"]:
        """The image that each row is made from, on the clean pass."""
        return torch.arange(len(self.inputs), device=self.inputs.device)

    @property
    def images(self) -> Tensor:
        """The images as the model takes them."""
        return self.form.of(self.inputs)

    @property
    def given(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """All positional and all keyword arguments; the images are the first of one of them."""
        if self.name is None:
            return (self.images, *self.args), dict(self.kwargs)
        return tuple(self.args), {self.name: self.images, **self.kwargs}

    @property
    def further(self) -> dict[str | int, Any]:
        """The further arguments, by position or keyword."""
        return {**dict(enumerate(self.args)), **self.kwargs}

    def of(self, inputs: Float[Tensor, "b c *s"]) -> "Batch":
        """The same with other images in their places."""
        return replace(self, inputs=inputs)

    def outside_inference(self) -> "Batch":
        """The same with tensors that may be differentiated, where they were made in inference mode."""
        args = tuple(outside_inference(value) for value in self.args)
        kwargs = {name: outside_inference(value) for name, value in self.kwargs.items()}
        return replace(self, inputs=outside_inference(self.inputs), args=args, kwargs=kwargs)

    @property
    def with_rows(self) -> tuple[int | str, ...]:
        """The further arguments, by position or keyword, that have as many rows as there are images."""
        further = (*enumerate(self.args), *self.kwargs.items())
        return tuple(
            key for key, value in further if isinstance(value, Tensor) and value.ndim and len(value) == len(self.inputs)
        )

    def of_rows(self, inputs: Float[Tensor, "m c *s"], rows: Int[Tensor, " m"]) -> "Batch":
        """Images of which the j-th was made from image `rows[j]`, with what belongs to that one."""
        following = set(self.with_rows) - self.shared
        args = tuple(value[rows] if key in following else value for key, value in enumerate(self.args))
        kwargs = {key: value[rows] if key in following else value for key, value in self.kwargs.items()}
        return replace(self, inputs=inputs, args=args, kwargs=kwargs)
