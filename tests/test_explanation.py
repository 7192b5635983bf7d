"""The result record: how it shows itself, that it can be compared and kept, and what it computes only once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.data.frame import Frame
from seewhy.item import gist
from seewhy.render.color import COLORMAPS
from seewhy.render.figure import Panel, figure
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


# signs


def signed(count: int = 1) -> seewhy.Explanation:
    """The signed form, asked for, of a score with a map of both signs."""
    target = seewhy.Logit(0) - seewhy.Logit(1)
    e = replace(seewhy.explain(net(), images(count), target, layer="0.2", rectify=False), asked_signed=True)
    assert float(e.map.min()) < 0 < float(e.map.max())
    return e


def has_bar(picture: Image.Image, colormap: str) -> bool:
    """Whether some row of the picture holds the colormap's colors from end to end."""
    colors = {tuple(color) for color in COLORMAPS[colormap].tolist()}
    return any(len(colors & set(map(tuple, row))) > 0.8 * len(colors) for row in np.asarray(picture).tolist())


def test_the_signed_form_is_drawn_signed_where_it_was_asked_for() -> None:
    e = signed()
    item, plain = e[0], replace(e, asked_signed=False)[0]
    assert item.overlay().tobytes() == plain.overlay(signed=True).tobytes() != plain.overlay().tobytes()
    assert item.overlay(signed=False).tobytes() == plain.overlay().tobytes()
    behind = [each.overlay(background=name).tobytes() for each, name in ((item, "grey"), (plain, "photo"))]
    assert behind == [item.overlay().tobytes(), plain.overlay().tobytes()]
    assert behind[0] != item.overlay(background="photo").tobytes()  # colors compete with the photo's only if asked to
    assert float(item.heat().min()) < 0 == float(plain.heat().min())
    fused = replace(e, signed=False)  # as maps of several layers are: without values below zero
    assert fused[0].overlay().tobytes() == plain.overlay().tobytes()


@pytest.mark.parametrize(
    ("asked", "given", "shown"), [(True, None, 1), (False, None, 0), (True, False, 0), (False, True, 1)]
)
def test_the_color_bar_is_that_of_the_maps(asked: bool, given: bool | None, shown: int) -> None:
    e = replace(signed(2), asked_signed=asked)
    grid = seewhy.Comparison((e,), (1, 1, 1))
    for picture in (e.figure(signed=given), grid.figure(signed=given)):
        assert [has_bar(picture, name) for name in ("turbo", "coolwarm")] == [not shown, bool(shown)]
    (first, second), panels = e, [item.panel(signed=given, named=True) for item in e]
    assert [panel.image.tobytes() for panel in panels] == [
        item.overlay(signed=bool(shown)).tobytes() for item in (first, second)
    ]


def test_a_comparison_of_both_kinds_has_a_bar_for_each() -> None:
    drawn = seewhy.Comparison((explained(1), signed()), (1, 2, 1)).figure()
    assert has_bar(drawn, "turbo")
    assert has_bar(drawn, "coolwarm")


def test_saved_pictures_show_the_sign(tmp_path: Path) -> None:
    e = signed()
    for given, expected in ((None, e[0].overlay()), (False, e[0].overlay(signed=False))):
        with Image.open(e.save(tmp_path, signed=given)[0]) as saved:
            np.testing.assert_array_equal(np.asarray(saved), np.asarray(expected))
    grid = seewhy.Comparison((e,), (1, 1, 1))
    for given in (None, False):
        with Image.open(grid.save(tmp_path, signed=given)[0]) as saved:
            np.testing.assert_array_equal(np.asarray(saved), np.asarray(grid.figure(signed=given)))


# maps that show no heat, and maps of scores


def against() -> nn.Module:
    """A net in which all evidence is against class 0."""
    model = net()
    with torch.no_grad():
        model[3].weight[0] = -1.0
        model[3].bias[0] = 0.0
    return model


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("hires_cam", "is positive nowhere, so that its picture shows no heat"),
        ("grad_cam", "of layer '0.3' is zero everywhere"),
    ],
)
def test_a_map_without_a_positive_value_is_told_once_with_the_way_out(method: str, what: str) -> None:
    with pytest.warns(seewhy.MapWarning) as caught:
        e = seewhy.explain(against(), images(1), 0, method, "0.3")
    told = [note for note in e.notes if what in note]
    assert [str(each.message) for each in caught] == told
    assert told[0].startswith("image 0: the map ")
    assert told[0].endswith("; rectify=False shows what speaks against it")
    assert e[0].peak() is None
    shown = seewhy.explain(against(), images(1), 0, method, "0.3", rectify=False)  # a warning would be an error
    assert not [note for note in shown.notes if "image 0" in note]
    assert float(shown[0].heat().min()) == -1


@pytest.mark.parametrize("shift", [-50.0, 0.0, 50.0])
def test_a_map_of_scores_is_drawn_from_its_mean(shift: float) -> None:
    model = net()
    with torch.no_grad():
        model[3].bias[1] = shift
    e = seewhy.explain(model, images(2), 1, "rise", options={"masks": 40, "cells": 4})
    assert e.offset
    assert float(e.map[0].max()) * shift >= 0  # the paper's map is as it was
    for n, item in enumerate(e):
        above = (e.map[n] - e.map[n].mean()).relu()
        torch.testing.assert_close(e.unit()[n], above / above.max())
        torch.testing.assert_close(item.heat(), above / above.max())
        assert item.peak() == divmod(int(e.map[n].argmax()), 16)
        torch.testing.assert_close(item.on_photo(), e.map[n], rtol=0, atol=0)
        (box,) = item.boxes(0.5)
        assert 0 < box.area < 0.6 * e.map[n].numel()
        assert "no heat" not in " ".join(item.caption())
    assert e[0].legend()[1].endswith("; counted from its mean")
    assert "RISE gives scores, not shares of one: its heat is what exceeds the map's mean" in e.notes


def test_only_maps_of_scores_are_counted_from_their_mean() -> None:
    e = explained(1)
    assert not e.offset
    torch.testing.assert_close(e.unit(), e.map / e.map.max(), rtol=0, atol=0)


# what has not two axes


def deep(axes: int, channels: int = 1) -> tuple[nn.Module, torch.Tensor]:
    """A net whose score is the sum of the values, and one input with a single value: its peak is known."""
    conv = (nn.Conv1d, nn.Conv3d)[axes > 1](channels, 1, 1, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, channels, *((20,), (11, 6, 8))[axes > 1])
    x[(0, slice(None), *((13,), (7, 4, 5))[axes > 1])] = 3.0
    return nn.Sequential(conv, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d)[axes > 1](1), nn.Flatten()), x


def colored(e: seewhy.Explanation, frames: bool | None = None) -> np.ndarray:
    """Which pixels of the overlay the heat changed."""
    item = e[0]
    shown, bare = (np.asarray(item.overlay(frames=frames, opacity=share)) for share in (0.8, 0.0))
    return (shown != bare).any(-1)


def test_a_signal_is_a_line_that_the_heat_colors(tmp_path: Path) -> None:
    model, x = deep(1)
    e = seewhy.explain(model, x, 0, "hires_cam", "0")
    assert e[0].peak() == (13,)
    assert [(box.start, box.stop) for box in e[0].boxes()] == [((13,), (14,))]
    hot = colored(e)
    step = hot.shape[1] // 20
    assert {column // step for column in np.nonzero(hot)[1].tolist()} == {13}
    ink = (np.asarray(e[0].overlay(opacity=0.0)) < 255).any(-1)
    assert not (hot & ~ink).any()
    assert len(e.save(tmp_path)) == 3
    assert e.to_dict()["images"][0]["peak"] == (13,)
    with pytest.raises(seewhy.ShapeError, match="is no picture, so there is nothing to lay the map over"):
        e[0].on_photo()


def test_a_volume_is_three_slices_through_its_peak() -> None:
    model, x = deep(3)
    e = seewhy.explain(model, x, 0, "hires_cam", "0")
    assert e[0].peak() == (7, 4, 5)
    assert e[0].caption()[-1] == "slices at z 7, y 4, x 5"
    times, hot = 96 // 8, colored(e)
    assert hot.shape == (11 * times, (8 + 8 + 6) * times + 4)
    corners = ((4, 5), (7, 8 + 5), (7, 16 + 4))  # of a slice in cells: across z, y, x, each after the ones before it
    for slices, (row, column) in enumerate(corners):
        top, left = row * times, column * times + 2 * slices
        assert hot[top : top + times, left : left + times].all()
    assert hot.sum() == 3 * times**2


@pytest.mark.parametrize(("channels", "frames"), [(1, True), (3, None)])
def test_a_video_is_a_strip_of_frames_with_that_of_the_peak(channels: int, frames: bool | None) -> None:
    model, x = deep(3, channels)
    e = seewhy.explain(model, x, 0, "hires_cam", "0")
    shown = e[0].caption(frames=frames)[-1]
    assert shown == "frames 0 1 3 4 6 7 9 10"
    times, hot = 96 // 8, colored(e, frames)
    left = 5 * (8 * times + 2) + 5 * times
    assert hot[4 * times : 5 * times, left : left + times].all()
    assert hot.sum() == times**2
    wide = e.figure(frames=frames)
    assert wide.width > 2 * wide.height


def test_saved_pictures_are_of_frames_where_these_were_asked_for(tmp_path: Path) -> None:
    model, x = deep(3, 1)
    e = seewhy.explain(model, x, 0, "hires_cam", "0")
    grid = seewhy.Comparison((e,), (1, 1, 1))
    for frames in (None, True):
        with Image.open(e.save(tmp_path, frames=frames)[0]) as saved:
            np.testing.assert_array_equal(np.asarray(saved), np.asarray(e[0].overlay(frames=frames)))
        with Image.open(grid.save(tmp_path, frames=frames)[0]) as saved:
            np.testing.assert_array_equal(np.asarray(saved), np.asarray(grid.figure(frames=frames)))
    assert e[0].overlay().size != e[0].overlay(frames=True).size


def test_a_peak_between_the_frames_of_a_strip_takes_the_nearest_s_place() -> None:
    model, x = deep(3)
    e = seewhy.explain(model, x.roll(1, 2), 0, "hires_cam", "0")
    assert e[0].caption(frames=True)[-1] == "frames 0 1 3 4 6 8 9 10"


# titles and their order


@pytest.mark.parametrize(
    ("value", "asked", "says"),
    [
        (0.0, False, ["no heat: the map is zero everywhere"]),
        (0.0, True, ["no heat: the map is zero everywhere"]),
        (-1.0, False, ["no heat: the map is positive nowhere"]),
        (-1.0, True, []),
        (1.0, False, []),
    ],
)
def test_a_map_without_heat_says_so_above_its_panel(value: float, asked: bool, says: list[str]) -> None:
    e = replace(explained(1), map=torch.full((1, 12, 16), value), signed=True, asked_signed=asked)
    assert e[0].caption()[2:] == says
    assert e[0].panel().title_lines[2:] == says


def test_several_photos_are_named_one_is_not() -> None:
    e = explained()
    assert [item.panel(named=True).title_lines for item in e] == [
        [f"image{n}: {item.caption()[0]}", item.caption()[1]] for n, item in enumerate(e)
    ]
    named = figure([item.panel(named=True) for item in e])
    height = named.height - 14  # without the frame below, where the bar is
    assert e.figure().crop((0, 0, named.width, height)).tobytes() == named.crop((0, 0, named.width, height)).tobytes()
    alone = figure([explained(1)[0].panel()])
    box = (0, 0, alone.width, alone.height - 14)
    assert explained(1).figure().crop(box).tobytes() == alone.crop(box).tobytes()


def test_a_row_is_a_question_and_a_column_a_method_at_a_layer() -> None:
    grid = seewhy.compare(net(), images(1), [0, 1], ["grad_cam", "hires_cam"], ["0.1", "0.3"])
    assert grid.shape == (2, 2, 2)
    photo = Panel(grid[0][0].picture.image, ["photo", "image0"])
    panels = [each[0].panel() for each in grid]
    legend = {"turbo": "heat, each map divided by its own maximum"}
    matrix = figure([photo, *panels[:4], photo, *panels[4:]], columns=5, bars=legend)
    assert grid.figure().tobytes() == matrix.tobytes()
    assert grid.figure(photo=False).tobytes() == figure(panels, columns=4, bars=legend).tobytes()
    assert grid.figure(columns=3).tobytes() == figure([photo, *panels], columns=3, bars=legend).tobytes()


def test_of_one_question_a_row_is_a_method_and_a_column_a_layer() -> None:
    grid = seewhy.compare(net(), images(1), [0], ["grad_cam", "hires_cam"], ["0.1", "0.3"])
    photo = Panel(grid[0][0].picture.image, ["photo", "image0"])
    panels, legend = [each[0].panel() for each in grid], {"turbo": "heat, each map divided by its own maximum"}
    matrix = figure([photo, *panels[:2], photo, *panels[2:]], columns=3, bars=legend)
    assert grid.figure().tobytes() == matrix.tobytes()


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_a_single_row_or_column_flows_after_one_photo(shape: tuple[int, int]) -> None:
    targets, methods = [0, 1, 2][: shape[0]], ["grad_cam", "hires_cam", "layer_cam"][: shape[1]]
    grid = seewhy.compare(net(), images(1), targets, methods, ["0.3"])
    photo = Panel(grid[0][0].picture.image, ["photo", "image0"])
    legend = {"turbo": "heat, each map divided by its own maximum"}
    assert grid.figure().tobytes() == figure([photo, *(each[0].panel() for each in grid)], bars=legend).tobytes()


def test_a_map_of_single_pixels_is_drawn_by_its_99th_percentile():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1296, 3))
    photo = torch.rand(1, 3, 20, 20)
    item = seewhy.explain(model, photo, 1, "saliency")[0]
    ranked = item.map.flatten().sort().values
    torch.testing.assert_close(item.heat(), (item.map / ranked[395]).clamp(max=1))  # 1 % of 400 are above it
    assert item.legend()[0] == "inferno"
    assert item.caption() == [item.caption()[0], "Saliency"]  # it looks at no layer
    coarse = seewhy.explain(model, photo, 1, "full_grad")[0]
    torch.testing.assert_close(coarse.heat(), coarse.map / coarse.map.max())


def complete() -> nn.Module:
    """A network of the kind whose FullGrad parts sum to the score, and whose score bends at rectifiers."""
    torch.manual_seed(4)
    parts = (nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*parts, nn.Linear(6, 4)).double().eval()


def test_methods_that_should_be_complete_tell_by_how_much_they_are_not() -> None:
    model, x = complete(), torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    full = seewhy.explain(model, x, [1, 2], "full_grad")
    assert full.residual is not None
    assert full.residual.abs().max() < 1e-12
    found = seewhy.explain(model, x, [1, 2], "integrated_gradients", options={"steps": 3})
    difference = model(x)[[0, 1], [1, 2]] - model(torch.zeros_like(x))[[0, 1], [1, 2]]
    assert found.residual is not None
    torch.testing.assert_close(found.residual, found.map.sum((1, 2)) - difference.detach())
    assert found.residual.abs().min() > 1e-6
    assert found.to_dict()["residual"] == found.residual.tolist()
    finer = seewhy.explain(model, x, [1, 2], "integrated_gradients", options={"steps": 300})
    assert finer.residual is not None
    assert finer.residual.abs().max() < found.residual.abs().max() / 10
    absolute = seewhy.explain(model, x, 1, "integrated_gradients", options={"steps": 3, "channels": "sum_abs"})
    assert absolute.residual is None
    assert seewhy.explain(model, x, 1).residual is None


def test_what_parts_miss_of_the_score_is_a_note() -> None:
    # with the last bias doubled by a layer norm's, which is no bias of the kinds that FullGrad takes
    model = nn.Sequential(*complete(), nn.LayerNorm(4, dtype=torch.float64)).eval()
    nn.init.constant_(model[-1].bias, 5.0)
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (note,) = [note for note in seewhy.explain(model, x, 1, "full_grad").notes if "complete" in note]
    assert "FullGrad is not complete here: its parts miss what they should sum to by" in note
