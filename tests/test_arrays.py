"""Maps from arrays: the same as `explain` gives of the model that made them; on TensorFlow and JAX where these are."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy.maps import asked
from seewhy.types import MethodError, ShapeError

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
TOLD = {"activations", "gradients", "activations_by_layer", "gradients_by_layer", "upsample", "upsample_by_layer"}
OF_ARRAYS = [name for name in seewhy.METHODS if asked(name, {}).needed <= TOLD and name != "best"]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 6 * 8, 4))
    body = [nn.Conv2d(3, 6, 3, 2, 1), nn.Softplus(), nn.Conv2d(6, 8, 3, 2, 1), nn.Softplus()]
    return nn.Sequential(*body, *head).double().eval()


X = torch.rand(2, 3, 24, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def arrays(net, layer=3, target=1):
    """Activations and gradients of a layer, and the scores, by hand."""
    cells = net[: layer + 1](X).detach().requires_grad_()
    scores = net[layer + 1 :](cells)[:, target]
    (gradients,) = torch.autograd.grad(scores.sum(), cells)
    return cells.detach(), gradients, scores.detach()


@pytest.mark.filterwarnings("ignore::seewhy.MapWarning")
@pytest.mark.parametrize("method", OF_ARRAYS)
def test_arrays_give_the_map_of_the_model_that_made_them(net, method):
    cells, gradients, scores = arrays(net)
    expected = seewhy.explain(net, X, 1, method, layer="3", align="tile")
    e = seewhy.from_arrays(
        method, cells, gradients, images=X, scores=scores, target=["dog", "cat"], model="mine", layout="b c h w"
    )
    assert torch.equal(e.map, expected.map)
    torch.testing.assert_close(e.scores, expected.scores)
    assert torch.equal(e.raw.get("activations", e.map), expected.raw.get("3", expected.map))
    assert (e.title, e.options, e.signed, e.units) == (
        expected.title,
        expected.options,
        expected.signed,
        expected.units,
    )
    assert (e.target, e.class_indices, e.probabilities, e.model) == (("dog", "cat"), (None,) * 2, (None,) * 2, "mine")
    assert e[0].overlay().tobytes() == expected[0].overlay().tobytes()
    assert {note.replace("'activations'", "'3'") for note in e.notes} <= set(expected.notes)


def test_there_are_methods_of_arrays():
    assert {"grad_cam", "hires_cam", "layer_cam", "xgrad_cam", "grad_cam_pp", "eigen_cam", "dff"} <= set(OF_ARRAYS)


def test_layers_may_be_called_anything(net):
    cells, gradients, _ = arrays(net)
    plain = seewhy.from_arrays("hires_cam", cells, gradients, images=X, layout="b c h w")
    for name in ("block4.conv", "forward", "training", "_gradients", "top/conv"):
        e = seewhy.from_arrays("hires_cam", {name: cells}, {name: gradients}, images=X, layout="b c h w")
        assert torch.equal(e.map, plain.map)
    two = {"a.b": cells, "a_b": cells * 2, "a": cells, "forward": cells, "forward_": cells}
    e = seewhy.from_arrays("hires_cam", two, dict.fromkeys(two, gradients), images=X, layout="b c h w")
    assert tuple(e.raw) == ("a.b", "a_b", "a", "forward_", "forward__")
    assert torch.equal(e.raw["a_b"], 2 * e.raw["a.b"])


@pytest.mark.filterwarnings("ignore::seewhy.MapWarning")
def test_layers_of_a_dictionary_are_fused_as_those_of_a_model(net):
    cells, gradients = ({name: arrays(net, int(name))[n] for name in ("1", "3")} for n in (0, 1))
    for method in ("hires_cam", "sharp", "winsor_cam"):
        expected = seewhy.explain(net, X, 1, method, layer=["1", "3"], align="tile")
        assert torch.equal(seewhy.from_arrays(method, cells, gradients, images=X, layout="b c h w").map, expected.map)


def test_axes_are_those_that_the_layout_names_and_options_are_the_methods(net):
    cells, gradients, _ = arrays(net)
    last = [each.movedim(1, -1).numpy() for each in (cells, gradients)]
    shown = X.movedim(1, -1).numpy()
    for options, rectify in (({}, False), ({"rectify": False}, None)):
        expected = seewhy.explain(net, X, 1, options={"rectify": False}, layer="3", align="tile")
        e = seewhy.from_arrays("grad_cam", *last, images=shown, layout="b h w c", options=options, rectify=rectify)
        assert torch.equal(e.map, expected.map)
        assert e.signed
    tokens = [each.flatten(2).movedim(1, -1) for each in (cells, gradients)]
    with_class = [torch.cat([torch.ones_like(each[:, :1]), each], 1) for each in tokens]
    e = seewhy.from_arrays("grad_cam", *with_class, images=X, layout="b 1+6x8 c", rectify=False)
    assert e.map.std() > 0
    assert e.raw["activations"].shape == (2, 6, 8)


def test_without_images_the_map_is_the_layers_own(net):
    cells, gradients, _ = arrays(net)
    e = seewhy.from_arrays("hires_cam", cells.movedim(1, -1), gradients.movedim(1, -1), layout="bhwc")
    torch.testing.assert_close(e.map, (cells * gradients).sum(1))
    assert e.pictures == (None, None)
    assert e.map.dtype == torch.float64


def test_a_score_that_nobody_gave_is_no_number(net, tmp_path):
    cells, gradients, _ = arrays(net)
    e = seewhy.from_arrays("hires_cam", cells, gradients, images=X, layout="b c h w")
    assert e.scores.isnan().all()
    (*_, manifest) = e.save(tmp_path)
    assert [each["score"] for each in json.loads(manifest.read_text())["images"]] == [None, None]
    assert e[0].overlay().size == (32, 24)


def test_maps_of_arrays_lie_on_photos(net, tmp_path):
    cells, gradients, scores = arrays(net)
    how = seewhy.Preprocess((24, 32), "squash")
    photos = np.random.default_rng(0).integers(0, 256, (2, 48, 80, 3), dtype=np.uint8)
    e = seewhy.from_arrays(
        "hires_cam", cells, gradients, images=photos, scores=scores, target="dog", preprocess=how, layout="b c h w"
    )
    assert e[1].overlay().size == (80, 48)
    assert {path.suffix for path in e.save(tmp_path)} == {".png", ".npz", ".json"}
    alone = seewhy.from_arrays(
        "hires_cam", cells[:1], gradients[:1], images=photos[0], preprocess=how, layout="b c h w"
    )
    assert torch.equal(alone.map[0], e.map[0])


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (
            ("score_cam",),
            MethodError,
            "score_cam needs scores_at (scores of changed images), which these arrays do not",
        ),
        (("best",), MethodError, "best needs activations and gradients of changed images, which these arrays do not"),
        (("cam",), MethodError, "cam needs class_weights ("),
        (("gradcm",), MethodError, "no method 'gradcm'"),
        (("grad_cam", {"gradients": None}), MethodError, "take a method of activations, or give gradients"),
        (("grad_cam", {"gradients": X}), ShapeError, "give one of each layer, of the same shape"),
        (("grad_cam", {"scores": [1, 2, 3]}), ShapeError, "3 scores and 3 targets; give a row, a score and"),
        (("grad_cam", {"target": ["a"]}), ShapeError, "2 scores and 1 targets"),
        (("grad_cam", {"images": X[:1]}), ShapeError, "got 1 images for activations of 2; give one for each row"),
        (("grad_cam", {"activations": "words"}), ShapeError, "got str as activations, which is no array of numbers"),
        (("grad_cam", {"gradients": torch.full((2, 8, 6, 8), torch.nan)}), ShapeError, "hold NaN, infinite values"),
        (
            ("grad_cam", {"activations": 3, "gradients": 4}),
            ShapeError,
            "activations are of shape (); give a row for each image, with channels and places: (b h w c), (b c h w) or",
        ),
        (("grad_cam", {"activations": {}}), ShapeError, "got an empty dictionary as activations; give what at least"),
        (("grad_cam", {"layout": "b n c w"}), ShapeError, "give images=, whose size tells the grid"),
    ],
)
def test_arrays_that_do_not_do_get_one_sentence(net, given, error, text):
    method, *changes = given
    cells, gradients, _ = arrays(net)
    usual = {"activations": cells, "gradients": gradients, "layout": "b c h w"}
    with pytest.raises(error) as raised:
        seewhy.from_arrays(method, **usual | (changes[0] if changes else {}))
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


# Keras on other backends, by the recipes of the page

MADE = """
import keras, numpy as np, sys
keras.utils.set_random_seed(0)
start = keras.Input((24, 20, 3))
options = {"padding": "same", "activation": "relu"}
a = keras.layers.Conv2D(6, 3, strides=2, name="first", **options)(start)
b = keras.layers.Conv2D(8, 3, name="second", **options)(a)
end = keras.layers.Dense(4)(keras.layers.Flatten()(b))
model = keras.Model(start, end)
rng = np.random.default_rng(0)
model.set_weights([rng.normal(0, 0.2, each.shape).astype("float32") for each in model.get_weights()])
x, c = rng.normal(size=(2, 24, 20, 3)).astype("float32"), 1
"""
SAVED = """
given = dict(images=x, layout="b h w c", rectify=False)
maps = {name: seewhy.from_arrays(name, A, G, **given).map for name in ("grad_cam", "hires_cam")}
np.savez(sys.argv[1], page=e.map, scores=e.scores, **maps)
"""
ON_TORCH = """
import seewhy, torch
asked = dict(target=c, layer="second", align="tile")
x = torch.from_numpy(x)
e = seewhy.explain(model, x, **asked)
names = ("grad_cam", "hires_cam")
maps = {name: seewhy.explain(model, x, method=name, rectify=False, **asked).map for name in names}
np.savez(sys.argv[1], page=e.map, scores=e.scores, **maps)
"""


def keras_on(backend, code, file):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, "-c", MADE + code, str(file)], check=True, env=environment)
    return np.load(file)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_pages_recipe_for_keras_gives_the_maps_of_the_torch_backend(backend, tmp_path):
    for library in ("keras", backend):
        if find_spec(library) is None:
            pytest.skip(f"needs {library}: pip install keras {backend}")
    (recipe,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"import {backend}" in
                 code.replace("keras, seewhy, ", "")]  # fmt: skip
    assert len(recipe.strip().splitlines()) <= 12
    theirs = keras_on(backend, recipe + SAVED, tmp_path / "theirs.npz")
    ours = keras_on("torch", ON_TORCH, tmp_path / "ours.npz")
    assert ours["page"].any()
    for name in ours.files:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, atol=1e-5 * np.abs(ours[name]).max())
