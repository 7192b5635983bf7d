"""Pictures of every kind, whole and broken, against pixels that are known, and the texts of what cannot be read."""

import inspect
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.image import Photo, read
from seewhy.types import ImageError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def pixels(photo: Photo) -> np.ndarray:
    assert photo.image.mode == "RGB"
    return np.asarray(photo.image)


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def test_a_png_is_read_exactly_with_its_name(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a cat.png")
    for source in (tmp_path / "a cat.png", str(tmp_path / "a cat.png")):
        photo = read(source)
        np.testing.assert_array_equal(pixels(photo), RGB)
        assert (photo.name, photo.notes, photo.size) == ("a cat", (), (5, 7))


def test_a_photo_is_returned_as_it_is():
    photo = read(RGB)
    assert read(photo) is photo


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RGB, RGB),
        (GREY, repeated(GREY)),
        (GREY[..., None], repeated(GREY)),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float32), RGB),
        (RGB[::-1, ::-1], RGB[::-1, ::-1]),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1) / 255, RGB),
        ((torch.from_numpy(RGB).permute(2, 0, 1) / 255).requires_grad_(), RGB),
        (torch.from_numpy(GREY)[None], repeated(GREY)),
        (torch.tensor([[[0.0, 1.0, 0.5]]], dtype=torch.bfloat16), repeated(np.array([[0, 255, 128]], np.uint8))),
        (Image.fromarray(GREY), repeated(GREY)),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(GREY > 127), repeated(np.where(GREY > 127, 255, 0))),
    ],
)
def test_arrays_tensors_and_pictures_give_their_own_pixels(source, expected):
    photo = read(source)
    np.testing.assert_array_equal(pixels(photo), expected)
    assert (photo.name, photo.notes) == ("image", ())


def test_the_source_is_neither_changed_nor_shared():
    array, picture = RGB.copy(), Image.fromarray(RGB)
    for photo in (read(array), read(picture)):
        photo.image.paste((1, 2, 3), (0, 0, 7, 5))
    np.testing.assert_array_equal(array, RGB)
    np.testing.assert_array_equal(np.asarray(picture), RGB)


UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: x.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("as_file", [True, False])
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation, as_file):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "x.png", exif=exif)
    photo = read(tmp_path / "x.png" if as_file else Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(pixels(photo), UPRIGHT[orientation](RGB))
    assert photo.notes == (() if orientation == 1 else ("rotated by its EXIF orientation",))
    assert photo.name == "x"


def test_exif_that_cannot_be_read_is_noted_and_the_pixels_stay(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png", exif=b"Exif\0\0broken!!")
    photo = read(tmp_path / "x.png")
    np.testing.assert_array_equal(pixels(photo), RGB)
    assert len(photo.notes) == 1
    assert photo.notes[0].startswith("EXIF not readable")


def blended(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


@pytest.mark.parametrize("suffix", ["png", "tif", "array"])
def test_alpha_is_blended_onto_white(tmp_path, suffix):
    rgba = np.dstack([RGB, GREY])
    if suffix != "array":
        Image.fromarray(rgba).save(tmp_path / f"x.{suffix}")
    photo = read(rgba if suffix == "array" else tmp_path / f"x.{suffix}")
    np.testing.assert_allclose(pixels(photo), blended(RGB, GREY), atol=1)
    assert photo.notes == ("alpha blended onto white",)


def test_grey_with_alpha_and_palette_with_transparency(tmp_path):
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]).save(tmp_path / "la.png")
    photo = read(tmp_path / "la.png")
    np.testing.assert_allclose(pixels(photo), blended(repeated(GREY), GREY[::-1]), atol=1)
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png", transparency=1)
    photo = read(tmp_path / "p.png")
    expected = [[[255, 0, 0], [255, 255, 255]], [[0, 0, 255], [255, 255, 255]]]
    np.testing.assert_array_equal(pixels(photo), expected)
    assert photo.notes == ("alpha blended onto white",)


def test_opaque_alpha_changes_nothing_and_says_nothing():
    photo = read(np.dstack([RGB, np.full_like(GREY, 255)]))
    np.testing.assert_array_equal(pixels(photo), RGB)
    assert photo.notes == ()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    deep = np.array([[0, 255, 257, 32896, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / f"x.{suffix}")
    photo = read(tmp_path / f"x.{suffix}")
    np.testing.assert_array_equal(pixels(photo), repeated(np.array([[0, 1, 1, 128, 255]])))
    assert photo.notes == ("16 bit scaled to 8",)


def test_16_bit_color_says_that_it_was_scaled(tmp_path):
    (tmp_path / "x.ppm").write_bytes(b"P6 2 1 65535\n" + np.array([0, 32896, 65535] * 2, ">u2").tobytes())
    np.testing.assert_array_equal(pixels(read(tmp_path / "x.ppm")), [[[0, 128, 255]] * 2])


def test_wide_and_float_pictures_in_range_are_scaled_and_others_refused():
    wide = read(Image.fromarray(np.array([[0, 65535]], np.int32)))
    np.testing.assert_array_equal(pixels(wide), repeated(np.array([[0, 255]])))
    floats = read(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)))
    np.testing.assert_array_equal(pixels(floats), repeated(np.array([[0, 128, 255]])))
    assert floats.notes == ("float scaled to 8 bit",)
    with pytest.raises(ImageError, match=r"got 32 bit pixels in 0\.\.70000; one channel holds at most 16 bit"):
        read(Image.fromarray(np.array([[0, 70000]], np.int32)))
    with pytest.raises(ImageError, match=r"got floats in 0\.\.255; a photo is uint8 0\.\.255 or float 0\.\.1"):
        read(Image.fromarray(np.array([[0, 255]], np.float32)))


def test_cmyk_is_converted_and_said(tmp_path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "x.tif")
    photo = read(tmp_path / "x.tif")
    np.testing.assert_array_equal(pixels(photo)[0, 0], [0, 255, 255])
    assert photo.notes == ("CMYK converted",)


def test_premultiplied_grey_and_lab_are_understood():
    photo = read(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(np.full_like(GREY, 128))]).convert("La"))
    np.testing.assert_allclose(pixels(photo), blended(repeated(GREY), np.full_like(GREY, 128)), atol=2)
    assert read(Image.new("LAB", (1, 1), (255, 0, 0))).notes == ("LAB converted",)


def test_a_mode_that_pillow_cannot_convert_is_refused(monkeypatch):
    def refuse(*_):
        raise ValueError("conversion from CMYK to RGB not supported")

    picture = Image.new("CMYK", (2, 2))
    monkeypatch.setattr(picture, "convert", refuse)
    with pytest.raises(ImageError, match=r"picture 'image' cannot be decoded \(conversion from CMYK"):
        read(picture)


def test_of_an_animation_the_first_frame_is_taken_and_said(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    photo = read(tmp_path / "x.gif")
    np.testing.assert_array_equal(pixels(photo)[0, 0], [255, 0, 0])
    assert photo.notes == ("first of 3 frames",)
    with Image.open(tmp_path / "x.gif") as opened:
        opened.seek(2)
        photo = read(opened)
    np.testing.assert_array_equal(pixels(photo)[0, 0], [0, 0, 255])
    assert photo.notes == ("frame 3 of 3",)


def test_the_bundled_photos_are_read_by_name():
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, an optional extra")
    photo = read("skimage:chelsea")
    np.testing.assert_array_equal(pixels(photo), data.chelsea())
    assert photo.name == "chelsea"
    with pytest.raises(ImageError, match=r"scikit-image brings no photo 'chelsie'; it has astronaut, .*chelsea"):
        read("skimage:chelsie")


def test_without_scikit_image_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"'skimage:chelsea' needs scikit-image, .* pip install 'seewhy\[demo\]'"):
        read("skimage:chelsea")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (np.zeros((3, 5, 5), np.uint8), r"got an array of shape \(3, 5, 5\); a photo is uint8 .* pass one picture"),
        (np.zeros((1, 5, 5, 3), np.uint8), r"got an array of shape \(1, 5, 5, 3\); .* pass one picture"),
        (np.zeros((0, 5, 3), np.uint8), r"got an array of shape \(0, 5, 3\) without a pixel"),
        (np.zeros((5, 5), np.uint16), r"got an array of uint16; .* convert it"),
        (np.full((5, 5), np.nan), "got an array with NaN or infinity; .* mend these pixels"),
        (np.full((5, 5), np.inf), "got an array with NaN or infinity; .* mend these pixels"),
        (torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(0)), r"got floats in -\d.*undo the model's norm"),
        (torch.zeros(1, 3, 5, 5), r"got a tensor of shape \(1, 3, 5, 5\); one photo is \(3 or 1, h, w\); pass x\[0\]"),
        (torch.zeros(5, 5, 3), r"got a tensor of shape \(5, 5, 3\); one photo is .* permute it to channels first"),
        ("http://a.b/cat.jpg", "got the address 'http://a.b/cat.jpg'; .* download it first"),
    ],
)
def test_what_is_no_photo_is_refused_with_the_rule(source, text):
    with pytest.raises(ImageError, match=text):
        read(source)


def test_another_type_is_refused_with_the_choices():
    with pytest.raises(ImageError, match="got a int; a photo is a path, a Pillow picture, an array"):
        inspect.unwrap(read)(3)  # unwrapped: the type checker that the tests run under would be faster


def test_files_that_are_not_there_or_empty(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"")
    (tmp_path / "cat.txt").write_text("meow")
    with pytest.raises(ImageError, match=r"no file '.*kat\.jpg' \(looked in .*\); .*; closest 'cat\.jpg'"):
        read(tmp_path / "kat.jpg")
    with pytest.raises(ImageError, match=r"no file '.*none/x\.png' .* check the path"):
        read(tmp_path / "none" / "x.png")
    with pytest.raises(ImageError, match="is a folder; a photo is one file; pass a file in it"):
        read(tmp_path)
    with pytest.raises(ImageError, match=r"cat\.jpg' has zero bytes; a photo has pixels"):
        read(tmp_path / "cat.jpg")
    with pytest.raises(ImageError, match=r"cat\.txt' is no picture that Pillow knows; it reads JPEG"):
        read(tmp_path / "cat.txt")
    with pytest.raises(ImageError, match="is no regular file"):
        read("/dev/null")


def test_permission_denied_is_said(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "x.png")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root, as in containers, may read a file of mode 0
    with pytest.raises(ImageError, match=r"no permission to read '.*x\.png'; .* change its rights"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tif", "webp"])
@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_truncated_files_are_refused_whatever_the_format(tmp_path, suffix, kept):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ImageError, match=r"cannot be decoded \(.*\); a photo must be complete|no picture that Pillow"):
        read(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [40, 30, 10])
def test_more_pixels_than_the_limit_are_refused(tmp_path, monkeypatch, limit):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    if limit == 40:
        np.testing.assert_array_equal(pixels(read(tmp_path / "x.png")), RGB)
        return
    with pytest.raises(ImageError, match=rf"x\.png' has 35 pixels; at most {limit} are read, .* if you trust it"):
        read(tmp_path / "x.png")


def test_a_switched_off_limit_is_respected(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    np.testing.assert_array_equal(pixels(read(tmp_path / "x.png")), RGB)


def test_threads_read_the_same_pixels_and_no_file_stays_open(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(pixels(read(path)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all((one == RGB).all() for one in found)
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        assert not any(fd.exists() and fd.resolve() == path.resolve() for fd in descriptors.iterdir())
