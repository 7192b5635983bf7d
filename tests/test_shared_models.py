"""The networks of ../shared/data do what its README says they do: without that, nothing measured on them counts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

import shared_dense
import shared_models
import shared_vqa
from seewhy.data.image import read
from seewhy.zoo import Loaded


@pytest.fixture(autouse=True)
def inference(shared: Path):
    with torch.no_grad():
        yield


def outputs(loaded: Loaded, pictures: list) -> torch.Tensor:
    assert loaded.preprocess is not None
    return torch.cat([loaded.module(loaded.preprocess(read(picture))[0][None]) for picture in pictures])


def entries(shared: Path, folder: str) -> list[dict]:
    return json.loads((shared / folder / "labels.json").read_text())


def right(loaded: Loaded, shared: Path, folder: str) -> int:
    labeled = entries(shared, folder)
    predicted = outputs(loaded, [shared / entry["file"] for entry in labeled]).argmax(1).tolist()
    return sum(p == entry.get("index", entry.get("label")) for p, entry in zip(predicted, labeled, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "key", "expected"),
    [(shared_models.mobilenet_v2, "mobilenet_v2", 47), (shared_models.squeezenet, "squeezenet1_0", 34)],
)
def test_imagenet_networks_say_what_was_recorded(
    shared: Path, build: Callable[[], Loaded], key: str, expected: int
) -> None:
    labeled, loaded = entries(shared, "imagenet"), build()
    logits = outputs(loaded, [shared / entry["file"] for entry in labeled])
    truth = torch.tensor([entry["index"] for entry in labeled])
    assert (logits.argmax(1) == truth).sum() == expected
    assert logits.argmax(1).tolist() == [entry[key]["top1"] for entry in labeled]
    probability = logits.softmax(1)[torch.arange(len(truth)), truth]
    recorded = torch.tensor([entry[key]["p_label"] for entry in labeled])
    assert (probability - recorded).abs().max() < 1e-3
    assert all(loaded.labels and loaded.labels[entry["index"]] == entry["name"] for entry in labeled)


@pytest.mark.slow
def test_tiny_darknet_is_as_accurate_as_on_the_readmes_200_photos(shared: Path) -> None:
    found = right(shared_models.tiny_darknet(), shared, "imagenet")
    assert 0.675 - 0.12 < found / 62 < 0.675 + 0.12  # two standard errors of 62 photos


def test_tiny_darknets_last_convolution_is_the_class_activation_map() -> None:
    network = shared_models.tiny_darknet().module.double()
    maps: list[torch.Tensor] = []
    handle = network.get_submodule("conv16").register_forward_hook(lambda module, inputs, output: maps.append(output))
    logits = network(torch.rand(2, 3, 96, 64, dtype=torch.float64))
    handle.remove()
    assert maps[0].shape == (2, 1000, 6, 4)
    torch.testing.assert_close(maps[0].mean((2, 3)), logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "folder", "claimed"),
    [
        (shared_models.lenet5, "mnist", 0.987),
        (shared_models.vit_tiny_mnist, "mnist", 0.943),
        (lambda: shared_models.cifar10_resnet(20), "cifar10", 0.81),
        (lambda: shared_models.cifar10_resnet(56), "cifar10", 0.84),
    ],
)
def test_small_classifiers_reach_their_accuracy(shared: Path, build: Callable, folder: str, claimed: float) -> None:
    spread = 2 * (claimed * (1 - claimed) / 100) ** 0.5  # the claims are about 600 pictures, here are 100 of them
    assert abs(right(build(), shared, folder) / 100 - claimed) <= spread + 0.005


def test_tiny_vgg_names_14_of_its_20_pictures(shared: Path) -> None:
    order = ["boat", "bug", "pizza", "pepper", "bus", "koala", "espresso", "panda", "orange", "car"]
    files = sorted((shared / "tiny_vgg").glob("*.jpeg"))
    predicted = outputs(shared_models.tiny_vgg(), files).argmax(1).tolist()
    assert len(files) == 20
    assert sum(order[p] == file.name.split("_")[0] for p, file in zip(predicted, files, strict=True)) == 14


def test_mini_xception_sees_the_astronaut_smile() -> None:
    data = pytest.importorskip("skimage.data", reason="needs the extra demo")
    face = Image.fromarray(data.astronaut()).crop((170, 60, 280, 190))
    loaded = shared_models.mini_xception()
    assert outputs(loaded, [face]).softmax(1)[0, shared_models.EMOTIONS.index("happy")] > 0.995


def test_fastestdet_finds_the_dog_the_bicycle_and_the_car(shared: Path) -> None:
    loaded = shared_dense.fastestdet()
    output = outputs(loaded, [shared / "demo" / "darknet_dog.jpg"])[0]
    best: dict[str, shared_dense.Detection] = {}
    for detection in shared_dense.detections(output, 0.5):
        assert loaded.labels is not None
        best.setdefault(loaded.labels[detection.label], detection)
    # the places of the three in the photo of 768x576, read off by eye, as fractions
    places = {"dog": (0.17, 0.38, 0.41, 0.94), "bicycle": (0.15, 0.22, 0.74, 0.74), "car": (0.61, 0.13, 0.90, 0.30)}
    assert set(places) <= set(best)
    assert all(overlap(best[name].box, place) > 0.6 for name, place in places.items())


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared)


@pytest.mark.slow
def test_deeplab_segments_the_cat_and_the_dog(shared: Path) -> None:
    loaded = shared_dense.deeplabv3()
    logits = outputs(loaded, [shared / "demo" / "coral_cat.jpg", shared / "demo" / "dog_cat.jpg"])
    assert logits.shape == (2, 21, 513, 513)
    share = [(logits.argmax(1) == index).flatten(1).double().mean(1).tolist() for index in range(21)]
    cat, dog, background = (shared_dense.VOC.split().index(name) for name in ("cat", "dog", "background"))
    assert 0.35 < share[cat][0] < 0.55
    assert share[cat][0] + share[background][0] > 0.99
    assert share[dog][1] > 0.4
    assert share[cat][1] > 0.02


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what shape is in the image?", "circle"),
        ("what color is the shape?", "red"),
        ("is there a red shape?", "yes"),
        ("is there a blue shape?", "no"),
        ("does the image contain a triangle?", "no"),
    ],
)
def test_easy_vqa_answers_questions_about_a_red_circle(question: str, answer: str) -> None:
    picture = Image.new("RGB", (64, 64), (238, 236, 240))
    ImageDraw.Draw(picture).ellipse((20, 20, 42, 42), fill=(255, 0, 0))
    asked = shared_vqa.easy_vqa(question)
    probability = outputs(asked, [picture]).softmax(1)[0]
    assert shared_vqa.ANSWERS.split(",")[int(probability.argmax())] == answer
    assert probability.max() > 0.9
    both = shared_vqa.easy_vqa()
    assert both.preprocess is not None
    direct = both.module(both.preprocess(read(picture))[0][None], shared_vqa.words(question))
    torch.testing.assert_close(direct.softmax(1)[0], probability)
