"""What follows from the facts that a method asks for, and that asking keeps nobody's function alive."""

import gc
import weakref
from functools import partial

import pytest
import torch
from torch import nn

import seewhy
from seewhy.delegates.listed import DELEGATES
from seewhy.facts import FACTS, needs, options
from seewhy.observation import Plan


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_method_that_closes_over_a_model_does_not_keep_it():
    def once():
        model = net()

        def weighed(activations, gradients, *, strength: float = 1.0):
            return strength * (activations * gradients * model[4].weight.sum()).mean(1)

        seewhy.explain(model, IMAGES, method=weighed)
        return weakref.ref(model), weakref.ref(weighed)

    model, method = once()
    gc.collect()
    assert model() is None
    assert method() is None


def test_functions_that_cannot_be_held_weakly_are_read_all_the_same():
    class Bare:
        __slots__ = ()

        def __call__(self, activations, *, strength: float = 2.0):
            return strength * activations.mean(1)

    for function in (Bare(), partial(Bare(), strength=3.0)):
        assert needs(function) == ("activations",)
        assert options(function)["strength"].type is float
        assert seewhy.explain(net(), IMAGES, method=function).map.any()


def test_a_map_is_of_pixels_by_its_facts_and_not_by_its_file():
    def mine(input_gradients):
        return input_gradients.abs().amax(1)

    found, built_in = (seewhy.explain(net(), IMAGES, method=method) for method in (mine, "saliency"))
    assert torch.equal(found.map, built_in.map)
    assert found.of_pixels
    assert built_in.of_pixels


def test_which_methods_are_of_pixels():
    every = {**seewhy.METHODS, **DELEGATES}
    pixels = {"saliency", "input_x_gradient", "integrated_gradients", "smooth_grad"}
    pixels |= {"guided_backprop", "deconvnet", "guided_grad_cam"}  # and not full_grad, which adds whole layers
    lent = {f"captum:{name}" for name in ("gradient_shap", "deep_lift", "deep_lift_shap", "lrp")}
    assert {name for name, row in every.items() if row.of_pixels} == pixels | lent


@pytest.mark.parametrize(
    ("kept", "names"),
    [
        ("leaf", {"input_gradients", "guided_gradients", "deconvnet_gradients"}),
        ("biases", {"bias_gradients"}),
        ("twice", {"hessian_product"}),
        ("tokens", {name for name, fact in FACTS.items() if fact.of == "tokens"}),
        (
            "graph",
            {"class_weights", "hessian_product", "reading"}
            | {name for name in FACTS if "gradients" in name and not name.endswith("_at")},
        ),
    ],
)
def test_what_a_pass_keeps_for_each_fact(kept, names):
    assert {name for name in FACTS if getattr(Plan.of({name}), kept)} == names
