"""Evidence: everything that can be known of one forward pass, by name, computed when first asked for.

This is the one place where models and methods meet. A method names the facts it needs as its positional parameters;
`call` looks them up here. The vocabulary (`facts`) is the properties of `Evidence`, and closed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seewhy.attending import Attending
from seewhy.backward import Backward, Ruled
from seewhy.facts import FACTS, maps_the_image, needs
from seewhy.model.alignment import Placement
from seewhy.model.biases import implicit_bias
from seewhy.model.blocks import Attended
from seewhy.model.capture import INPUT, Capture
from seewhy.model.head import Head
from seewhy.model.observe import outside_inference
from seewhy.model.places import Place
from seewhy.model.replay import Replay
from seewhy.model.scorer import Scorer
from seewhy.tensor import full, resize
from seewhy.types import MethodError, Target

Changed = Callable[[Tensor, Tensor], Tensor]
"""Scores `(m)` of changed images `(m c *s)` or activations `(m c *grid)`, the j-th made from image `rows[j]`."""


def call(
    function: Callable[..., Tensor], evidence: "Evidence", chosen: Mapping[str, Any]
) -> Float[Tensor, "q b *_"] | Float[Tensor, "1 b *_"]:
    """A method's maps for every question; of a method that depends on no question, one map that is true for all."""
    maps = [function(**given, **chosen) for given in arguments(function, evidence)]
    size = evidence.inputs.shape[2:] if maps_the_image(function) else evidence.place.layout.grid
    expected = (len(evidence.inputs), *size)
    for map in cast(list[Any], maps):  # a user's function may return anything
        if not isinstance(map, Tensor) or map.shape != expected:
            got = tuple(map.shape) if isinstance(map, Tensor) else type(map).__name__
            raise MethodError(
                f"the method returned {got}; it returns one map for each image, without channels, here {expected}"
            )
    return torch.stack(maps)


def arguments(function: Callable[..., Any], evidence: "Evidence", *, besides: str = "") -> list[dict[str, Any]]:
    """The facts that a function asks for, by name: for each question, or once if they are the same for all.

    Args:
        function: its positional parameters name facts.
        evidence: where they are.
        besides: a positional parameter that is no fact.
    """
    facts = {name: evidence.fact(name) for name in needs(function) if name != besides}
    asked = {name for name in facts if FACTS[name].each}
    each = range(len(evidence.questions) if asked else 1)
    return [{name: fact[q] if name in asked else fact for name, fact in facts.items()} for q in each]


@dataclass(frozen=True)
class Evidence:
    """The facts about some layers and some questions. Each property is a fact, computed on first use.

    Args:
        capture: the forward pass.
        backward: the questions' backward pass, shared by all layers of the capture.
        places: which captured layers the facts are about, shallow to deep; facts of one layer are those of the last.
        attended: the attentions of the pass, where these were asked for.
        biased: the names of the captured layers that add a bias, with the modules that do.
        head: the model's last linear layer, where it has one; used only if this capture proves that it reads the means.
        replay: runs the model again on changed inputs or activations.
    """

    capture: Capture
    backward: Backward
    places: tuple[Place, ...]
    biased: Mapping[str, nn.Module]
    attended: Attended | None
    head: Head | None
    replay: Replay

    @property
    def questions(self) -> tuple[Target, ...]:
        """What is asked."""
        return self.backward.questions

    @property
    def place(self) -> Place:
        """The layer that facts of one layer are about."""
        return self.places[-1]

    def fact(self, name: str) -> Any:
        """The fact of that name."""
        return getattr(self.tokens if FACTS[name].of == "tokens" else self, name)

    @cached_property
    def tokens(self) -> Attending:
        """The facts about tokens.

        Raises:
            MethodError: the attentions of this pass were not kept.
        """
        if self.attended is None:
            raise MethodError("the attentions of this pass were not kept; name a method that asks for them")
        return Attending(self.backward, self.attended, self.place.layout, self.replay)

    @property
    def alone(self) -> tuple["Evidence", ...]:
        """The facts about each of the layers by itself."""
        return (self,) if len(self.places) < 2 else self._each  # not kept: a cycle would hold the pass's tensors

    @cached_property
    def _each(self) -> tuple["Evidence", ...]:
        return tuple(replace(self, places=(place,)) for place in self.places)

    # About the images

    @cached_property
    def inputs(self) -> Float[Tensor, "b c *s"]:
        """The images as the model got them."""
        return outside_inference(self.replay.inputs)

    @cached_property
    def scores(self) -> Float[Tensor, "q b"]:
        """The score of every question, of every image."""
        return full(torch.stack(self.backward.answers))

    @property
    def scores_at(self) -> Sequence[Changed]:
        """For each question its scores of changed images `(m c *s)`, the j-th made from image `rows[j]`."""
        return [lambda inputs, rows, q=q: self.replay.scores_at((q,), inputs, rows)[0] for q in self.questions]

    @property
    def differentiable_scores_at(self) -> Sequence[Changed]:
        """As `scores_at`, with a graph to the changed images."""
        return [lambda inputs, rows, q=q: self.replay.differentiable_scores_at(q, inputs, rows) for q in self.questions]

    @cached_property
    def input_gradients(self) -> Float[Tensor, "q b c *s"]:
        """d score / d images."""
        return full(self.backward.gradients[INPUT])

    @property
    def input_gradients_at(self) -> Sequence[Changed]:
        """For each question the gradients `(m c *s)` of its scores of changed images with respect to these."""

        def of(question: Target) -> Changed:
            def at(inputs: Tensor, rows: Tensor) -> Tensor:
                passes = self.replay.captures(inputs, rows, (), leaf=True)
                return torch.cat([full(Backward(c, (question,), part).gradients[INPUT][0]) for c, part in passes])

            return at

        return [of(question) for question in self.questions]

    @cached_property
    def guided_gradients(self) -> Float[Tensor, "q b c *s"]:
        """What comes back to the images by the rule of guided backpropagation."""
        return full(self._guided.gradients)

    @cached_property
    def deconvnet_gradients(self) -> Float[Tensor, "q b c *s"]:
        """What comes back to the images by the rule of the deconvnet."""
        return full(self._deconvnet.gradients)

    @cached_property
    def _guided(self) -> Ruled:
        return self.backward.ruled("guided")

    @cached_property
    def _deconvnet(self) -> Ruled:
        return self.backward.ruled("deconvnet")

    def remarks_on(self, facts: Iterable[str]) -> list[str]:
        """What is to be said of these facts, when a method has used them."""
        of = {
            "guided_gradients": lambda: [str(self._guided)],
            "deconvnet_gradients": lambda: [str(self._deconvnet)],
            "scorer": lambda: [remark for scorer in self.scorer for remark in scorer.remarks],
        }
        return [remark for name in facts if name in of for remark in of[name]()]

    @cached_property
    def scorer(self) -> Sequence[Scorer]:
        """For each question a module from changed images and their rows to its scores."""
        return [Scorer(self.replay, question) for question in self.questions]

    @property
    def bias_gradients(self) -> Sequence[Sequence[Float[Tensor, "b c *_"]]]:
        """For each question and layer that adds a bias, d score / d output times what is added, as the layers ran."""

        def of(name: str, module: nn.Module) -> Float[Tensor, "q b c *_"]:
            gradients, bias = full(self.backward.gradients[name]), implicit_bias(module)
            if bias is None:
                raise MethodError(f"layer {name!r} adds no bias")
            channels_last = isinstance(module, nn.Linear)
            laid = gradients.movedim(-1, 2) if channels_last else gradients
            return laid * bias.to(laid).reshape(-1, *[1] * (laid.ndim - 3))

        found = [of(name, module) for name, module in self.biased.items()]
        return [[products[q] for products in found] for q in range(len(self.questions))]

    # About one layer

    @cached_property
    def activations(self) -> Float[Tensor, "b c *grid"]:
        """What the layer put out, in float32 at least."""
        return self._cells(self.capture)

    @cached_property
    def gradients(self) -> Float[Tensor, "q b c *grid"]:
        """d score / d activations.

        Where the model ends in global average pooling and one linear layer, and the graph of this very pass proves it,
        they are known without a backward pass: class weight / number of cells, the same at every cell.
        """
        known = self.pooled_class_weights
        if known is not None:
            cells = self.activations[0, 0].numel()
            ones = (1,) * (self.activations.ndim - 2)
            return (known / cells).reshape(*known.shape, *ones).expand(-1, *self.activations.shape)
        return full(self.place.layout.to_cells(self.backward.gradients[self.place.name]))

    @property
    def gradients_at(self) -> Sequence[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
        """For each question activations and gradients `(m c *grid)` of changed images `(m c *s)`."""
        place = self.place

        def of(question: Target) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
            def at(inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
                activations: list[Tensor] = []
                gradients: list[Tensor] = []
                for capture, part in self.replay.captures(inputs, rows, (place.name,)):
                    found = Backward(capture, (question,), part).gradients[place.name][0]
                    activations.append(self._cells(capture))
                    gradients.append(full(place.layout.to_cells(found)))
                return torch.cat(activations), torch.cat(gradients)

            return at

        return [of(question) for question in self.questions]

    @cached_property
    def linear_gradients(self) -> Sequence[Float[Tensor, "b c *grid"] | None]:
        """The gradients, where score(A') = score(A) + <gradients, A' - A> for any A'; None where that is not proven.

        It is for scores that are sums of logits, behind global average pooling and one linear layer.
        """
        if self.pooled_class_weights is None or self.backward.told is None:
            return [None] * len(self.questions)
        return list(self.gradients)

    @cached_property
    def hessian_product(self) -> Float[Tensor, "q b c *grid"]:
        """H A: the second derivative of the score with respect to the activations, times these."""
        raw = self.capture.activations[self.place.name]
        products = [_hessian_product(score, raw) for score in self.backward.answers]
        return full(self.place.layout.to_cells(torch.stack(products)))

    @cached_property
    def class_weights(self) -> Float[Tensor, "q b c"]:
        """The weight of each channel's mean in the score.

        Raises:
            MethodError: the model does not end in global average pooling of this layer and one linear layer, or it is
                not known what else of its output the question reads.
        """
        if self.pooled_class_weights is None and self._pooled is not None:
            raise MethodError(
                "CAM needs the gradient of the question with respect to the class scores, which a function of an "
                "output of several tensors does not tell; ask by a class, a target such as Probability(3), or sums of "
                "these, or use grad_cam"
            )
        if self.pooled_class_weights is None:
            raise MethodError(
                f"CAM needs a model that ends in global average pooling of the layer and one linear layer, which "
                f"{self.place.name!r} of this model is not followed by; use grad_cam, which generalizes it, or another "
                "layer"
            )
        return self.pooled_class_weights

    @cached_property
    def pooled_class_weights(self) -> Float[Tensor, "q b c"] | None:
        """The class weights; None unless the head reads the means and the question nothing but the scores."""
        known = None if self._pooled is None else self.backward.of_scores(self._pooled.path)
        return None if known is None or self._pooled is None else self._pooled.back(known)

    @cached_property
    def _pooled(self) -> Head | None:
        """The head, where it reads the mean of these activations and puts out the scores."""
        head = self.head
        return head if head and head.reads_mean(self.capture, self.place.name, self.activations) else None

    @property
    def score_tail(self) -> Sequence[Changed]:
        """For each question its scores if the layer had put out these `(m c *grid)`, the j-th for image `rows[j]`."""
        tail = partial(self.replay.score_tail, layer=self.place.name, layout=self.place.layout)
        return [lambda cells, rows, q=q: tail((q,), activations=cells, rows=rows)[0] for q in self.questions]

    @property
    def upsample(self) -> Callable[[Tensor], Tensor]:
        """From maps `(m *grid)` at the layer's grid to maps `(m *s)` over the image, each cell where it looks."""
        return partial(_laid, size=tuple(self.inputs.shape[2:]), placement=self.place.placement)

    # About several layers

    @property
    def activations_by_layer(self) -> Sequence[Float[Tensor, "b c *_"]]:
        """What each layer put out, shallow to deep."""
        return [evidence.activations for evidence in self.alone]

    @property
    def gradients_by_layer(self) -> Sequence[Sequence[Float[Tensor, "b c *_"]]]:
        """For each question the gradients of each layer."""
        found = [evidence.gradients for evidence in self.alone]
        return [[gradients[q] for gradients in found] for q in range(len(self.questions))]

    @property
    def upsample_by_layer(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """For each layer the way of its maps to the image."""
        return [evidence.upsample for evidence in self.alone]

    def _cells(self, capture: Capture) -> Float[Tensor, "b c *grid"]:
        raw = capture.activations[self.place.name]
        return full(self.place.layout.to_cells(raw if capture.differentiable else raw.detach()))


def _hessian_product(score: Float[Tensor, " b"], raw: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(score.sum(), raw, create_graph=True)
        if not gradient.requires_grad:  # the score is linear in the activations
            return torch.zeros_like(gradient)
        along = (gradient * raw.detach()).sum()
    return torch.autograd.grad(along, raw, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


def _laid(map: Float[Tensor, "m *grid"], size: Sequence[int], placement: Placement) -> Float[Tensor, "m *s"]:
    return resize(map, placement.matrices(size, map.shape[1:], dtype=map.dtype, device=map.device))
