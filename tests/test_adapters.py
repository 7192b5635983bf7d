"""Models of other libraries: Keras on its torch backend, and ONNX files; skipped where these are not installed."""

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

import seewhy
from seewhy.types import ModelError
from seewhy.zoo import onnx_models
from seewhy.zoo.keras_models import OTHER_BACKEND

X = torch.randn(2, 24, 20, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("keras", reason="needs Keras 3: pip install 'seewhy[keras]'")
    if library.backend.backend() != "torch":
        pytest.skip("Keras runs on another backend")
    library.utils.set_random_seed(0)
    return library


def functional(keras, inner=False, data_format="channels_last"):
    shape = (24, 20, 3) if data_format == "channels_last" else (3, 24, 20)
    keras.utils.set_random_seed(0)
    options = {"padding": "same", "activation": "relu", "data_format": data_format}
    x = start = keras.Input(shape)
    x = keras.layers.Conv2D(6, 3, strides=2, name="first", **options)(x)
    if inner:
        body = keras.Input(x.shape[1:])
        x = keras.Model(body, keras.layers.Conv2D(8, 3, name="second", **options)(body), name="body")(x)
    else:
        x = keras.layers.Conv2D(8, 3, name="second", **options)(x)
    x = keras.layers.GlobalAveragePooling2D(data_format=data_format)(x)
    return keras.Model(start, keras.layers.Dense(4)(x))


def written_out(model, target):
    """Grad-CAM of the last convolution by its formula, with Keras' own layers called one after the other."""
    features = model.layers[2](model.layers[1](X)).detach().requires_grad_()
    scores = model.layers[4](model.layers[3](features))[:, target]
    (gradient,) = torch.autograd.grad(scores.sum(), features)
    return torch.einsum("bhwc,bc->bhw", features, gradient.mean((1, 2))).relu().detach(), scores.detach()


@pytest.mark.parametrize("inner", [False, True])
def test_grad_cam_of_a_keras_model_is_the_papers(keras, inner):
    model = functional(keras, inner)
    e = seewhy.explain(model, X, 2, align="tile")
    expected, scores = written_out(model, 2)
    name = "body/second" if inner else "second"
    assert e.raw.keys() <= {name, "body"}
    torch.testing.assert_close(next(iter(e.raw.values())), expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(e.scores, scores)
    assert e.map.shape == (2, 24, 20)
    assert e.pictures[0] is not None
    assert "images: read as (b h w c), as the model takes them; maps are without the channels" in e.notes


@pytest.mark.parametrize("method", ["hires_cam", "score_cam", "ablation_cam", "eigen_cam", "saliency", "occlusion"])
def test_channels_first_and_last_give_the_same_maps(keras, method):
    last, first = functional(keras), functional(keras, data_format="channels_first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras' own, of copying arrays
        first.set_weights(last.get_weights())
    maps = [
        seewhy.explain(last, X, 1, method, align="tile").map,
        seewhy.explain(first, X.permute(0, 3, 1, 2), 1, method, align="tile").map,
    ]
    assert maps[0].any()
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-6)


def test_a_keras_model_is_left_as_it_was_and_its_layers_are_named(keras):
    model = functional(keras)
    before, output = [set(vars(layer)) for layer in model.layers], model(X).detach()
    assert [found.name for found in seewhy.layers(model, X)] == ["first", "second"]
    named = seewhy.explain(model, X, 1, layer="first")
    assert named.raw["first"].shape == (2, 12, 10)
    assert [set(vars(layer)) for layer in model.layers] == before
    assert torch.equal(model(X).detach(), output)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_new_weights_of_a_keras_model_are_seen(keras):
    model = functional(keras)
    first = seewhy.explain(model, X, 1).scores
    model.layers[-1].kernel.assign(2 * model.layers[-1].kernel)
    torch.testing.assert_close(seewhy.explain(model, X, 1).scores, 2 * first)


def test_a_sequential_model_that_ends_in_a_softmax_and_layers_of_one_name(keras):
    layers = keras.layers
    model = keras.Sequential([keras.Input((24, 20, 3)), layers.Conv2D(5, 3, activation="relu", name="conv")])
    model.add(layers.GlobalMaxPooling2D())
    model.add(layers.Dense(3, activation="softmax"))
    e = seewhy.explain(model, X, seewhy.Logit(1) - seewhy.Logit(0))
    assert e.layers == ("conv",)
    assert any("probabilities p of a softmax" in note for note in e.notes)
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="forward")])
    with pytest.raises(ModelError, match="has the name 'forward', which is taken; give it one of its own"):
        seewhy.explain(inner, X, 1)


def test_a_photo_becomes_what_a_keras_model_takes(keras):
    how = seewhy.Preprocess((24, 20), "squash", mean=(0.0,) * 3, std=(1.0,) * 3)
    photo = (torch.rand(48, 40, 3, generator=torch.Generator().manual_seed(1)) * 255).byte().numpy()
    ready, _ = how(seewhy.read(photo))
    model = functional(keras)
    from_photo, from_tensor = (
        seewhy.explain(model, photo, 1, preprocess=how),
        seewhy.explain(model, ready[None].permute(0, 2, 3, 1), 1),
    )
    torch.testing.assert_close(from_photo.map, from_tensor.map)
    assert from_photo[0].on_photo().shape == (48, 40)


def test_a_keras_model_of_another_backend_is_told_the_way_out():
    code = """
import seewhy, torch
model = type("Functional", (), {"__module__": "keras.src.models.functional", "layers": []})()
try:
    seewhy.explain(model, torch.zeros(1, 8, 8, 3))
except seewhy.ModelError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == OTHER_BACKEND


# ONNX


@pytest.fixture
def network(tmp_path):
    """A small network as an ONNX file, and by its formulas."""
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'seewhy[onnx]'")
    pytest.importorskip("onnx2torch", reason="needs onnx2torch: pip install 'seewhy[onnx]'")
    torch.manual_seed(0)
    weights = {"k": torch.randn(5, 3, 3, 3), "kb": torch.randn(5), "w": torch.randn(4, 5), "wb": torch.randn(4)}
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Conv", ["x", "k", "kb"], ["a"], pads=[1] * 4, kernel_shape=[3, 3]),
        node("Relu", ["a"], ["f"]),
        node("GlobalAveragePool", ["f"], ["p"]),
        node("Flatten", ["p"], ["q"]),
        node("Gemm", ["q", "w", "wb"], ["y"], transB=1),
    ]
    kind = onnx.TensorProto.FLOAT
    given, made = tensor("x", kind, ["n", 3, 20, 24]), tensor("y", kind, ["n", 4])
    stored = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "net", [given], [made], stored)
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    return path, weights


def test_an_onnx_file_is_explained_as_the_network_that_it_holds(network):
    path, weights = network
    x = X.permute(0, 3, 2, 1)
    loaded = seewhy.load(f"onnx:{path}")
    e = seewhy.explain(loaded, x, 1, align="tile")
    features = F.conv2d(x, weights["k"], weights["kb"], padding=1).relu()
    expected = torch.einsum("bchw,c->bhw", features, weights["w"][1] / (20 * 24)).relu()
    torch.testing.assert_close(next(iter(e.raw.values())), expected, rtol=1e-4, atol=1e-6)
    assert loaded.notes == ("converted from net.onnx by onnx2torch; what it computes may differ in the last digits",)


def test_what_is_wrong_with_an_onnx_file_is_told(network, tmp_path):
    path, _ = network
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    for name, options, text in (
        ("none.onnx", {}, "no file"),
        (str(path), {"weights": "random"}, "brings its own weights; leave weights= out"),
        (str(tmp_path / "broken.onnx"), {}, "broken.onnx cannot be converted by onnx2torch ("),
    ):
        with pytest.raises(ModelError) as error:
            seewhy.load(f"onnx:{name}", **options)
        assert text in str(error.value)


def test_without_onnx2torch_it_is_said_what_to_install(monkeypatch):
    def missing(module: str, extra: str, needed_by: str) -> Mapping[str, object]:
        raise ModelError(f"{needed_by} needs {module}: seewhy[{extra}]")

    monkeypatch.setattr(onnx_models, "optional", missing)
    with pytest.raises(ModelError, match=r"^onnx:net.onnx needs onnx2torch: seewhy\[onnx\]$"):
        seewhy.load("onnx:net.onnx")


def test_another_reason_than_a_missing_file_is_told_whatever_the_converter_raises(monkeypatch, tmp_path):
    def refuse(_path: object) -> None:
        raise NotImplementedError("Converter is not implemented (OperationDescription('Loop'))\nmore")

    monkeypatch.setattr(onnx_models, "optional", lambda module, extra, needed_by: SimpleNamespace(convert=refuse))
    (tmp_path / "net.onnx").touch()
    with pytest.raises(ModelError) as error:
        seewhy.load(f"onnx:{tmp_path / 'net.onnx'}")
    assert str(error.value) == (
        "net.onnx cannot be converted by onnx2torch (NotImplementedError: Converter is not implemented "
        "(OperationDescription('Loop'))); export it anew with opset 13 to 16, or pass the module that it was exported "
        "from"
    )
