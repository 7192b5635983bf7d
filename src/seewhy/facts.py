"""The vocabulary of facts: what a method may ask for, as the names of its positional parameters."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

Of = Literal["image", "layer", "layers", "tokens"]
Keep = Literal["graph", "leaf", "biases", "twice", "tokens"]


@dataclass(frozen=True)
class Fact:
    """What a method may ask for, and what follows from its doing so.

    Args:
        told: in a few words.
        of: what it is about; of several layers, a method that asks for facts about one makes a map of each.
        each: there is one for each question; a method sees those of one question at a time.
        back: a pass back is needed for it.
        keeps: what a pass must keep for it: a graph, also from the images on (`leaf`), the layers that add biases, a
            graph that can be differentiated twice, the attentions.
        on_image: it is laid over the image, whatever layers are asked for, and so is the map.
        pixels: whether it is of single pixels, so that its map is, if no other fact of it covers more; None: neither.
    """

    told: str
    of: Of
    each: bool = True
    back: bool = False
    keeps: tuple[Keep, ...] = ()
    on_image: bool = False
    pixels: bool | None = None


def _of_pixels(told: str, *keeps: Keep) -> Fact:
    return Fact(told, "image", back=True, keeps=keeps, on_image=True, pixels=True)


FACTS: Mapping[str, Fact] = {
    # about the images, whatever the layer
    "inputs": Fact("the images as the model takes them", "image", each=False),
    "scores": Fact("the score of each image", "image"),
    "scores_at": Fact("scores of changed images", "image"),
    "differentiable_scores_at": Fact("the same, differentiable with respect to them", "image"),
    "input_gradients": _of_pixels("of the score with respect to the images", "graph", "leaf"),
    "input_gradients_at": _of_pixels("the same, of changed images"),
    "guided_gradients": _of_pixels(
        "the same, by the rule of guided backpropagation at every rectifier", "graph", "leaf"
    ),
    "deconvnet_gradients": _of_pixels("the same, by the rule of the deconvnet", "graph", "leaf"),
    "bias_gradients": Fact(
        "gradient times bias at every layer that adds one",
        "image",
        back=True,
        keeps=("graph", "biases"),
        on_image=True,
        pixels=False,
    ),
    "scorer": Fact("model and question as one module, for other libraries", "image"),
    # about one layer
    "activations": Fact("what the layer put out", "layer", each=False),
    "gradients": Fact("of the score with respect to that", "layer", back=True, keeps=("graph",)),
    "gradients_at": Fact("activations and gradients of changed images", "layer", back=True),
    "linear_gradients": Fact(
        "the gradients where the score is proven to be linear in the activations", "layer", back=True, keeps=("graph",)
    ),
    "hessian_product": Fact(
        "the Hessian of the score with respect to the activations, times these", "layer", keeps=("graph", "twice")
    ),
    "class_weights": Fact("the weights of the channels' means in the score", "layer", keeps=("graph",)),
    "score_tail": Fact("scores of changed activations", "layer"),
    "upsample": Fact("from a map at the layer's grid to one over the image", "layer", each=False),
    # about all layers together
    "activations_by_layer": Fact("what each layer put out, shallow to deep", "layers", each=False),
    "gradients_by_layer": Fact("of the score with respect to them", "layers", back=True, keeps=("graph",)),
    "upsample_by_layer": Fact("from maps at their grids to ones over the image", "layers", each=False, on_image=True),
    # about the tokens and attention of a transformer
    "attentions": Fact("the attention probabilities of every block", "tokens", each=False, keeps=("tokens",)),
    "attention_gradients": Fact("of the score with respect to them", "tokens", back=True, keeps=("graph", "tokens")),
    "attention_gradients_by_depth": Fact(
        "of each block's own score with respect to its attention", "tokens", back=True, keeps=("graph", "tokens")
    ),
    "queries": Fact("of the last block", "tokens", each=False, keeps=("tokens",)),
    "keys": Fact("of the last block", "tokens", each=False, keeps=("tokens",)),
    "values": Fact("of the last block", "tokens", each=False, keeps=("tokens",)),
    "head_gradients": Fact(
        "of the score with respect to what attention put out there, head by head",
        "tokens",
        back=True,
        keeps=("graph", "tokens"),
    ),
    "token_map": Fact(
        "from a number for each token to a map at the grid of the patches", "tokens", each=False, keeps=("tokens",)
    ),
    "reading": Fact("how much of each token the score reads at the last block", "tokens", keeps=("graph", "tokens")),
}
"""Every fact by its name."""


@dataclass(frozen=True)
class Option:
    """A keyword-only parameter of a method: its type and its default, which is the paper's choice."""

    type: Any
    default: Any

    def takes(self, value: Any) -> bool:
        """Whether a value is of the option's type, as far as that is one of Python's own or a union of such."""
        kinds = get_args(self.type) or (self.type,)
        if inspect.Parameter.empty in kinds or not all(isinstance(kind, type) for kind in kinds):
            return True
        if isinstance(value, int) and not isinstance(value, bool) and float in kinds:
            return True
        return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


@dataclass(frozen=True)
class _Signature:
    needs: tuple[str, ...]
    options: dict[str, Option]


# by the function, held weakly: one that closes over a model shall not keep it
_READ: WeakKeyDictionary[Callable[..., Any], _Signature] = WeakKeyDictionary()


def _signature(function: Callable[..., Any]) -> _Signature:
    try:
        known = _READ.get(function)
    except TypeError:  # neither hashed nor held weakly
        return _read(function)
    if known is None:
        known = _READ[function] = _read(function)
    return known


def _read(function: Callable[..., Any]) -> _Signature:
    parameters = inspect.signature(function).parameters.values()
    return _Signature(
        tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY),
        {p.name: Option(p.annotation, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY},
    )


def needs(function: Callable[..., Any]) -> tuple[str, ...]:
    """The facts a method needs: the names of its positional parameters."""
    return _signature(function).needs


def options(function: Callable[..., Any]) -> dict[str, Option]:
    """A method's options: its keyword-only parameters."""
    return _signature(function).options


def asked_by(function: Callable[..., Any]) -> list[Fact]:
    """The facts that a method asks for, without what is none."""
    return [FACTS[name] for name in needs(function) if name in FACTS]


def looks_at_layers(function: Callable[..., Any]) -> bool:
    """Whether the method's map is one of a layer, or of several, at all."""
    return any(fact.of != "image" for fact in asked_by(function))


def maps_the_image(function: Callable[..., Any]) -> bool:
    """Whether the method's map has the size of the image, not that of the layer's grid."""
    return any(fact.on_image for fact in asked_by(function)) or not looks_at_layers(function)
