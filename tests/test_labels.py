"""Classes found by what a person would type."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import seewhy
from seewhy.labels import find_label, read_labels
from seewhy.types import ModelError, TargetError
from seewhy.zoo.efficientnet import imagenet_labels

LABELS = (
    "tench, Tinca tinca",
    "tabby, tabby cat",
    "Cardigan, Cardigan Welsh corgi",
    "cardigan",
    "crane",
    "crane",
    "cat",
)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("tench", 0),
        ("Tinca tinca", 0),
        ("TINCA  tinca ", 0),
        ("tench, Tinca tinca", 0),
        ("tabby_cat", 1),
        ("Cardigan", 2),
        ("cardigan", 3),
        ("cat", 6),
    ],
)
def test_a_label_is_found_by_any_synonym_and_exact_spelling_wins(text: str, index: int) -> None:
    assert find_label(LABELS, text) == index


def test_an_ambiguous_label_lists_its_candidates() -> None:
    with pytest.raises(TargetError) as error:
        find_label(LABELS, "CARDIGAN")
    assert str(error.value) == (
        "label 'CARDIGAN' names 2 classes, it must name one: 'Cardigan, Cardigan Welsh corgi' (2), 'cardigan' (3); "
        "give the full label or the index"
    )
    with pytest.raises(TargetError, match=r"'crane' names 2 classes, .*: 'crane' \(4\), 'crane' \(5\); give"):
        find_label(LABELS, "crane")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("taby", r"closest 'tabby, tabby cat' \(1\); give a label or an index from 0 to 6$"),
        ("corgi", r"closest 'Cardigan, Cardigan Welsh corgi' \(2\)"),
        ("qqqq", r"no label 'qqqq'; give a label or an index from 0 to 6$"),
        ("", r"no label ''; give a label"),
        ("4", r"no label '4'; give a label"),
    ],
)
def test_an_unknown_label_lists_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(TargetError, match=nearest):
        find_label(LABELS, text)


@pytest.mark.parametrize(
    ("text", "index"),
    [("Egyptian cat", 285), ("tabby cat", 281), ("red panda", 387), ("polar bear", 296), ("maillot tank suit", 639)],
)
def test_imagenet_names(text: str, index: int) -> None:
    assert find_label(imagenet_labels(), text) == index


def test_imagenets_ambiguous_names_are_asked_back() -> None:
    with pytest.raises(TargetError, match=r"'crane bird, crane' \(134\), 'crane, construction crane' \(517\)"):
        find_label(imagenet_labels(), "crane")
    with pytest.raises(TargetError, match=r"'maillot' \(638\), 'maillot tank suit, maillot, tank suit' \(639\)"):
        find_label(imagenet_labels(), "maillot")


def test_imagenets_names_are_in_order_and_few_are_ambiguous(shared: Path) -> None:
    classes = json.loads((shared / "imagenet_classes.json").read_text())
    assert len(imagenet_labels()) == 1000
    assert [label.split(",")[0] for label in imagenet_labels()] == [entry["name"] for entry in classes]
    owners: dict[str, set[int]] = {}
    for index, label in enumerate(imagenet_labels()):
        for name in label.split(","):
            owners.setdefault(name.strip(), set()).add(index)
    assert {name for name, indices in owners.items() if len(indices) > 1} == {"crane", "husky", "maillot"}
    assert all(find_label(imagenet_labels(), imagenet_labels()[index]) == index for index in range(0, 1000, 50))


@pytest.mark.parametrize("names", [{1: "dog", 0: "cat"}, {"0": "cat", "1": "dog"}])
def test_labels_by_index_are_taken_wherever_labels_are(names: dict[object, str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    image = torch.rand(1, 3, 8, 8)
    nn.init.constant_(model[0].weight[1], 0.1)  # so that the map of the dog has heat
    assert seewhy.explain(model, image, "dog", labels=names).class_indices == (1,)
    assert seewhy.compare(model, image, ["dog"], labels=names)[0].class_indices == (1,)
    assert seewhy.tiles(model, image, "dog", size=6, labels=names).whole.class_indices == (1,)
    assert seewhy.load(f"{__name__}:small", labels=names).labels == ("cat", "dog")
    with pytest.raises(TargetError, match=r"^got \{0: 'cat', 2: 'dog'\} as labels; give a list"):
        seewhy.explain(model, image, "dog", labels={0: "cat", 2: "dog"})


def small() -> nn.Module:
    return nn.Conv2d(3, 2, 3)


def test_names_that_a_network_of_ultralytics_keeps_are_its_labels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    image = torch.rand(1, 3, 8, 8)
    model.names = {0: "cat", 1: "dog"}
    assert seewhy.explain(model, image, "dog").class_indices == (1,)
    model.names = {0: "0", 1: "1"}  # made up
    assert seewhy.explain(model, image, 1).target == ("class 1",)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("names.txt", "cat\n dog, hound \n\nbird\n"),
        ("names.json", '["cat", "dog, hound", "bird"]'),
        ("names.json", '{"2": "bird", "0": "cat", "1": "dog, hound"}'),
    ],
)
def test_labels_are_read_from_text_and_json(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    assert read_labels(tmp_path / file) == ("cat", "dog, hound", "bird")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("names.json", '{"0": "cat", "2": "bird"}', "without gaps; it holds a dict"),
        ("names.json", "[1, 2]", "must hold a list of names in index order"),
        ("names.json", "cat\ndog", r"is not JSON \(Expecting value"),
        ("names.txt", b"\xff\xfe", "cannot be read .* in UTF-8"),
        ("gone.txt", None, r"cannot be read \(\[Errno 2\]"),
    ],
)
def test_a_labels_file_that_is_none_is_refused(
    tmp_path: Path, file: str, content: str | bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=says):
        read_labels(tmp_path / file)
