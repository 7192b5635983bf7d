"""Tiles: weights that sum to one, the map of the whole image where that can be had, one question for all."""

import warnings

import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.data.windows import Windows
from seewhy.types import LayerError, MapWarning, ShapeError, TargetError

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
WHOLE = {1: (61,), 2: (50, 41), 3: (18, 21, 16)}
TILE = {1: (20,), 2: (20, 16), 3: (10, 12, 8)}


class Summing(nn.Module):
    """Two convolutions and a linear head of the sums: a cell's gradient does not depend on how large the image is."""

    def __init__(self, rank=2, stride=1):
        super().__init__()
        torch.manual_seed(0)
        first, second = CONV[rank](3, 6, 3, padding=1), CONV[rank](6, 8, 3, padding=1, stride=stride)
        self.features = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.head = nn.Linear(8, 4)
        self.ran = []

    def forward(self, x, gain=None):
        self.ran.append(len(x))
        pooled = self.features(x).flatten(2).sum(-1)
        return self.head(pooled if gain is None else pooled * gain)


class Edges(nn.Module):
    """One channel of the brightness, rectified, and its mean and its negative as scores."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU())
        nn.init.ones_(self.features[0].weight)

    def forward(self, x):
        mean = self.features(x).mean((2, 3))
        return torch.cat([mean, 0.5 - mean], 1)


def image(rank=2):
    return torch.randn(1, 3, *WHOLE[rank], generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("overlap", "margin"), [(0.0, 0), (0.3, 1), (0.5, 2), (0.9, 0)])
def test_the_weights_of_all_windows_sum_to_one_everywhere(rank, overlap, margin):
    windows = Windows.over(WHOLE[rank], TILE[rank], overlap, margin)
    total = torch.zeros(WHOLE[rank], dtype=torch.float64)
    for place, weight in zip(windows.places, windows.weights, strict=True):
        assert tuple(along.stop - along.start for along in place) == TILE[rank]
        assert (weight >= 0).all()
        total[place] += weight
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)
    assert windows.shares.sum().item() == pytest.approx(1, abs=1e-14)


def test_the_last_window_ends_with_the_image_and_weights_fall_towards_inner_sides():
    windows = Windows.over((11,), (4,), 0.5, 0)
    assert windows.starts == ((0, 2, 4, 6, 7),)
    first = Windows.over((6,), (4,), 0.5, 0).along[0][0]
    # alone for two pixels; then 4 : 0.5 is not asked, as the first counts by its distance from its right side only
    torch.testing.assert_close(first, torch.tensor([1, 1, 1.5 / 2, 0.5 / 2], dtype=torch.float64))


@pytest.mark.parametrize(
    ("rank", "method", "margin"),
    # a cell sees two pixels around it; what a pixel's gradient depends on reaches as far again
    [*((rank, "grad_cam", 2) for rank in (1, 2, 3)), (2, "hires_cam", 2), (1, "saliency", 4), (2, "saliency", 4)],
)
def test_with_a_margin_as_wide_as_the_padding_reaches_the_stitched_map_is_that_of_the_whole(rank, method, margin):
    model, x = Summing(rank).double(), image(rank)
    whole = seewhy.explain(model, x, 1, method).map[0]
    stitched = seewhy.tiles(model, x, 1, method, size=TILE[rank], margin=margin)
    assert len(stitched) > 3
    torch.testing.assert_close(stitched.map, whole, rtol=1e-12, atol=1e-14)
    without = seewhy.tiles(model, x, 1, method, size=TILE[rank])
    assert (without.map - whole).abs().max() > 1e-3 * whole.abs().max()


@pytest.mark.parametrize("method", ["grad_cam", "eigen_cam", "score_cam", "rise"])
def test_an_image_of_one_tile_is_explained_as_ever(method):
    model, x = Summing().double(), image()
    options = {"masks": 5} if method == "rise" else {}
    one, plain = (
        seewhy.tiles(model, x, None, method, size=WHOLE[2], options=options),
        seewhy.explain(model, x, None, method, options=options),
    )
    assert torch.equal(one.map, plain.map[0])
    assert (one.whole.scores, one.whole.target) == (plain.scores, plain.target)
    assert one.scores.tolist() == plain.scores.tolist()


def test_tiles_keep_their_raw_units_so_that_a_dark_one_stays_dark():
    x = torch.zeros(1, 1, 8, 24)
    x[..., 2:6, 18:22] = 1
    x[..., 0, 0] = 0.01
    tiled = seewhy.tiles(Edges(), x, 0, size=8, overlap=0)
    # the gradient of a tile's mean is 1/64, which Grad-CAM averages over its 64 cells
    torch.testing.assert_close(tiled.map, x[0, 0] / 64)
    torch.testing.assert_close(tiled.scores, torch.tensor([0.01 / 64, 0, 16 / 64]))
    torch.testing.assert_close(tiled.whole.scores, torch.tensor([16.01 / 192]))
    assert tiled.starts.tolist() == [[0, 0], [0, 8], [0, 16]]


def test_the_question_is_the_same_in_all_tiles_though_they_would_predict_otherwise():
    x = torch.zeros(1, 1, 8, 24)
    x[..., 16:] = 1  # one tile of three predicts class 0; all together, with a mean of 1/3, class 0 too
    tiled = seewhy.tiles(Edges(), x, size=8, overlap=0)
    assert tiled.whole.class_indices == (0,)
    assert tiled.scores.tolist() == [0, 0, 1]
    x[..., 16:] = 0.6
    assert seewhy.tiles(Edges(), x, size=8, overlap=0, rectify=False).whole.class_indices == (1,)


def test_only_a_few_tiles_are_run_at_a_time_and_how_many_does_not_matter():
    x, models = image(), [Summing().double() for _ in range(2)]
    many, one = (seewhy.tiles(m, x, 1, size=16, at_once=n) for m, n in zip(models, (5, 1), strict=True))
    assert (max(models[0].ran), max(models[1].ran)) == (5, 1)
    torch.testing.assert_close(many.map, one.map, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(many.scores, one.scores, rtol=1e-13, atol=0)


def test_what_else_the_model_is_given_for_the_image_goes_to_every_tile():
    model, x = Summing().double(), image()
    gain = torch.rand(1, 8, dtype=torch.float64)
    tiled = seewhy.tiles(model, x, 1, size=20, args=(gain,), margin=2)
    torch.testing.assert_close(tiled.map, seewhy.explain(model, x, 1, args=(gain,)).map[0], rtol=1e-12, atol=1e-14)


def test_a_photo_keeps_its_pixels():
    pixels = torch.zeros(30, 44, dtype=torch.uint8)
    pixels[9:12, 33:37] = 255
    photo = Image.fromarray(pixels.numpy())
    how = seewhy.Preprocess((12, 12), "crop", mean=(0.0,), std=(1.0,), channels="grey")
    tiled = seewhy.tiles(Edges(), photo, 0, preprocess=how)
    assert (tiled.size, tiled.map.shape) == ((12, 12), (30, 44))
    seen = tiled.whole[0].on_photo()
    torch.testing.assert_close(seen, tiled.map)
    assert torch.equal(seen > 0, pixels > 0)
    assert tiled.whole[0].overlay().size == (44, 30)


def test_a_map_that_is_zero_everywhere_is_said_so_and_one_dark_tile_is_no_news():
    x = torch.zeros(1, 1, 8, 16)
    with pytest.warns(MapWarning, match="zero everywhere"):
        tiled = seewhy.tiles(Edges(), x, 0, size=8, overlap=0)
    assert tiled.whole.notes[-1] == "the map is zero everywhere; it says nothing about places"
    x[..., 12:] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seewhy.tiles(Edges(), x, 0, size=8, overlap=0).map.any()


def test_tiles_smaller_than_what_a_cell_sees_are_told():
    said = seewhy.tiles(Summing(stride=2).double(), image(), 1, size=4).whole.notes
    assert any(
        note.startswith("a cell of layer features could see 5x5 pixels, more than a tile's 4x4") for note in said
    )
    said = seewhy.tiles(Summing(stride=2).double(), image(), 1, size=8).whole.notes
    assert not any("could see" in note for note in said)


def test_the_model_takes_its_channels_last_or_behind_the_frames_in_tiles_too():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Summing().double()

        def forward(self, x):
            return self.net(x.permute(0, 3, 1, 2))

    x = image()
    tiled = seewhy.tiles(Last(), x.permute(0, 2, 3, 1), 1, size=20, margin=2)
    torch.testing.assert_close(tiled.map, seewhy.explain(Summing().double(), x, 1).map[0], rtol=1e-12, atol=1e-14)


BAD = {
    "larger than the image": (
        {"size": 64},
        ShapeError,
        "got tiles of 64x64 for an image of 50x41; a tile lies within the image: give another size=, or explain the "
        "image as a whole by seewhy.explain",
    ),
    "one axis too many": ({"size": (8, 8, 8)}, ShapeError, "got tiles of 8x8x8 for an image of 50x41; a tile lies"),
    "unknown size": ({}, ShapeError, "the size of a tile is not known; give size=, the pixels that the model takes"),
    "overlap": ({"size": 16, "overlap": 1}, ShapeError, "got overlap=1; it is a share of a tile, from 0 to below 1"),
    "margin": (
        {"size": 16, "margin": 5},
        ShapeError,
        "got margin=5; tiles overlap by 8 pixels, of which each can leave half to the other: give 0 to 4, or more "
        "overlap=",
    ),
    "none at once": ({"size": 16, "at_once": 0}, ShapeError, "got at_once=0; at least one tile runs at a time"),
    "several images": (
        {"size": 16, "image": image().expand(2, -1, -1, -1)},
        ShapeError,
        "got 2 images; tiles are cut from one: call it for each",
    ),
    "several targets": ({"size": 16, "target": [1]}, TargetError, "got 1 targets; tiles answer one question"),
    "a rank": (
        {"size": 16, "target": seewhy.Rank(2) - seewhy.Rank(1)},
        TargetError,
        "got Rank(place=2), which the output of each tile would settle in another way; name what is asked for in all "
        "of them, as in seewhy.Logit(3)",
    ),
    "one pixel": (
        {"size": 1, "overlap": 0},
        LayerError,
        "of tiles of 1x1, which size= and overlap= make: no layer has a spatial grid of more than one cell",
    ),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_input_gets_one_sentence(what):
    given, kind, text = BAD[what]
    with pytest.raises(kind) as error:
        seewhy.tiles(Summing().double(), **{"image": image(), "target": 1, **given})
    assert str(error.value).startswith(text)


def test_an_output_of_places_needs_a_question():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(TargetError, match="no class can be predicted by all tiles together"):
        seewhy.tiles(model, image().float(), size=16)
    tiled = seewhy.tiles(model, image().float(), lambda output: output[:, 1].sum((1, 2)), size=16)
    assert tiled.map.any()


def test_the_signed_form_is_that_of_explain() -> None:
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    model = torch.nn.Sequential(model, torch.nn.Flatten(), torch.nn.Linear(4, 3)).double()
    options = {"patch": 4, "stride": 2}
    tiled = seewhy.tiles(model, x, 1, "occlusion", size=16, rectify=False, options=options)
    assert torch.equal(tiled.map, seewhy.explain(model, x, 1, "occlusion", rectify=False, options=options).map[0])
