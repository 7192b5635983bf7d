"""Real networks on real photos: they see what is there, and the heat lies on it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import seewhy
import shared_models


@dataclass(frozen=True)
class Boxed:
    """A photo with objects of one class, their boxes (x0, y0, x1, y1) in pixel edges, and the class that fits best."""

    file: Path
    boxes: tuple[tuple[int, int, int, int], ...]
    target: int

    def holds(self, row: float, column: float) -> bool:
        """Whether a place lies in one of the boxes."""
        return any(y0 <= row < y1 and x0 <= column < x1 for x0, y0, x1, y1 in self.boxes)

    def overlap(self, box: tuple[int, int, int, int]) -> float:
        """Intersection over union with the nearest of the boxes."""
        return max(_overlap(own, box) for own in self.boxes)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


@pytest.fixture(scope="module")
def clear(shared: Path) -> list[Boxed]:
    """Photos chosen by what is on them, not by the maps: a class recognised with p > .5 on 3 to 45 % of the picture."""
    chosen: list[Boxed] = []
    for entry in json.loads((shared / "voc" / "boxes.json").read_text(encoding="utf-8")):
        for name, known in entry["imagenet"].items():
            corners = [each["box"] for each in entry["objects"] if each["cls"] == name]
            boxes = tuple((x0 - 1, y0 - 1, x1, y1) for x0, y0, x1, y1 in corners)  # counted from 1, both ends in
            area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) / (entry["width"] * entry["height"])
            if known["group_prob"] > 0.5 and 0.03 < area < 0.45:
                chosen.append(Boxed(shared / entry["file"], boxes, known["best_index"]))
    return chosen


@pytest.fixture(scope="module")
def embedded() -> Iterator[seewhy.Loaded]:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra demo")
    return seewhy.load()


# the embedded network on the photos of scikit-image


@pytest.mark.parametrize(
    ("name", "label", "least"),
    [("chelsea", "Egyptian cat", 0.7), ("coffee", "espresso", 0.85), ("rocket", "drilling platform", 0.5)],
)
def test_the_embedded_network_on_free_photos(embedded: seewhy.Loaded, name: str, label: str, least: float) -> None:
    (item,) = seewhy.explain(embedded, f"skimage:{name}")
    assert (item.name, item.target) == (name, label)
    assert item.probability > least
    assert item.overlay().size == seewhy.read(f"skimage:{name}").image.size
    assert item.on_photo().shape == item.overlay().size[::-1]


@pytest.mark.parametrize(
    ("name", "target", "around"),
    [("chelsea", "Egyptian cat", (40, 20, 380, 300)), ("coffee", "espresso", (170, 15, 420, 255))],
)
def test_the_heat_lies_on_the_cats_face_and_in_the_cup(
    embedded: seewhy.Loaded, name: str, target: str, around: tuple[int, int, int, int]
) -> None:
    x0, y0, x1, y1 = around
    for method in seewhy.METHODS:
        if seewhy.METHODS[method].family not in ("gradient", "presets"):
            continue
        item = seewhy.explain(embedded, f"skimage:{name}", target, method)[0]
        row, column = item.peak()
        assert y0 <= row < y1, method
        assert x0 <= column < x1, method
        heat = item.heat()
        inside = heat[y0:y1, x0:x1].mean()
        assert inside > 1.5 * (heat.sum() - heat[y0:y1, x0:x1].sum()) / (heat.numel() - (y1 - y0) * (x1 - x0)), method


def test_dog_and_cat_of_one_photo(embedded: seewhy.Loaded, shared: Path) -> None:
    photo = shared / "demo" / "both.png"  # the dog sits above, the cat lies below
    dog, cat = seewhy.compare(embedded, photo, ["bull mastiff", "tiger cat"])
    assert dog[0].peak()[0] < 110 < cat[0].peak()[0]
    (contrast,) = seewhy.compare(embedded, photo, [seewhy.Logit("bull mastiff") - seewhy.Logit("tiger cat")])
    assert contrast[0].peak()[0] < 110


# networks of the shared data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "hits", "aside", "overlap"),
    [
        (seewhy.load, 0.9, 0.7, 0.34),
        (shared_models.mobilenet_v2, 0.8, 0.7, 0.38),
        (shared_models.tiny_darknet, 0.95, 0.85, 0.54),
    ],
    ids=["efficientnet_lite0", "mobilenet_v2", "tiny_darknet"],
)
def test_the_heat_lies_on_the_object(
    clear: list[Boxed], build: Callable[[], seewhy.Loaded], hits: float, aside: float, overlap: float
) -> None:
    network = build()
    assert len(clear) == 38
    items = [seewhy.explain(network, photo.file, photo.target)[0] for photo in clear]
    found = np.array([photo.holds(*item.peak()) for photo, item in zip(clear, items, strict=True)])
    assert found.mean() >= hits
    sizes = [item.on_photo().shape for item in items]
    off = [not photo.holds((h - 1) / 2, (w - 1) / 2) for photo, (h, w) in zip(clear, sizes, strict=True)]
    assert found[off].mean() >= aside  # where a guess at the middle of the photo always misses
    boxes = [item.boxes() for item in items]
    for (box,), (height, width) in zip(boxes, sizes, strict=True):
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
    ours = np.mean([photo.overlap(box.xyxy) for photo, (box,) in zip(clear, boxes, strict=True)])
    whole = np.mean([photo.overlap((0, 0, w, h)) for photo, (h, w) in zip(clear, sizes, strict=True)])
    assert ours > overlap > whole
