"""Questions in the pixels of a photo: points, masks and boxes, however the photo was made the model's input."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from detectors import Levels, Suppressed, candidates
from seewhy import Box, Preprocess, Region, TargetError
from seewhy.data.frame import Frame
from seewhy.data.image import read
from seewhy.marks import cell_of, on_grid, on_photo

FITS = {
    "squash": Preprocess((32, 48), "squash"),
    "crop": Preprocess((32, 32), "crop", resize=40),
    "letterbox": Preprocess((32, 48), "letterbox"),
}
LABELS = ("background", "cat", "dog")


class Net(nn.Module):
    """Three classes at every second pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.up = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


def photo(height: int = 45, width: int = 70, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def frame_of(how: Preprocess, image: Image.Image) -> Frame:
    return how(read(image))[1]


def looked_at(frame: Frame, grid: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """For each cell of a grid the pixel of the photo under its middle, where there is one, number by number."""
    found = {}
    x0, y0, x1, y1 = frame.view
    for cell in np.ndindex(*grid):
        # the middle as a position between centers of input pixels, then of photo pixels
        inputs = [(at + 0.5) * size / cells - 0.5 for at, size, cells in zip(cell, frame.input_size, grid, strict=True)]
        y, x = ((at - shift) / scale for at, shift, scale in zip(inputs, frame.shift, frame.scale, strict=True))
        if y0 <= y + 0.5 < y1 - 1e-9 and x0 <= x + 0.5 < x1 - 1e-9:
            found[cell] = (math.floor(y + 0.5 + 1e-9), math.floor(x + 0.5 + 1e-9))
    return found


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("grid", [(32, 48), (16, 24), (5, 7)])
def test_a_mask_of_the_photo_is_read_where_the_model_s_pixels_look(fit: str, grid: tuple[int, int]) -> None:
    frame = frame_of(FITS[fit], photo())
    mask = torch.rand(45, 70, generator=torch.Generator().manual_seed(0)) > 0.5
    expected = torch.zeros(grid, dtype=torch.bool)
    for cell, pixel in looked_at(frame, grid).items():
        expected[cell] = mask[pixel]
    assert torch.equal(on_grid(mask, frame, frame.input_size, grid), expected)
    assert 0 < int(expected.sum()) < expected.numel()


@pytest.mark.parametrize("fit", FITS)
def test_regions_come_back_to_the_photo_where_maps_do(fit: str) -> None:
    frame = frame_of(FITS[fit], photo())
    region = torch.zeros(frame.input_size, dtype=torch.bool)
    region[8:24, 12:30] = True
    back, heat = on_photo(region, frame, frame.input_size), frame.to_photo(region.float()[None])[0]
    sure = (heat < 0.25) | (heat > 0.5)  # within half a pixel of a corner, linear and nearest differ
    assert torch.equal(back[sure], heat[sure] > 0.5)
    assert 0 < int(back.sum()) < back.numel()


@pytest.mark.parametrize("fit", FITS)
def test_a_point_where_the_peak_is_asks_about_that_place(fit: str) -> None:
    how, model, image = FITS[fit], Net(), photo()
    e = seewhy.explain(model, image, "dog", "hires_cam", labels=LABELS, preprocess=how)
    peak = e[0].peak()
    frame, (x, _) = frame_of(how, image), how(read(image))
    spot = [math.floor(s * at + shift + 0.5) for s, at, shift in zip(frame.scale, peak, frame.shift, strict=True)]
    row, column = spot[0] // 2, spot[1] // 2  # the output has every second pixel
    with torch.no_grad():
        output = model(x[None])
    winner = int(output[0, :, row, column].argmax())
    asked = seewhy.explain(model, image, Region(point=peak), labels=LABELS, preprocess=how)
    torch.testing.assert_close(float(asked.scores[0]), float(output[0, winner, row, column]))
    assert asked.target == (f"{LABELS[winner]} at the point {peak}",)
    assert asked.map.shape[1:] == x.shape[1:]


def test_what_a_crop_cuts_off_is_no_region() -> None:
    how, image = FITS["crop"], photo()
    left = torch.zeros(45, 70, dtype=torch.bool)
    left[:, :10] = True
    seen = ": of the photo of 45x70 pixels it is given rows 4 to 39 and columns 17 to 52, made 32x32 pixels; "
    with pytest.raises(TargetError, match=f"the model sees no pixel of the mask{seen}mark some there"):
        seewhy.explain(Net(), image, Region(1, mask=left), preprocess=how)
    with pytest.raises(TargetError, match=rf"the model does not see the point \(0, 30\){seen}choose a point there"):
        seewhy.explain(Net(), image, Region(1, point=(0, 30)), preprocess=how)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Region(point=(45, 0)), r"each axis of the photo of 45x70 pixels, from \(0, 0\) to \(44, 69\)"),
        (
            Region(mask=torch.ones(20, 30, dtype=torch.bool)),
            r"\(20, 30\); it has the size of the photo of 45x70 pixels, or of the model's output, 16x24, .* mark the "
            "photo's pixels",
        ),
    ],
)
def test_errors_name_the_photo_s_size(asked: Region, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        seewhy.explain(Net(), photo(), asked, preprocess=FITS["squash"])


def test_titles_count_pixels_of_the_photo_and_masks_of_several_photos_are_each_one_s_own() -> None:
    photos, how = [photo(45, 70), photo(60, 40, 1)], FITS["squash"]
    masks = [torch.zeros(image.height, image.width, dtype=torch.bool) for image in photos]
    masks[0][10:30, 20:50], masks[1][5:45, 10:30] = True, True
    e = seewhy.explain(Net(), photos, [Region("dog", mask=mask) for mask in masks], labels=LABELS, preprocess=how)
    for n, mask in enumerate(masks):
        grid = on_grid(mask, frame_of(how, photos[n]), how.size, (16, 24))
        back = on_photo(grid, frame_of(how, photos[n]), how.size)
        assert e.target[n] == f"dog in {int(back.sum())} of {mask.numel()} pixels of the mask"
        assert abs(int(back.sum()) - int(mask.sum())) < 0.2 * int(mask.sum())
        with torch.no_grad():
            output = Net()(torch.stack([how(read(photos[n]))[0]]))
        torch.testing.assert_close(e.scores[n], output[0, 2][grid].sum())
    with pytest.raises(TargetError, match=r"the photo of 60x40 pixels, .* for photos of several sizes ask \[Region"):
        seewhy.explain(Net(), photos, Region("dog", mask=masks[0]), labels=LABELS, preprocess=how)


def test_a_place_between_two_pixels_is_the_second_s() -> None:
    frame = Frame.identity((9, 12)).resized((6, 8))  # the middle of pixel 1 lies at edge 1 of the input
    assert cell_of((1, 4), frame, (6, 8), (6, 8)) == [1, 3]


@pytest.mark.parametrize("model", [Levels(), Suppressed(0.3)])
@pytest.mark.parametrize("fit", FITS)
def test_boxes_are_asked_for_and_told_in_pixels_of_the_photo(fit: str, model: nn.Module) -> None:
    how, image = FITS[fit], photo(90, 140)
    decode = candidates if isinstance(model, Levels) else None
    x, frame = how(read(image))
    tensor = seewhy.explain(model, x[None].double(), Box(decode=decode), "hires_cam")
    own = seewhy.explain(model, image, Box(decode=decode), "hires_cam", preprocess=how)
    torch.testing.assert_close(own.scores.double(), tensor.scores.double(), rtol=1e-5, atol=0)
    ((box,), (raw,)) = own[0].asked.boxes, tensor[0].asked.boxes
    torch.testing.assert_close(torch.tensor(box), torch.tensor(frame.box_to_photo(raw)), rtol=1e-4, atol=1e-3)
    assert own.target[0].endswith("x {:.0f}-{:.0f} y {:.0f}-{:.0f}".format(*(box[i] for i in (0, 2, 1, 3))))
    middle = ((box[1] + box[3]) / 2, (box[0] + box[2]) / 2)
    same = seewhy.explain(model, image, Box(point=middle, decode=decode), "hires_cam", preprocess=how)
    assert same.target == own.target
    for edge, value in zip(("x0", "y0", "x1", "y1"), box, strict=True):
        asked: Any = Box(read=edge, decode=decode)
        e = seewhy.explain(model, image, asked, "hires_cam", preprocess=how, rectify=False)
        torch.testing.assert_close(float(e.scores[0]), value, rtol=1e-4, atol=1e-3)
    with pytest.raises(TargetError, match=r"the point \(91, 3\) lies outside of its 90x140 pixels; a point is \(row, "):
        seewhy.explain(model, image, Box(point=(91, 3), decode=decode), preprocess=how)


MAGENTA = np.array((255, 0, 255), dtype=np.uint8)


def painted(item: seewhy.explanation.Item) -> Tensor:
    """Where the overlay has the color of what was asked; nothing else is changed."""
    with_it, without = (np.asarray(item.overlay(asked=asked)) for asked in (True, False))
    found = (with_it == MAGENTA).all(-1)
    np.testing.assert_array_equal(with_it[~found], without[~found])
    return torch.from_numpy(found)


def test_the_region_s_outline_the_box_and_the_point_are_on_the_picture(tmp_path: Any) -> None:
    how, image = FITS["letterbox"], photo()
    mask = torch.zeros(45, 70, dtype=torch.bool)
    mask[10:30, 20:50] = True
    (region,) = (e := seewhy.explain(Net(), image, Region(1, mask=mask), preprocess=how))[0].asked.masks
    inner = torch.from_numpy(np.pad(region.numpy(), 1))
    inner = inner[1:-1, 1:-1] & inner[2:, 1:-1] & inner[:-2, 1:-1] & inner[1:-1, 2:] & inner[1:-1, :-2]
    edge = painted(e[0])
    assert bool(edge[region & ~inner].all())
    assert not bool((edge & ~region).any())
    assert int(edge.sum()) < int(region.sum()) / 2
    e.save(tmp_path)
    with np.load(next(tmp_path.glob("*.npz"))) as values:
        np.testing.assert_array_equal(values["asked/0"], region.numpy())
    assert e.to_dict()["images"][0]["asked"] == {"regions": [int(region.sum())]}
    plain = np.asarray(e[0].overlay(asked=False))
    np.testing.assert_array_equal(np.asarray(Image.open(e.save(tmp_path, asked=False)[0])), plain)
    grid = seewhy.Comparison((e,), (1, 1, 1))
    drawn = np.asarray(Image.open(grid.save(tmp_path, asked=False)[0]))
    np.testing.assert_array_equal(drawn, np.asarray(grid.figure(asked=False)))

    ring = painted(seewhy.explain(Net(), image, Region(point=(20, 30)), preprocess=how)[0]).nonzero()
    torch.testing.assert_close(ring.double().mean(0), torch.tensor([20.0, 30.0]).double())
    assert not bool((ring == torch.tensor([20, 30])).all(1).any())

    item = seewhy.explain(Levels(), image, Box(decode=candidates), "hires_cam", preprocess=how)[0]
    x0, y0, x1, y1 = (round(edge) for edge in item.asked.boxes[0])
    outline = painted(item).nonzero()
    assert outline.amin(0).tolist() == [max(y0, 0), max(x0, 0)]
    assert outline.amax(0).tolist() == [min(y1, 45) - 1, min(x1, 70) - 1]
    assert item.to_dict()["asked"]["boxes"] == [list(item.asked.boxes[0])]


def test_a_span_of_a_signal_is_drawn_as_a_frame_around_it_and_a_point_as_its_place() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 6, 5, 1, 2), nn.ReLU(), nn.Conv1d(6, 3, 5, 1, 2))
    signal = torch.randn(1, 2, 100, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(100, dtype=torch.bool)
    mask[30:50] = True
    span = painted(seewhy.explain(net, signal, Region(1, mask=mask), layer="1")[0])
    assert span.shape == (240, 700)  # two channels of 120 pixels, 7 for each sample
    columns = span.all(0).nonzero()[:, 0]
    assert {int(columns.min()), int(columns.max())} == {30 * 7, 50 * 7 - 1}
    assert bool(span[0, 210:350].all())
    assert bool(span[-1, 210:350].all())
    assert not bool(span[100:140, 220:340].any())
    place = painted(seewhy.explain(net, signal, Region(1, point=(30,)), layer="1")[0])
    assert place.any(0).nonzero()[:, 0].tolist() == list(range(210, 217))


def test_sums_mark_all_that_they_ask_about_once_and_lists_each_image_s_own() -> None:
    x = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    left = torch.arange(48).expand(32, 48) < 24
    both = seewhy.explain(Net(), x, Region(1, mask=left) - Region(2, mask=left) + Region(0, mask=~left))
    grid = left[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert [torch.equal(mask, grid) for mask in both[1].asked.masks] == [True, False]
    each = seewhy.explain(Net(), x, [Region(point=(3, 4)), Region(point=(5, 6))])
    assert [item.asked.points for item in each] == [((3, 4),), ((5, 6),)]


def test_a_question_about_no_place_marks_nothing() -> None:
    item = seewhy.explain(Net(), photo(), lambda output: output[:, 1].sum((1, 2)), preprocess=FITS["squash"])[0]
    assert not item.asked
    assert "asked" not in item.to_dict()
    assert not bool(painted(item).any())
