"""Tiles: weights that sum to one, the map of the whole image where that can be had, one question for all."""

import warnings

import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.data.windows import Windows, size_of
from seewhy.types import LayerError, MapWarning, MethodError, ModelError, ShapeError, TargetError

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


@pytest.mark.parametrize(("column", "value", "predicted"), [(4, 3.05, 1), (12, 5.8, 0)])
def test_the_predicted_class_weighs_each_tile_by_its_share_of_the_image(column, value, predicted):
    x = torch.zeros(1, 1, 8, 13)
    x[..., column] = value
    # tiles of 8 begin at 0, 4 and 5 and stand for .44, .20 and .36: the first two see column 4, the last column 12
    tiled = seewhy.tiles(Edges(), x, size=8, overlap=0.5, rectify=False)
    assert tiled.whole.class_indices == (predicted,)
    brightness = tiled.scores if predicted == 0 else 0.5 - tiled.scores
    assert (float(brightness.mean()) > 0.25) != (predicted == 0), "unweighed, the other class would win"


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


@pytest.mark.parametrize("size", [8, (8, 16)])
def test_a_map_that_is_positive_nowhere_is_said_so_as_of_a_whole_image(size):
    x = torch.rand(1, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    text = "image 0: the map is positive nowhere, so that its picture shows no heat; rectify=False"
    with pytest.warns(MapWarning, match=text):
        tiled = seewhy.tiles(Edges(), x, -seewhy.Logit(0), "hires_cam", size=size, overlap=0)
    assert len([note for note in tiled.whole.notes if note.startswith(text)]) == 1


def test_a_map_that_is_zero_everywhere_is_said_so_and_one_dark_tile_is_no_news():
    x = torch.zeros(1, 1, 8, 16)
    with pytest.warns(MapWarning, match="zero everywhere"):
        tiled = seewhy.tiles(Edges(), x, 0, size=8, overlap=0)
    assert tiled.whole.notes[-1].startswith("image 0: the map is zero everywhere; it says nothing about places")
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
    "one axis too many": (
        {"size": (8, 8, 8)},
        ShapeError,
        "got tiles of 3 axes, 8x8x8, for an image of 2, 50x41; give size= one number for all axes, or one for each",
    ),
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
    "a contrast with whatever is nearest": (
        {"size": 16, "target": seewhy.Contrast()},
        TargetError,
        "got Contrast(classes=None, references=None, gamma=1.0, weighting='softmax'), which the output of each tile "
        "would settle in another way; name what is asked for in all of them, as in "
        "seewhy.Logit(3), or seewhy.Logit(3) - seewhy.Logit(5)",
    ),
    "a class for each of several images": (
        {"size": 16, "target": seewhy.Logit([1, 2]), "at_once": 2},
        TargetError,
        "got ClassScore(kind='logit', classes=(1, 2), path=()), which the output of each tile would settle in another",
    ),
    "a box": (
        {"size": 16, "target": seewhy.Box()},
        TargetError,
        "got a box, which is found anew in each tile, and cut in two where a tile ends; explain the part of the image "
        "around it by seewhy.explain",
    ),
    "scaled by what is in a tile": (
        {"size": 16, "method": "recipro_cam"},
        MethodError,
        "the map of recipro_cam is scaled by what is in a tile, so that one without evidence would shine like any "
        "other; take hires_cam, whose tiles have one unit, or sharp, which is scaled over the whole image",
    ),
    "of all tiles that run together": (
        {"size": 16, "method": "dff"},
        MethodError,
        "the map of dff depends on which tiles run together",
    ),
    "one pixel": (
        {"size": 1, "overlap": 0},
        LayerError,
        "of tiles of 1x1, which size= and overlap= make: no layer has a spatial grid of more than one cell",
    ),
}


@pytest.mark.parametrize("weighting", ["softmax", "mean"])
def test_a_contrast_of_named_classes_is_the_same_in_every_tile(weighting):
    model, x = Summing().double(), image()
    asked = seewhy.Contrast(1, [0, 2], weighting=weighting)
    tiled = seewhy.tiles(model, x, asked, size=20)
    pieces = torch.stack([x[0][:, *place] for place in Windows.over((50, 41), (20, 20), 0.5, 0).places])
    torch.testing.assert_close(tiled.scores, seewhy.explain(model, pieces, asked).scores, rtol=1e-12, atol=1e-14)
    assert seewhy.tiles(model, x, seewhy.Contrast("b", ["a"]), size=20, labels=["a", "b", "c", "d"]).map.any()


@pytest.mark.parametrize("asked", [seewhy.Contrast(1), seewhy.Contrast(1, 2), seewhy.Contrast(references=[2])])
def test_a_contrast_that_names_but_some_of_it_is_refused(asked):
    with pytest.raises(TargetError, match=r"^got Contrast\(.*\), which the output of each tile would settle"):
        seewhy.tiles(Summing().double(), image(), asked, size=20)


def test_a_tile_of_one_cell_of_the_deeper_layers_is_refused_unless_a_layer_is_named():
    torch.manual_seed(0)
    deep = nn.Sequential(
        nn.Conv2d(1, 3, 3, 8, 1), nn.ReLU(), nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 2, 3, 1, 1)
    )
    model = nn.Sequential(*deep, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(LayerError) as error:
        seewhy.tiles(model, torch.rand(1, 1, 48, 48), 1, size=16)
    assert str(error.value) == (
        "for tiles of 16x16 layer 4 sees one cell and padding around it, and no layer from there on has a grid; give "
        "larger tiles by size=, or name a layer of a finer grid: layer="
    )
    assert seewhy.tiles(model, torch.rand(1, 1, 48, 48), 1, layer="1", size=16).whole.layers == ("1",)


@pytest.mark.parametrize("what", list(BAD))
def test_bad_input_gets_one_sentence(what):
    given, kind, text = BAD[what]
    with pytest.raises(kind) as error:
        seewhy.tiles(Summing().double(), **{"image": image(), "target": 1, **given})
    assert str(error.value).startswith(text)


def test_an_output_without_scores_of_classes_needs_a_question():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Summing()

        def forward(self, x):
            scores = self.net(x)
            return {"one": scores, "two": 2 * scores}

    with pytest.raises(TargetError, match="no class can be predicted by all tiles together"):
        seewhy.tiles(Several(), image().float(), size=16)
    tiled = seewhy.tiles(Several(), image().float(), lambda output: output["two"][:, 1], size=16)
    assert tiled.map.any()


def test_the_signed_form_is_that_of_explain() -> None:
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    model = torch.nn.Sequential(model, torch.nn.Flatten(), torch.nn.Linear(4, 3)).double()
    options = {"patch": 4, "stride": 2}
    tiled = seewhy.tiles(model, x, 1, "occlusion", size=16, rectify=False, options=options)
    assert torch.equal(tiled.map, seewhy.explain(model, x, 1, "occlusion", rectify=False, options=options).map[0])


# Units: a tile without evidence stays dark


SCALED_IN_TILES = {"winsor_cam", "refine_cam", "full_grad", "recipro_cam", "dff"}
FEW = {
    "rise": {"masks": 40},
    "ss_cam": {"samples": 2},
    "is_cam": {"samples": 2},
    "opti_cam": {"steps": 5},
    **{name: {"samples": 2} for name in ("smooth_grad", "smooth_grad_cam_pp", "expected_grad_cam")},
}


@pytest.fixture(scope="module")
def one_bright_object():
    """A network without biases, as bright as what it sees, and an image that is dark but for a part."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 4, 4, bias=False), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
    head = nn.Linear(8, 4, bias=False)
    nn.init.uniform_(head.weight)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    x = 1e-3 * torch.rand(1, 3, 32, 96, generator=generator)
    x[..., 8:24, 8:24] = torch.rand(3, 16, 16, generator=generator)
    return model, x


def energy(map):
    heat = map.clamp_min(0)
    return float(heat[8:24, 8:24].sum() / heat.sum())


@pytest.mark.parametrize(
    "method", [name for name, row in seewhy.METHODS.items() if row.layers != "tokens" and name not in SCALED_IN_TILES]
)
def test_of_one_bright_object_tiles_make_as_much_as_the_whole_image(one_bright_object, method):
    model, x = one_bright_object
    options = FEW.get(method)
    tiled = seewhy.tiles(model, x, 0, method, size=32, options=options)
    whole = seewhy.explain(model, x, 0, method, options=options).map[0]
    assert energy(tiled.map) > 0.85 * energy(whole)
    dark = [float(map[:, 40:].abs().max() / map.abs().max()) for map in (tiled.map, whole)]
    assert dark[0] < dark[1] + 0.2


@pytest.mark.parametrize("method", sorted(SCALED_IN_TILES))
def test_a_method_that_scales_by_what_is_in_a_tile_is_refused_unless_there_is_only_one(one_bright_object, method):
    model, x = one_bright_object
    with pytest.raises(MethodError, match="take hires_cam"):
        seewhy.tiles(model, x, 0, method, size=32)
    one = seewhy.tiles(model, x, 0, method, size=(32, 96))
    assert torch.equal(one.map, seewhy.explain(model, x, 0, method).map[0])


@pytest.mark.parametrize("asked", ["sharp", "layer_cam"])
def test_several_layers_are_scaled_and_fused_over_the_whole_image(asked):
    model, x = Summing().double(), image()
    layers = ["features.1", "features.3"]
    whole = seewhy.explain(model, x, 1, asked, layer=layers)
    tiled = seewhy.tiles(model, x, 1, asked, layer=layers, size=20, margin=4)
    assert tiled.whole.units == whole.units == "relative"
    assert tiled.whole.layers == whole.layers
    torch.testing.assert_close(tiled.map, whole.map[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("changes", "combine"),
    [(seewhy.Flips(), "mean"), (seewhy.Flips((-1, -2)), "variance"), (seewhy.Noise(2), "mean_squares")],
)
@pytest.mark.parametrize("asked", ["hires_cam", "sharp"])
def test_an_ensemble_is_of_changed_copies_of_the_whole_image(changes, combine, asked):
    model, x = Summing().double(), image()
    given = {"ensemble": changes, "combine": combine}
    whole = seewhy.explain(model, x, 1, asked, **given)
    tiled = seewhy.tiles(model, x, 1, asked, size=20, margin=2, **given)
    torch.testing.assert_close(tiled.map, whole.map[0], rtol=1e-10, atol=1e-14)
    assert tiled.whole.units == whole.units
    clean = seewhy.tiles(model, x, 1, asked, size=20, margin=2)
    torch.testing.assert_close(tiled.scores, clean.scores)


def test_an_image_made_larger_is_cut_into_larger_tiles(one_bright_object):
    model, x = one_bright_object
    sizes = set()
    model[0].register_forward_hook(lambda _module, inputs, _output: sizes.add(tuple(inputs[0].shape[2:])))
    tiled = seewhy.tiles(model, x, 0, "hires_cam", size=32, ensemble=seewhy.Scales((1.0, 2.0)))
    assert sizes == {(32, 32), (64, 64)}
    assert energy(tiled.map) > 0.5


# Segmentations: the region is the whole image's


class Segmenting(nn.Module):
    """Scores at every cell: of brightness, and of its absence."""

    def __init__(self, stride=1):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3, stride, 1), nn.ReLU())
        self.head = nn.Conv2d(2, 2, 1)
        for layer in (self.features[0], self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.features[0].weight[0].fill_(1 / 9)
            self.head.weight[1, 0] = 1
            self.head.bias[0] = 0.2

    def forward(self, x):
        return self.head(self.features(x))


def one_bright_square():
    x = torch.zeros(1, 1, 16, 48, dtype=torch.float64)
    x[..., 4:12, 6:18] = 1
    return x


LABELS = ["background", "lamp"]


@pytest.mark.parametrize(
    "asked",
    [
        1,
        "lamp",
        None,
        seewhy.Region("lamp"),
        seewhy.Region("lamp") - seewhy.Region("background"),
        seewhy.Region(mask=one_bright_square()[0, 0] > 0),
        seewhy.Region("lamp", point=(7, 9)),
    ],
)
def test_a_region_is_that_of_the_whole_image_and_a_tile_without_it_is_dark(asked):
    model, x = Segmenting().double(), one_bright_square()
    given = {"layer": "features", "method": "hires_cam", "labels": LABELS, "rectify": False}
    whole = seewhy.explain(model, x, asked, **given)
    tiled = seewhy.tiles(model, x, asked, size=16, margin=2, **given)
    torch.testing.assert_close(tiled.map, whole.map[0], rtol=1e-9, atol=1e-12)
    empty = float(tiled.scores[-1])
    assert empty == 0 or "background" in tiled.whole.target[0]
    words = tiled.whole.target[0].split(" over ")[0].split(" in ")[0]
    assert whole.target[0].startswith(words)


def test_the_title_of_a_region_speaks_of_the_whole_image():
    model, x = Segmenting().double(), one_bright_square()
    tiled = seewhy.tiles(model, x, size=16, margin=2, labels=LABELS)
    whole = seewhy.explain(model, x, labels=LABELS)
    assert tiled.whole.target == whole.target == ("lamp over 136 of 768 pixels",)
    assert [torch.equal(*masks) for masks in zip(tiled.whole.asked[0].masks, whole.asked[0].masks, strict=True)] == [
        True
    ]
    assert "target: the class that covers most of the image ('background' left out), over the pixels" in " ".join(
        tiled.whole.notes
    )


def test_a_class_that_no_tile_has_is_an_error_about_the_whole():
    with pytest.raises(TargetError, match="no pixel of image 0 is predicted as 'lamp'; predicted are 'background'"):
        seewhy.tiles(Segmenting().double(), torch.zeros(1, 1, 16, 48).double(), "lamp", size=16, labels=LABELS)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("changes", [(), seewhy.Flips(), seewhy.Flips((-2, -1)), seewhy.Scales((1.0, 2.0))])
def test_a_region_stays_on_its_part_of_the_picture_in_changed_copies(changes, stride):
    model, x = Segmenting(stride).double(), one_bright_square()
    given = {"layer": "features", "method": "hires_cam", "labels": LABELS, "ensemble": changes}
    whole = seewhy.explain(model, x, "lamp", **given).map[0]
    tiled = seewhy.tiles(model, x, "lamp", size=16, margin=2, **given).map
    assert (tiled - whole).abs().max() < 0.1 * whole.max()
    assert tiled[:, 30:].abs().max() == 0


# Questions, sizes, notes


@pytest.mark.parametrize(
    "asked",
    [
        seewhy.Value(1),
        -seewhy.Value(1),
        seewhy.Value(1) - 0.5 * seewhy.Logit(2),
        seewhy.Value(1, towards=100.0),
        seewhy.Similarity(torch.ones(4, dtype=torch.float64), kind="dot"),
    ],
)
def test_questions_that_all_tiles_settle_alike_are_taken(asked):
    model, x = Summing().double(), image()
    tiled = seewhy.tiles(model, x, asked, "hires_cam", size=20, margin=2, rectify=False)
    whole = seewhy.explain(model, x, asked, "hires_cam", rectify=False)
    torch.testing.assert_close(tiled.map, whole.map[0], rtol=1e-12, atol=1e-14)
    assert tiled.whole.target == whole.target


@pytest.mark.parametrize("asked", [seewhy.Similarity(1), seewhy.Contrast(), seewhy.Value(towards=[1.0, 2.0])])
def test_questions_that_tiles_would_settle_in_different_ways_are_refused(asked):
    with pytest.raises(TargetError, match="the output of each tile would settle in another way"):
        seewhy.tiles(Summing().double(), image(), asked, size=20)


@pytest.mark.parametrize("given", ["224", 224.5, 0, -3, True, (16, 8.0), [], None])
def test_a_size_is_whole_pixels(given):
    with pytest.raises(ShapeError) as error:
        size_of(given, 2)
    assert (
        str(error.value)
        == f"got size={given!r}; it is a tile's pixels, a whole number from 1 on or one for each axis: 224"
    )
    assert size_of(torch.tensor(16), 2) == size_of([16, 16], 2) == (16, 16)


def test_a_tile_that_the_model_does_not_take_is_said_to_be_one():
    model = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"^of tiles of 4x4, which size= and overlap= make: the model does not run"):
        seewhy.tiles(model, image().float(), 1, size=4)


def test_that_a_cell_may_see_more_than_a_tile_is_told_where_its_operations_do_not_tell_how_much():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Summing()

        def forward(self, x):
            x = self.net.features[:2](x)
            x = x + x.mean((2, 3), keepdim=True) * x.flip(-1)
            return self.net.head(self.net.features[2:](x).flatten(2).sum(-1))

    said = seewhy.tiles(Turned(), image().float(), 1, size=16).whole.notes
    assert any("may see more pixels than a tile's 16x16, how many its operations do not tell" in each for each in said)


def test_notes_of_a_photo_are_kept_whatever_it_is_called(tmp_path):
    file = tmp_path / "image 0.png"
    Image.new("RGBA", (44, 30), (9, 9, 9, 9)).save(file)
    how = seewhy.Preprocess((12, 12), "crop", mean=(0.0,), std=(1.0,), channels="grey")
    of_photo = list(seewhy.read(file).notes)
    assert of_photo, "a photo with something to tell"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiled = seewhy.tiles(Edges(), file, 0, preprocess=how)
    assert any(of_photo[0] in note for note in tiled.whole.notes)
    assert not any(note.startswith("image 0: the map") for note in tiled.whole.notes)
