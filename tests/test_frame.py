"""The geometry from photo to input and back, against ramps that know their own place, and peers' preprocessing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seewhy.data.frame import Frame
from seewhy.data.image import Photo, read
from seewhy.data.preprocess import Preprocess
from seewhy.types import ImageError, ModelError, ShapeError

SIZES = [(300, 451), (451, 300), (97, 101), (224, 224), (1, 9), (33, 400), (225, 223)]
SIDE = st.integers(1, 60)
SIZE = st.tuples(SIDE, SIDE)


def interior(frame: Frame) -> tuple[slice, slice]:
    """The part of the view where no filter was cut off by a border."""
    x0, y0, x1, y1 = (round(edge) for edge in frame.view)
    y, x = (int(np.ceil(1.5 / min(s, 1))) for s in frame.scale)
    return slice(y0 + y, y1 - y), slice(x0 + x, x1 - x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("input_size", [(64, 48), (51, 600)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_ramp_resized_by_pillow_and_mapped_back_is_the_ramp(size, input_size, axis):
    ramp = np.indices(size)[axis].astype(np.float32)  # each pixel's value is its own row or column
    small = Image.fromarray(ramp).resize(input_size[::-1], Image.Resampling.BILINEAR)
    frame = Frame.identity(size).resized(input_size)
    mapped = frame.to_photo(torch.from_numpy(np.array(small)).double()[None])[0]
    inside = interior(frame)
    expected = torch.from_numpy(ramp).double()
    # Pillow's discrete filter is itself off by up to .04 pixels; a forgotten half pixel is at least .17 here
    torch.testing.assert_close(mapped[inside], expected[inside], atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [size for size in SIZES if min(size) > 30])
@pytest.mark.parametrize("fit", ["squash", "crop", "letterbox"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_ramp_through_the_preprocessing_comes_back_in_its_place(size, fit, axis):
    step = Preprocess((64, 49), fit, mean=(0.0,) * 3, std=(1.0,) * 3)
    ramp = (np.indices(size)[axis] / (size[axis] - 1)).astype(np.float32)
    inputs, frame = step(read(ramp))
    pixels = frame.to_photo(inputs.double())[0] * (size[axis] - 1)
    inside = interior(frame)
    difference = (pixels - torch.from_numpy(np.indices(size)[axis]))[inside]
    level = (
        size[axis] / 255
    )  # pixels to a step of the 8 bits; rounding errors cancel in the mean, misplacement does not
    assert difference.abs().max() < 1.5 * level + 0.1
    assert abs(difference.mean()) < 0.1


def test_the_half_pixel_is_where_the_formula_says():
    frame = Frame.identity((4, 8)).resized((8, 4))
    assert frame.scale == (2.0, 0.5)
    assert frame.shift == (0.5, -0.25)  # (0 + .5) * 2 - .5 and (0 + .5) / 2 - .5
    rows, columns = frame.positions
    assert rows.tolist() == [0.5, 2.5, 4.5, 6.5]
    assert columns.tolist() == [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25]


def test_resizing_back_agrees_with_torch_interpolate():
    generator = torch.Generator().manual_seed(0)
    for input_size, photo_size in [((7, 7), (300, 451)), ((5, 9), (16, 27)), ((20, 31), (41, 97))]:
        map = torch.rand(2, *input_size, generator=generator, dtype=torch.float64)
        frame = Frame.identity(photo_size).resized(input_size)
        expected = torch.nn.functional.interpolate(map[None], photo_size, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(frame.to_photo(map), expected, atol=1e-12, rtol=0)


def test_a_crop_maps_back_to_its_place_and_is_zero_elsewhere():
    map = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(1, 3, 4)
    frame = Frame.identity((10, 9)).cropped(2, 5, (3, 4))
    expected = torch.zeros(1, 10, 9, dtype=torch.float64)
    expected[:, 2:5, 5:9] = map
    assert torch.equal(frame.to_photo(map), expected)
    assert frame.view == (5, 2, 9, 5)


def test_a_letterbox_gives_back_the_photo_alone():
    map = torch.arange(1.0, 31.0, dtype=torch.float64).reshape(1, 5, 6)
    frame = Frame.identity((3, 6)).padded(1, 0, (5, 6))
    assert torch.equal(frame.to_photo(map), map[:, 1:4])
    assert frame.view == (0, 0, 6, 3)


def test_a_border_put_round_a_crop_is_no_part_of_the_view():
    frame = Frame.identity((8, 8)).cropped(2, 2, (4, 4)).padded(2, 2, (8, 8))
    assert frame.view == (2, 2, 6, 6)
    assert frame.shift == (0, 0)
    assert frame.to_photo(torch.ones(1, 8, 8)).sum() == 16  # the affine map alone would give 64


def test_the_share_of_the_photo_that_was_seen():
    frame = Frame.identity((30, 40))
    assert frame.resized((60, 20)).seen == 1
    assert frame.resized((60, 80)).cropped(0, 10, (60, 60)).seen == 0.75
    assert frame.padded(5, 5, (40, 50)).seen == 1


def test_a_crop_of_the_border_alone_saw_nothing():
    frame = Frame.identity((4, 4)).padded(4, 4, (12, 12)).cropped(0, 0, (3, 12))
    assert frame.view[1] == frame.view[3]
    assert frame.to_photo(torch.ones(1, 3, 12)).sum() == 0


def test_the_map_keeps_its_type_and_gradient():
    frame = Frame.identity((6, 5)).resized((3, 3))
    map = torch.rand(1, 3, 3, requires_grad=True)
    frame.to_photo(map).sum().backward()
    assert frame.to_photo(map).dtype == torch.float32
    torch.testing.assert_close(map.grad.sum(), torch.tensor(30.0))  # rows of the interpolation sum to 1


@st.composite
def frames(draw):
    frame = Frame.identity(draw(SIZE))
    for _ in range(draw(st.integers(0, 4))):
        h, w = frame.input_size
        kind = draw(st.sampled_from(["resized", "cropped", "padded"]))
        if kind == "resized":
            frame = frame.resized(draw(SIZE))
        elif kind == "cropped":
            size = (draw(st.integers(1, h)), draw(st.integers(1, w)))
            frame = frame.cropped(draw(st.integers(0, h - size[0])), draw(st.integers(0, w - size[1])), size)
        else:
            top, left = draw(st.integers(0, 9)), draw(st.integers(0, 9))
            frame = frame.padded(top, left, (h + top + draw(st.integers(0, 9)), w + left + draw(st.integers(0, 9))))
    return frame


@settings(deadline=None, max_examples=100)
@given(frames(), st.lists(st.tuples(*[st.floats(-50, 50)] * 4), max_size=4))
def test_boxes_go_there_and_back(frame, boxes):
    boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    torch.testing.assert_close(frame.boxes_to_photo(frame.boxes_to_input(boxes)), boxes, atol=1e-7, rtol=1e-7)


@settings(deadline=None, max_examples=100)
@given(frames())
def test_the_view_lies_in_the_photo_and_in_the_input_and_nothing_is_drawn_outside(frame):
    x0, y0, x1, y1 = frame.view
    h, w = frame.photo_size
    assert -1e-9 <= x0 <= x1 + 1e-9 <= w + 2e-9
    assert -1e-9 <= y0 <= y1 + 1e-9 <= h + 2e-9
    if x0 < x1 and y0 < y1:
        box = frame.boxes_to_input(torch.tensor([frame.view], dtype=torch.float64))[0].tolist()
        assert min(box) >= -1e-6
        assert box[2] <= frame.input_size[1] + 1e-6
        assert box[3] <= frame.input_size[0] + 1e-6
    seen = frame.to_photo(torch.ones(1, *frame.input_size, dtype=torch.float64))[0]
    rows, columns = torch.arange(h).double() + 0.5, torch.arange(w).double() + 0.5
    expected = ((rows >= y0) & (rows <= y1))[:, None] & ((columns >= x0) & (columns <= x1))
    torch.testing.assert_close(seen, expected.double())


@settings(deadline=None, max_examples=50)
@given(frames())
def test_box_edges_and_pixel_centers_tell_the_same_geometry(frame):
    rows, columns = frame.positions
    h, w = frame.photo_size
    pixels = torch.tensor([[0, 0, 1, 1], [w - 1, h - 1, w, h]], dtype=torch.float64)
    boxes = frame.boxes_to_input(pixels)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
    torch.testing.assert_close(centers, torch.stack([columns[[0, -1]], rows[[0, -1]]], 1), atol=1e-9, rtol=0)


@settings(deadline=None, max_examples=50)
@given(frames(), SIZE)
def test_resizing_in_two_steps_or_one_is_the_same(frame, size):
    one, two = frame.resized(size), frame.resized((17, 5)).resized(size)
    assert one.scale == pytest.approx(two.scale)
    assert one.shift == pytest.approx(two.shift, abs=1e-9)


def test_impossible_steps_and_wrong_maps_are_refused():
    frame = Frame.identity((4, 6))
    with pytest.raises(ShapeError, match=r"cannot crop: \(4, 4\) pixels at \(1, 0\) do not lie within \(4, 6\)"):
        frame.cropped(1, 0, (4, 4))
    with pytest.raises(ShapeError, match=r"cannot pad: \(4, 6\) pixels at \(0, 0\) do not lie within \(4, 5\)"):
        frame.padded(0, 0, (4, 5))
    with pytest.raises(ShapeError, match=r"cannot resize to \(0, 3\); height and width are at least 1"):
        frame.resized((0, 3))
    with pytest.raises(ShapeError, match=r"got a photo of \(0, 3\)"):
        Frame.identity((0, 3))
    with pytest.raises(ShapeError, match=r"got a map of \(6, 4\); the model's input is \(4, 6\); resize it"):
        frame.to_photo(torch.zeros(1, 6, 4))


def photo(size: tuple[int, int], seed: int = 0) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return read(pixels)


def torchvision_input(step: Preprocess, image: Image.Image) -> torch.Tensor:
    transforms = pytest.importorskip("torchvision.transforms", reason="needs torchvision, an optional extra")
    mode = transforms.InterpolationMode(step.interpolation)
    size = list(step.size) if step.fit == "squash" else step.resize
    crop = [] if step.fit == "squash" else [transforms.CenterCrop(step.size)]
    normalize = [transforms.ToTensor(), transforms.Normalize(step.mean, step.std)]
    return transforms.Compose([transforms.Resize(size, mode), *crop, *normalize])(image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos", "box"])
@pytest.mark.parametrize(
    ("fit", "resize"), [("squash", None), ("crop", 64), ("crop", 73), ("crop", 51)], ids=["squash", "64", "73", "pads"]
)
def test_equals_torchvision(size, interpolation, fit, resize):
    step = Preprocess((64, 64), fit=fit, resize=resize, interpolation=interpolation)
    image = photo(size)
    inputs, frame = step(image)
    torch.testing.assert_close(inputs, torchvision_input(step, image.image), atol=1e-6, rtol=0)
    assert frame.input_size == (64, 64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("input_size", "crop_pct", "mode"),
    [((64, 64), 0.875, "center"), ((64, 64), 1.0, "squash"), ((64, 48), 0.9, "center"), ((65, 48), 1.0, "border")],
)
def test_equals_timm(size, input_size, crop_pct, mode):
    timm = pytest.importorskip("timm.data", reason="needs timm, an optional extra")
    theirs = timm.create_transform(
        (3, *input_size), crop_pct=crop_pct, crop_mode=mode, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    fit = {"center": "crop", "squash": "squash", "border": "letterbox"}[mode]
    resize = (int(input_size[0] / crop_pct), int(input_size[1] / crop_pct)) if mode == "center" else None
    step = Preprocess(
        input_size, fit, resize, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, fill=(128, 128, 128)
    )
    image = photo(size)
    torch.testing.assert_close(step(image)[0], theirs(image.image), atol=1e-6, rtol=0)


def test_half_pixels_of_the_crop_round_as_asked():
    image = photo((64, 67))  # a surplus of 3: the offset is 1.5
    even, down = (Preprocess((64, 64), resize=64, center=center)(image)[1] for center in ("even", "down"))
    assert (even.shift, down.shift) == ((0.0, -2.0), (0.0, -1.0))


def test_channels_scale_and_grey_are_as_said():
    image = photo((4, 5))
    pixels = torch.from_numpy(np.array(image.image)).float().permute(2, 0, 1)
    caffe = Preprocess((4, 5), "squash", mean=(104, 117, 123), std=(1, 1, 1), scale=1, channels="bgr")
    expected = pixels.flip(0) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    torch.testing.assert_close(caffe(image)[0], expected)
    grey = Preprocess((4, 5), "squash", mean=(0.5,), std=(0.5,), channels="grey")
    luma = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    torch.testing.assert_close((grey(image)[0][0] * 0.5 + 0.5) * 255, luma, atol=0.6, rtol=0)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_pixels_undo_the_normalization(channels):
    image = photo((6, 5))
    step = Preprocess((6, 5), "squash", channels=channels)
    np.testing.assert_array_equal(step.pixels(step(image)[0][None])[0], np.asarray(image.image))


def test_pixels_of_a_grey_input_are_grey_and_clipped():
    step = Preprocess((1, 3), "squash", mean=(0.0,), std=(1.0,), channels="grey")
    found = step.pixels(torch.tensor([[[[-1.0, 0.2, 7.0]]]]))
    np.testing.assert_array_equal(found, np.repeat([[[[0], [51], [255]]]], 3, axis=-1))
    with pytest.raises(ShapeError, match="got 3 channels; this model takes 1; pass its own inputs"):
        step.pixels(torch.zeros(1, 3, 2, 2))


def test_letterbox_pads_with_its_color_and_knows_the_view():
    step = Preprocess((8, 8), "letterbox", mean=(0.0,) * 3, std=(1.0,) * 3, fill=(114, 0, 255))
    inputs, frame = step(read(np.full((3, 6, 3), 10, np.uint8)))
    expected = torch.tensor([114.0, 0.0, 255.0])[:, None, None].expand(3, 8, 8).clone()
    expected[:, 2:6] = 10
    torch.testing.assert_close(inputs * 255, expected)
    assert frame.view == (0, 0, 6, 3)
    assert frame.boxes_to_input(torch.tensor([[0.0, 0.0, 6.0, 3.0]])).tolist() == [[0, 2, 8, 6]]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mean": (0.5,)}, r"got 1 means and 3 stds for channels='rgb'; it has 3; give one of each"),
        ({"std": (1.0, 0.0, 1.0)}, r"got std=\(1\.0, 0\.0, 1\.0\) and scale=255\.0; both divide; give positive"),
        ({"fit": "squash", "resize": 256}, "got resize=256 with fit='squash'; only a crop resizes first"),
    ],
)
def test_impossible_options_are_refused(options, text):
    with pytest.raises(ModelError, match=text):
        Preprocess((8, 8), **options)


def test_choices_outside_the_list_are_refused():
    step = Preprocess((8, 8))
    object.__setattr__(step, "fit", "stretch")  # the type checker that the tests run under guards the constructor
    with pytest.raises(ModelError, match="got fit='stretch'; it is one of squash, crop, letterbox; use one"):
        step.__post_init__()


def test_a_photo_too_long_to_resize_is_refused():
    with pytest.raises(ImageError, match=r"a photo of 1 x 4000 pixels would be stretched to 256 x 1024000; .* crop it"):
        Preprocess((224, 224), resize=256)(Photo(Image.new("RGB", (4000, 1))))
