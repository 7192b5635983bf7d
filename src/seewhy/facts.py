"""The vocabulary of facts: what a method may ask for, as the names of its positional parameters."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

OF_INPUT = {
    "inputs": "the images as the model takes them",
    "scores": "the score of each image",
    "scores_at": "scores of changed images",
    "differentiable_scores_at": "the same, differentiable with respect to them",
    "input_gradients": "of the score with respect to the images",
    "input_gradients_at": "the same, of changed images",
    "guided_gradients": "the same, by the rule of guided backpropagation at every rectifier",
    "deconvnet_gradients": "the same, by the rule of the deconvnet",
    "bias_gradients": "gradient times bias at every layer that adds one",
    "scorer": "model and question as one module, for other libraries",
}
"""Facts about the images, whatever the layer."""

OF_LAYER = {
    "activations": "what the layer put out",
    "gradients": "of the score with respect to that",
    "gradients_at": "activations and gradients of changed images",
    "linear_gradients": "the gradients where the score is proven to be linear in the activations",
    "hessian_product": "the Hessian of the score with respect to the activations, times these",
    "class_weights": "the weights of the channels' means in the score",
    "score_tail": "scores of changed activations",
    "upsample": "from a map at the layer's grid to one over the image",
}
"""Facts about one layer; of several layers, a method that asks for them makes a map of each."""

OF_LAYERS = {
    "activations_by_layer": "what each layer put out, shallow to deep",
    "gradients_by_layer": "of the score with respect to them",
    "upsample_by_layer": "from maps at their grids to ones over the image",
}
"""Facts about all layers together."""

OF_TOKENS = {
    "attentions": "the attention probabilities of every block",
    "attention_gradients": "of the score with respect to them",
    "attention_gradients_by_depth": "of each block's own score with respect to its attention",
    "queries": "of the last block",
    "keys": "of the last block",
    "values": "of the last block",
    "head_gradients": "of the score with respect to what attention put out there, head by head",
    "token_map": "from a number for each token to a map at the grid of the patches",
    "reading": "how much of each token the score reads at the last block",
}
"""Facts about the tokens and attention of a transformer."""

FACTS = OF_INPUT | OF_LAYER | OF_LAYERS | OF_TOKENS
"""Every fact, in a few words."""

PER_QUESTION = FACTS.keys() - {
    *("inputs", "activations", "activations_by_layer", "upsample", "upsample_by_layer"),
    *("attentions", "queries", "keys", "values", "token_map"),
}
"""The facts that there are one of for each question; a method sees those of one question at a time."""

_ON_IMAGE = {
    *("input_gradients", "input_gradients_at", "guided_gradients", "deconvnet_gradients", "bias_gradients"),
    "upsample_by_layer",
}


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


@lru_cache(256)  # bounded: functions of users are keys too
def needs(function: Callable[..., Any]) -> tuple[str, ...]:
    """The facts a method needs: the names of its positional parameters."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)


@lru_cache(256)
def options(function: Callable[..., Any]) -> dict[str, Option]:
    """A method's options: its keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: Option(p.annotation, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


@lru_cache(256)
def looks_at_layers(function: Callable[..., Any]) -> bool:
    """Whether the method's map is one of a layer, or of several, at all."""
    return bool((OF_LAYER.keys() | OF_LAYERS.keys() | OF_TOKENS.keys()) & set(needs(function)))


@lru_cache(256)
def maps_the_image(function: Callable[..., Any]) -> bool:
    """Whether the method's map has the size of the image, not that of the layer's grid."""
    return bool(_ON_IMAGE & set(needs(function))) or not looks_at_layers(function)
