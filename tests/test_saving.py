"""Files are written whole or not at all, under names that any file system takes, with manifests that are JSON."""

import json
import os
import resource
import stat
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.saving import distinct, file_name, json_text, write
from seewhy.types import OutputError


def fill(content: bytes):
    return lambda file: file.write(content)


def failing(error: BaseException):
    def half(file):
        file.write(b"half")
        file.flush()
        raise error

    return half


def test_all_files_are_there_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    written = write(folder, {"a.txt": fill(b"a"), "b.txt": fill(b"b")}.items())
    assert written == [folder / "a.txt", folder / "b.txt"]
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == [b"a", b"b"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("bug"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a.txt").write_text("old")
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write(tmp_path, {"a.txt": fill(b"new"), "b.txt": failing(error), "c.txt": fill(b"c")}.items())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_file_is_asked_for_when_the_one_before_is_written(tmp_path: Path) -> None:
    seen: list[list[bytes]] = []

    def files():
        for name in ("a.txt", "b.txt"):
            seen.append([path.read_bytes() for path in tmp_path.iterdir()])
            yield name, fill(b"whole")

    write(tmp_path, files())
    assert seen == [[], [b"whole"]]


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    seen: list[str] = []

    def look(file):
        file.write(b"new")
        seen.append((tmp_path / "a.txt").read_text())

    write(tmp_path, {"a.txt": look}.items())
    assert seen == ["old"]
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        (path,) = write(tmp_path, {"a.txt": fill(b"a")}.items())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("below", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_told_in_one_sentence(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as error:
        write(tmp_path / below, {"a.txt": fill(b"a")}.items())
    reason = "File exists" if below == "file" else "Not a directory"
    assert str(error.value) == (
        f"cannot write to the folder '{tmp_path / below}' ({reason}); results need a folder with write permission and "
        "room; name another one"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_without_a_number_says_its_text(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\(encoder error -2\)"):  # as Pillow raises it
        write(tmp_path, {"a.png": failing(OSError("encoder error -2"))}.items())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("chelsea", "chelsea"),
        ("a/../b: c?", "a-..-b-c"),
        ("p(cat) - p(dog)", "p-cat-p-dog"),
        ("кот 猫", "кот-猫"),
        ("bad \udcff byte", "bad-byte"),
        ("///", "unnamed"),
    ],
)
def test_names_of_files(text: str, name: str) -> None:
    assert file_name(text) == name


def test_long_names_are_cut_between_letters() -> None:
    assert file_name("猫" * 300) == "猫" * 36  # 110 bytes, 3 each


def test_what_tells_equal_names_apart_is_not_cut_off() -> None:
    assert file_name("猫" * 300, "-12") == "猫" * 35 + "-12"  # 107 bytes and 3
    assert file_name("cat", "-2") == "cat-2"
    assert file_name(file_name("x" * 300, "-2")) == "x" * 108 + "-2"


def test_a_name_that_is_taken_gets_the_first_free_number() -> None:
    assert distinct("a", []) == "a"
    assert distinct("a", ["a", "a-3"]) == "a-2"
    assert distinct("Cat", iter(["cAT", "cat-2", "b"])) == "Cat-3"  # file systems may not tell the case


def test_strict_json() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    value = {1: float("nan"), "b": [float("inf"), 0.5, (1, None)], "c": {"d": Path("x")}, "e": True}
    read = json.loads(json_text(value), parse_constant=refuse)
    assert read == {"1": None, "b": [None, 0.5, [1, None]], "c": {"d": "x"}, "e": True}


# what an explanation saves


def net() -> nn.Module:
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(convolutions, nn.Linear(4, 3))


def explained(count: int = 2) -> seewhy.Explanation:
    x = torch.rand(count, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    return seewhy.explain(net(), x, 1, labels=["cat", "dog/wolf", "cat"])


def test_the_saved_files_hold_the_explanation(tmp_path: Path) -> None:
    e = explained()
    files = e.save(tmp_path)
    assert sorted(files) == sorted(tmp_path.iterdir())
    manifest = json.loads(files[-1].read_text())
    assert manifest["seewhy"] == version("seewhy")
    assert manifest["model"] == "Sequential"
    assert manifest["notes"] == list(e.notes)
    for n, entry in enumerate(manifest["images"]):
        assert entry["target"] == "dog/wolf"
        assert entry["class"] == 1
        assert entry["probability"] == pytest.approx(e.probabilities[n])
        box = e[n].boxes()[0]
        assert entry["boxes"][0]["x1"] == box.x1
        np.testing.assert_array_equal(np.load(tmp_path / entry["values"])["map"], e.map[n])
        with Image.open(tmp_path / entry["overlay"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), np.asarray(e[n].overlay()))


def test_a_manifest_of_several_says_of_how_many(tmp_path: Path) -> None:
    assert explained(1).save(tmp_path)[-1].name == "image0_grad_cam_dog-wolf-1.json"
    assert explained(3).save(tmp_path)[-1].name == "image0_grad_cam_dog-wolf-1_and-2-more.json"


def test_images_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), dtype=np.uint8)
    photos = [seewhy.Photo(Image.fromarray(pixels), "same") for pixels in noise]
    how = seewhy.Preprocess((12, 16), "squash")
    e = seewhy.explain(net(), photos, preprocess=how, target=1)
    stems = {file.stem for file in e.save(tmp_path) if file.suffix == ".npz"}
    assert stems == {"same_grad_cam_class-1-1", "same_grad_cam_class-1-1-2"}
    for item, stem in zip(e, sorted(stems), strict=True):
        np.testing.assert_array_equal(np.load(tmp_path / f"{stem}.npz")["map"], item.map)


def test_classes_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    x = torch.rand(1, 3, 12, 16)
    for target in (0, 2):
        seewhy.explain(net(), x, target, labels=["cat", "dog", "cat"]).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 2 kB: the disk is full in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("verb", ["explanation", "comparison"])
def test_a_full_disk_leaves_no_part_of_an_explanation(tmp_path: Path, small_files: None, verb: str) -> None:
    x = torch.rand(1, 3, 64, 64)
    save = partial(seewhy.explain(net(), x).save if verb == "explanation" else seewhy.compare(net(), x).save, tmp_path)
    with pytest.raises(OutputError, match=r"cannot write to the folder '.*' \(File too large\)"):
        save()
    assert list(tmp_path.iterdir()) == []
