"""Which of what a model is given are its images: photos in dictionaries, keywords, batches of bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.inputs import named
from seewhy.types import ModelError, ShapeError

HOW = seewhy.Preprocess((24, 32), "squash")


class Answering(nn.Module):
    """As CLIP, VQA models and captioners: the words come first, the picture by a keyword."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.words, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Embedding(9, 6), nn.Linear(6, 4)

    def forward(self, input_ids=None, pixel_values=None, scale=1.0):
        cells = self.conv(pixel_values).relu()
        return scale * self.head(cells.mean((2, 3)) * self.words(input_ids).mean(1))


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def test_a_photo_may_stand_in_the_dictionary_of_a_processor(photo):
    model, ids = Answering().eval(), torch.tensor([[1, 2, 3]])
    ready, _ = HOW(seewhy.read(photo))
    expected = seewhy.explain(model, {"pixel_values": ready[None], "input_ids": ids}, 2)
    picture = seewhy.read(photo).image
    pixels = np.array(picture)
    loaded = seewhy.Loaded(model, HOW, None, "mine")
    for given in (str(photo), photo, picture, pixels, [photo], torch.from_numpy(pixels.transpose(2, 0, 1))):
        for way, how in ((model, HOW), (loaded, None)):
            e = seewhy.explain(way, {"pixel_values": given, "input_ids": ids}, 2, preprocess=how)
            assert torch.equal(e.map, expected.map)
            assert torch.equal(e.scores, expected.scores)
            assert e[0].on_photo().shape == (48, 80)


def test_images_go_to_the_keyword_that_is_left_for_them(photo):
    model, ids = Answering().eval(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    x = torch.rand(2, 3, 24, 32)
    expected = seewhy.explain(model, {"pixel_values": x, "input_ids": ids}, 2)
    for args, kwargs in (((), {"input_ids": ids}), ((ids,), None), ((), {"input_ids": ids, "scale": 1.0})):
        e = seewhy.explain(model, x, 2, args=args, kwargs=kwargs)
        assert torch.equal(e.map, expected.map)
    e = seewhy.explain(model, str(photo), 2, kwargs={"input_ids": ids[:1]}, preprocess=HOW)
    assert e[0].on_photo().shape == (48, 80)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, question, picture, scale=1.0):
            return self.inner(question, picture, scale)

    assert named(Own(), x, {"question": ids})[1] == "picture"
    assert named(Own(), x, {"scale": 2.0})[1] is None  # the first argument, as ever
    assert torch.equal(seewhy.explain(Own(), x, 2, kwargs={"question": ids}).map, expected.map)


def test_text_in_a_dictionary_is_a_photo_only_where_images_are_taken():
    x, model = torch.rand(1, 3, 8, 8), Answering()
    images, name, further = named(model, {"pixel_values": x, "prompt": "a cat.jpg", "input_ids": 3}, {"more": 1})
    assert images is x
    assert (name, further) == ("pixel_values", {"prompt": "a cat.jpg", "input_ids": 3, "more": 1})
    with pytest.raises(ModelError, match=r"with prompt as images, in which no floating tensor \(b c h w\) of images"):
        named(model, {"prompt": "cat.jpg"}, {})
    picture = Image.new("RGB", (4, 4))
    assert named(model, {"picture": picture, "prompt": "a cat"}, {})[:2] == (picture, "picture")
    assert named(model, {"picture": Path("cat.jpg"), "mask": x}, {})[:2] == (Path("cat.jpg"), "picture")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "pixel_values",
            "pixel_values (24, 8) would be rows of patches if image_grid_thw were there, which says their grid",
        ),
        (
            "pixel_values_videos",
            "pixel_values_videos are patches of videos, which are not read (give single frames, as pictures)",
        ),
    ],
)
def test_rows_of_patches_without_their_grid_or_of_videos_are_told(name, why):
    with pytest.raises(ModelError) as error:
        named(Answering(), {"input_ids": torch.tensor([[1]]), name: torch.zeros(24, 8)}, {})
    assert f" in which {why}; give the images alone" in str(error.value)


@pytest.mark.parametrize(
    ("fit", "size", "cut"), [("crop", (24, 24), "40%"), ("squash", (24, 24), ""), ("crop", (24, 40), "")]
)
def test_what_the_preprocessing_cut_off_is_told(photo, fit, size, cut):
    model = nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    notes = seewhy.explain(model, photo, 1, preprocess=seewhy.Preprocess(size, fit)).notes
    told = [note for note in notes if note.startswith("the preprocessing crops photos")]
    assert told == (
        [f"the preprocessing crops photos: up to {cut} of one was not seen, and shows no heat"] if cut else []
    )


def test_a_batch_of_bytes_is_several_photos():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    photos = torch.randint(0, 256, (2, 3, 48, 80), dtype=torch.uint8)
    expected = seewhy.explain(model, list(photos), 1, preprocess=HOW)
    for given in (photos, photos.permute(0, 2, 3, 1).numpy()):
        e = seewhy.explain(model, given, 1, preprocess=HOW)
        assert torch.equal(e.map, expected.map)
        assert e[1].on_photo().shape == (48, 80)
    with pytest.raises(ShapeError, match=r"got images of type torch.uint8; give floating numbers"):
        seewhy.explain(model, photos, 1)


def test_a_single_signal_is_told_what_to_add():
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ShapeError) as error:
        seewhy.explain(model, torch.rand(2, 256), 1)
    assert str(error.value) == (
        "got a single signal of shape (2, 256); this model takes a batch (b c l): give images[None]"
    )


def test_photos_that_keep_their_sizes_are_no_batch_unless_these_are_alike():
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    photos = [torch.randint(0, 256, (3, 48, width), dtype=torch.uint8) for width in (80, 80, 64)]
    own = seewhy.Preprocess(None)
    assert seewhy.explain(model, photos[:2], 1, preprocess=own).map.shape == (2, 48, 80)
    with pytest.raises(ShapeError, match=r"inputs of several sizes \(48x80, 48x64\), which are no batch; explain them"):
        seewhy.explain(model, photos, 1, preprocess=own)


def test_a_photo_that_keeps_its_shape_is_resized_by_its_shorter_side_or_not_at_all():
    photo = seewhy.read(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    values, frame = seewhy.Preprocess(None, **plain)(photo)
    assert torch.equal(values, torch.from_numpy(np.array(photo.image)).permute(2, 0, 1) / 255)
    assert frame.input_size == (48, 80)
    values, _ = seewhy.Preprocess(None, resize=24, **plain)(photo)
    assert torch.equal(values, seewhy.Preprocess((24, 40), "squash", **plain)(photo)[0])
    for wrong in ({"fit": "squash"}, {"resize": (24, 40)}):
        with pytest.raises(ModelError, match="its shorter side or not at all: leave fit out, and give resize=520 or"):
            seewhy.Preprocess(None, **wrong)
