"""The result record: how it shows itself, that it can be compared and kept, and what it computes only once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.data.frame import Frame
from seewhy.item import gist
from seewhy.render.overlay import draw_boxes


def net() -> nn.Module:
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    return nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 12, 16, generator=torch.Generator().manual_seed(1))


def explained(count: int = 2) -> seewhy.Explanation:
    return seewhy.explain(net(), images(count), [1, 0][:count], layer="0.3", labels=["cat", "dog", "fox"])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """The frames that a map was carried to its photo by, in order."""
    seen: list[Frame] = []
    carry = Frame.to_photo

    def counting(frame: Frame, map: torch.Tensor) -> torch.Tensor:
        seen.append(frame)
        return carry(frame, map)

    monkeypatch.setattr(Frame, "to_photo", counting)
    return seen


def test_each_says_what_it_is_in_one_line() -> None:
    e = explained()
    assert repr(e[1]) == "<Item 'image1': grad_cam of 'cat' at 0.3, 12x16>"
    assert repr(e) == "<Explanation of 2 images: grad_cam of 'dog', 'cat' at 0.3, 12x16>"
    assert repr(explained(1)) == "<Explanation of 1 image: grad_cam of 'dog' at 0.3, 12x16>"
    grid = seewhy.compare(net(), images(1), [0, 1], ["grad_cam", "hires_cam"], ["0.3", ["0.1", "0.3"]])
    assert repr(grid) == (
        "<Comparison of 8 explanations, 1 image each: "
        "grad_cam, hires_cam of 'class 0', 'class 1' at 0.3, 0.1 + 0.3, 12x16>"
    )
    assert "tensor" not in repr(e[0].picture)


def test_the_line_stays_short_however_much_was_explained() -> None:
    many = [f"class\n{index}" for index in range(1000)]
    assert gist(["grad_cam"] * 9, many, [["a"]], (7, 7)) == (
        "grad_cam of 'class\\n0', 'class\\n1', 'class\\n2' and 997 more at a, 7x7"
    )


def test_each_is_equal_to_itself_only_and_can_be_a_key() -> None:
    e, grid = explained(), seewhy.compare(net(), images())
    for one, other in ((e, explained()), (e[0], e[0]), (grid, seewhy.compare(net(), images()))):
        assert one == one
        assert one != other
        assert len({one, other, one}) == 2


def test_an_item_is_carried_to_its_photo_once(counted: list[Frame]) -> None:
    item = explained(1)[0]
    item.overlay(boxes=item.boxes())
    item.heat(signed=True), item.arrays(), item.to_dict(), item.peak(), item.on_photo()
    assert len(counted) == 1


def test_saving_carries_each_image_once(counted: list[Frame], tmp_path: Path) -> None:
    explained().save(tmp_path, boxes=True)
    assert len(counted) == 2


def test_who_writes_into_a_map_on_the_photo_changes_no_other() -> None:
    item = explained(1)[0]
    before, drawn = item.on_photo(), item.overlay().tobytes()
    item.on_photo().zero_()
    assert torch.equal(item.on_photo(), before)
    assert item.overlay().tobytes() == drawn


NOTES = ("made by hand", "squeezed", "named by their number")


@pytest.mark.parametrize(
    ("given", "void"),
    [
        ({}, set()),
        ({"preprocess": seewhy.Preprocess((12, 16), "squash")}, {"squeezed"}),
        ({"labels": ["a", "b", "c"]}, {"named by their number"}),
        ({"images": images()}, {"squeezed"}),  # as the model takes them: nothing was preprocessed
    ],
    ids=lambda given: "-".join(given),
)
def test_notes_tell_only_of_what_was_used(given: dict[str, object], void: set[str]) -> None:
    how = seewhy.Preprocess((12, 16))
    model = seewhy.Loaded(net(), how, ("x", "y", "z"), "mine", *((note,) for note in NOTES))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    e = seewhy.explain(model, **{"images": photo, "target": 1, **given})
    assert set(NOTES) & set(e.notes) == set(NOTES) - void


def test_boxes_are_drawn_on_the_overlay_where_they_are_asked_for(tmp_path: Path) -> None:
    e = explained(1)
    item = e[0]
    boxes = item.boxes(0.5)
    expected = draw_boxes(item.overlay(), [(box.x0, box.y0, box.x1, box.y1) for box in boxes])
    assert item.overlay(boxes=boxes).tobytes() == expected.tobytes() != item.overlay().tobytes()
    for wanted, picture in ((True, item.overlay(boxes=item.boxes())), (False, item.overlay())):
        with Image.open(e.save(tmp_path, boxes=wanted)[0]) as saved:
            np.testing.assert_array_equal(np.asarray(saved), np.asarray(picture))
