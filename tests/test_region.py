"""Regions of segmentations: Seg-Grad-CAM's question by hand; which pixels, which class, on copies, at other sizes."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seewhy
from conftest import SHARED
from seewhy import Region, TargetError
from seewhy.targets.dense import nearest

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SIDES = {1: (24,), 2: (24, 20), 3: (8, 12, 8)}
LABELS = ("background", "cat", "dog", "car")


class Net(nn.Module):
    """Two strides down, a wide middle, back to `1 / shrink` of the images; scores in `kind` of container."""

    def __init__(self, rank=2, classes=4, shrink=1, end=None, kind="tensor"):
        super().__init__()
        conv = CONVS[rank - 1]
        torch.manual_seed(rank)
        self.down = nn.Sequential(conv(1, 6, 3, 2, 1), nn.ReLU(), conv(6, 12, 3, 2, 1), nn.ReLU())
        self.up = conv(12, classes, 3, 1, 1)
        self.shrink, self.end, self.kind = shrink, end, kind
        with torch.no_grad():  # every class is predicted somewhere
            self.up.bias -= self.up(self.down(torch.randn(1, 1, *SIDES[rank]))).transpose(0, 1).flatten(1).mean(1)

    def forward(self, x):
        y = F.interpolate(self.up(self.down(x)), size=[side // self.shrink for side in x.shape[2:]])
        y = y if self.end is None else self.end(y)
        aux = {"out": y, "aux": y[:, :1]}
        return {"tensor": y, "dict": aux, "output": SimpleNamespace(logits=y), "bare": y[:, 0]}[self.kind]


def net(**given):
    return Net(**given).double().eval()


def images(rank=2, count=2):
    return torch.randn(count, 1, *SIDES[rank], generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


def told(mask, classes):
    """The same question as a function, written out."""

    def by_hand(output, rows):
        picked = torch.stack([output[j, classes[int(row)]] * mask[row] for j, row in enumerate(rows)])
        return picked.flatten(1).sum(1)

    return by_hand


def predicted(model, x, classes):
    with torch.no_grad():
        winner = model(x).argmax(1)
    return torch.stack([winner[image] == classes[image] for image in range(len(x))])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_map_is_seg_grad_cam_s_by_hand(rank):
    model, x = net(rank=rank), images(rank)
    with torch.no_grad():
        classes = [int(model(one[None]).argmax(1).flatten().bincount().argmax()) for one in x]
    mask = predicted(model, x, classes)
    features = model.down(x).detach().requires_grad_()
    y = F.interpolate(model.up(features), size=x.shape[2:])
    score = torch.stack([(y[image, c] * mask[image]).sum() for image, c in enumerate(classes)])
    (gradients,) = torch.autograd.grad(score.sum(), features)
    weights = gradients.flatten(2).mean(2)
    expected = torch.einsum("bc,bc...->b...", weights, features.detach()).relu()
    e = seewhy.explain(model, x)
    torch.testing.assert_close(e.scores.double(), score.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(e.raw["down"], expected, rtol=1e-10, atol=1e-12)
    assert float(expected.amax()) > 0
    assert e.target[1] == f"class {classes[1]} over {int(mask[1].sum())} of {mask[1].numel()} pixels"


METHODS = (
    *("grad_cam", "hires_cam", "score_cam", "ablation_cam", "occlusion", "rise", "integrated_gradients"),
    *("layer_cam", "smooth_grad", "recipro_cam", "shapley_cam", "group_cam", "opti_cam"),
)


@pytest.mark.parametrize("method", METHODS)
def test_changed_copies_keep_the_region_of_the_clean_pass(method):
    model, x = net(), images()
    classes = [1, 2]
    mask = predicted(model, x, classes)
    options = {"rise": {"masks": 12}, "smooth_grad": {"samples": 3}, "occlusion": {"patch": 8, "stride": 4}}
    chosen = {"method": method, "options": options.get(method)}
    own = seewhy.explain(model, x, classes, **chosen)
    hand = seewhy.explain(model, x, told(mask, classes), **chosen)
    torch.testing.assert_close(own.map, hand.map, rtol=1e-9, atol=1e-9 * float(hand.map.abs().max()))
    assert float(own.map.abs().max()) > 0


def test_where_classes_are_predicted_without_a_rival_half_decides():
    logits, x = net(classes=1), images()
    squashed = net(classes=1, end=nn.Sigmoid())
    with torch.no_grad():
        y = logits(x)
    inside = y[:, 0] > 0
    assert 0 < float(inside.double().mean()) < 1
    own = seewhy.explain(logits, x, method="hires_cam")
    torch.testing.assert_close(own.scores, (y[:, 0] * inside).flatten(1).sum(1))
    behind = seewhy.explain(squashed, x, method="hires_cam")
    torch.testing.assert_close(behind.scores, own.scores, rtol=1e-9, atol=0)  # log-odds are the logits
    torch.testing.assert_close(behind.map, own.map, rtol=1e-9, atol=1e-12)
    assert any(note.startswith("target: the output's only class") for note in own.notes)


def test_overlapping_classes_of_sigmoids_have_overlapping_regions():
    model, x = net(end=nn.Sigmoid()), images()
    with torch.no_grad():
        p = model(x)
    for index in (1, 2):
        inside = p[:, index] > 0.5
        expected = (p[:, index].logit() * inside).flatten(1).sum(1)
        torch.testing.assert_close(seewhy.explain(model, x, index).scores, expected)
    assert bool(((p[:, 1] > 0.5) & (p[:, 2] > 0.5)).any())


def test_probabilities_of_a_softmax_are_read_by_their_logarithm():
    model, x = net(end=nn.Softmax(1)), images()
    mask = predicted(model, x, [2, 2])
    with torch.no_grad():
        expected = (model(x)[:, 2].log() * mask).flatten(1).sum(1)
    e = seewhy.explain(model, x, 2)
    torch.testing.assert_close(e.scores, expected)
    assert any("log p stands for the logit behind it" in note for note in e.notes)


def slow_nearest(mask, size):
    out = torch.zeros(size, dtype=torch.bool)
    for place in torch.ones(size).nonzero().tolist():
        of = [math.floor((at + 0.5) * s / g) for at, s, g in zip(place, mask.shape, size, strict=True)]
        out[tuple(place)] = mask[tuple(of)]
    return out


@pytest.mark.parametrize("size", [(6, 5), (24, 20), (7, 9), (48, 61)])
def test_a_mask_of_the_images_is_read_under_the_middles_of_the_output_s_pixels(size):
    mask = torch.rand(24, 20, generator=torch.Generator().manual_seed(0)) > 0.6
    torch.testing.assert_close(nearest(mask[None], size)[0], slow_nearest(mask, size))


def test_a_mask_too_small_for_the_output_becomes_the_pixel_that_holds_it():
    mask = torch.zeros(1, 24, 20, dtype=torch.bool)
    mask[0, 4, 12] = True  # under no middle of 6 x 5: these lie at 2, 6, 10, ...
    assert nearest(mask, (6, 5)).nonzero().tolist() == [[0, 1, 3]]


@pytest.mark.parametrize("several", [False, True])
def test_a_mask_at_the_size_of_the_images_or_of_the_output(several):
    model, x = net(shrink=4), images()
    fine = torch.zeros(2, 24, 20, dtype=torch.bool)
    fine[0, 3:15, 2:9], fine[1, 10:20, 5:20] = True, True
    fine = fine if several else fine[:1].expand(2, -1, -1)
    coarse = torch.stack([slow_nearest(mask, (6, 5)) for mask in fine])
    hand = seewhy.explain(model, x, told(coarse, [2, 2]))
    for mask in (fine, coarse, coarse.numpy()) if several else (fine[0], coarse[0], fine[:1]):
        own = seewhy.explain(model, x, Region(2, mask=mask))
        torch.testing.assert_close(own.map, hand.map)
        torch.testing.assert_close(own.scores, hand.scores)
    assert own.target[0] == f"class 2 in {int(coarse[0].sum())} of 30 pixels of the mask"


def test_a_point_is_one_pixel_of_the_output_and_its_class_the_predicted_one():
    model, x = net(shrink=4), images()
    with torch.no_grad():
        y = model(x)
    e = seewhy.explain(model, x, Region(point=(9, 18)), labels=LABELS)
    classes = y[:, :, 2, 4].argmax(1)  # even if it is the background
    torch.testing.assert_close(e.scores, y[torch.arange(2), classes, 2, 4])
    assert e.target[0] == f"{LABELS[classes[0]]} at the point (9, 18)"
    assert "target: the class that is predicted at the point (9, 18)" in e.notes


def test_the_largest_class_but_the_background_if_a_label_says_so():
    model, x = net(), images()
    model.up.bias.data[0] += 0.05
    with torch.no_grad():
        counts = model(x).argmax(1).flatten(1)
    counts = torch.stack([row.bincount(minlength=4) for row in counts])
    assert counts.argmax(1).tolist() == [0, 0]
    named, unnamed = seewhy.explain(model, x, labels=LABELS), seewhy.explain(model, x, Region())
    for image in range(2):
        own = int(counts[image, 1:].argmax()) + 1
        assert named.target[image].startswith(f"{LABELS[own]} over {int(counts[image, own])} of")
        assert unnamed.target[image].startswith(f"class 0 over {int(counts[image, 0])} of")
    assert any(note.endswith("('background' left out), over the pixels where it is predicted") for note in named.notes)
    assert any("which may be background: no label says so" in note for note in unnamed.notes)


def test_nothing_but_background_is_the_background():
    model, x = net(), images()
    model.up.bias.data[0] += 100
    assert seewhy.explain(model, x, labels=LABELS).target == ("background over 480 of 480 pixels",) * 2


def test_regions_add_and_each_image_may_have_its_own():
    model, x = net(), images()
    left = torch.zeros(24, 20, dtype=torch.bool)
    left[:, :10] = True
    both, parts = Region(1, mask=left | ~left), Region(1, mask=left) + Region(1, mask=~left)
    options = {"method": "hires_cam", "options": {"rectify": False}}
    whole = seewhy.explain(model, x, both, **options)
    torch.testing.assert_close(seewhy.explain(model, x, parts, **options).map, whole.map)
    torch.testing.assert_close(seewhy.explain(model, x, -both, **options).map, -whole.map)
    own = seewhy.explain(model, x, [Region(1, mask=left), 2], **options)
    for image, target in enumerate([Region(1, mask=left), 2]):
        alone = seewhy.explain(model, x[image : image + 1], target, **options)
        torch.testing.assert_close(own.map[image : image + 1], alone.map)


def test_a_list_asks_nothing_of_the_other_images():
    model, x = net(), images()
    x[1] = 0  # where one class takes the whole picture
    with torch.no_grad():
        only, another = int(model(x)[1].argmax(0)[12, 10]), int(model(x)[0].argmax(0).flatten().mode().values)
    with torch.no_grad():
        absent = next(c for c in range(4) if not bool((model(x)[1].argmax(0) == c).any()) and c != only)
        present = bool((model(x)[0].argmax(0) == absent).any())
    first = absent if present else another
    e = seewhy.explain(model, x, [Region(first), Region(only)])
    assert [text.split(" over")[0] for text in e.target] == [f"class {first}", f"class {only}"]


def test_several_regions_share_one_forward():
    model, x = net(), images()
    seewhy.explain(model, x)  # layers are found
    runs = []
    hook = model.up.register_forward_hook(lambda *_: runs.append(1))
    grid = seewhy.compare(model, x, [1, Region(2), Region(point=(3, 3)), Region(1) - Region(2)])
    hook.remove()
    assert len(runs) == 1
    assert len({each.target for each in grid}) == 4
    torch.testing.assert_close(grid[3].scores, grid[0].scores - grid[1].scores)


@pytest.mark.parametrize("kind", ["dict", "output"])
def test_the_score_is_found_in_other_containers(kind):
    if kind == "output":
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = transformers.SegformerConfig(
            num_labels=4, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32], decoder_hidden_size=16
        )
        model = transformers.SegformerForSemanticSegmentation(config).double().eval()
        x, read = torch.randn(2, 3, 64, 96, dtype=torch.float64), lambda output: output.logits
    else:
        model, x, read = net(kind="dict"), images(), lambda output: output["out"]
    mask = torch.zeros(x.shape[2:], dtype=torch.bool)
    mask[8:20, 4:16] = True
    with torch.no_grad():
        y = read(model(x))
    inside = slow_nearest(mask, tuple(y.shape[2:]))
    e = seewhy.explain(model, x, Region(3, mask=mask))
    torch.testing.assert_close(e.scores, (y[:, 3] * inside).flatten(1).sum(1), rtol=1e-10, atol=1e-12)
    assert float(e.map.abs().max()) > 0
    if kind == "output":
        assert tuple(y.shape[2:]) == (16, 24)


def test_the_gradient_is_that_of_finite_differences_through_segformer():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_labels=4, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32], decoder_hidden_size=16
    )
    model = transformers.SegformerForSemanticSegmentation(config).double().eval()
    x, step = torch.randn(1, 3, 64, 64, dtype=torch.float64), 1e-5
    target = Region(1, mask=torch.ones(64, 64, dtype=torch.bool))
    more, less = (float(seewhy.explain(model, (1 + way * step) * x, target).scores) for way in (1, -1))
    products = seewhy.explain(model, x, target, "input_x_gradient", options={"channels": "sum"}).map
    assert float(products.sum()) == pytest.approx((more - less) / (2 * step), rel=1e-6)


def test_a_map_without_an_axis_of_classes_is_one_class():
    model, x = net(kind="bare"), images()
    mask = torch.zeros(24, 20, dtype=torch.bool)
    mask[2:9, 3:17] = True
    own = seewhy.explain(model, x, Region(mask=mask))
    hand = seewhy.explain(model, x, lambda output, rows: (output * mask).flatten(1).sum(1)[: len(rows)])
    torch.testing.assert_close(own.map, hand.map)
    torch.testing.assert_close(own.scores, hand.scores)


@pytest.mark.parametrize("shrink", [1, 4])
def test_flips_flip_the_region_with_the_picture(shrink):
    model, x = net(shrink=shrink), images()
    mask = predicted(model, x, [2, 2])
    own = seewhy.explain(model, x, 2, ensemble=seewhy.Flips((-1, -2)), method="hires_cam")
    flips = [(), (-1,), (-2,), (-1, -2)]
    maps = [
        seewhy.explain(model, x.flip(axes), told(mask.flip(axes), [2, 2]), method="hires_cam").map.flip(axes)
        for axes in flips
    ]
    torch.testing.assert_close(own.map, torch.stack(maps).mean(0), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(maps[0], maps[1])


def test_an_output_of_another_size_counts_as_many_pixels():
    model, x = net(), images()
    mask = torch.zeros(24, 20, dtype=torch.bool)
    mask[4:12, 6:16] = True
    twice = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    own = seewhy.explain(model, x, Region(1, mask=mask), ensemble=seewhy.Scales((2.0,)), method="score_cam")
    for scale in (0.5, 2.0):
        (copy, _), *_ = seewhy.Scales((scale,)).changes(x)
        region = seewhy.targets.region.Pixels((1, 1), mask.expand(2, -1, -1), (24, 20), ())
        move = seewhy.ensemble.forth(next(seewhy.Scales((scale,)).changes(x))[1], copy.shape[2:])
        inside = twice if scale == 2 else mask[::2, ::2]
        with torch.no_grad():
            y = model(copy)
        expected = (y[:, 1] * inside).flatten(1).sum(1) * (80 / int(inside.sum()))
        torch.testing.assert_close(region.moved(move)(y, torch.arange(2)), expected)
    assert float(own.map.abs().max()) > 0


def test_a_point_survives_smaller_copies():
    point = torch.zeros(1, 24, 20, dtype=torch.bool)
    point[0, 7, 9] = True
    copy, undo = next(seewhy.Scales((0.25,)).changes(torch.zeros(1, 1, 24, 20)))
    assert seewhy.ensemble.forth(undo, copy.shape[2:])(point).nonzero().tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("end", [None, nn.Sigmoid()])
def test_what_is_told_of_the_gradient_is_autograd_s(end):
    y = torch.randn(3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1)) > 0.5
    settled = seewhy.targets.region.Pixels((1, 3), mask, (10, 12), (), squashed=end and "sigmoid")
    rows = torch.tensor([1, 0, 1])
    output = y if end is None else end(y)
    (expected,) = torch.autograd.grad(settled(output, rows).sum(), output)
    if end is None:
        path, gradient = settled.gradient(output, rows)
        assert path == ()
        torch.testing.assert_close(gradient, expected)
    else:
        assert settled.gradient(output, rows) is None
        inverse = 1 / (output * (1 - output)).detach()  # of the log-odds
        torch.testing.assert_close(expected[0, 3], (inverse[0, 3] * mask[1]))
    assert expected.nonzero()[:, 1].unique().tolist() == [1, 3]


def test_half_precision_is_summed_in_full():
    y = torch.full((1, 1, 400, 400), 10.0, dtype=torch.float16)
    settled = seewhy.targets.region.Pixels((0,), torch.ones(1, 400, 400, dtype=torch.bool), (400, 400), ())
    assert float(settled(y, torch.tensor([0]))) == 1.6e6  # more than half precision holds


FULL = torch.ones(24, 20, dtype=torch.bool)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("cow", r"no label 'cow'; .*give a label or an index from 0 to 3"),
        (7, r"class 7 is out of range; the model has 4 classes: 0 to 3"),
        (
            Region(1, mask=FULL[:5, :5]),
            r"got a mask of shape \(5, 5\); it has the size of the images of 24x20 pixels, or of the model's output, "
            r"6x5, and if it has an axis of images, 2 of them: resize it",
        ),
        (Region(1, mask=FULL.expand(3, -1, -1)), r"got a mask of shape \(3, 24, 20\); .* 2 of them: resize it"),
        (Region(1, mask=~FULL), r"the mask holds no pixel; mark at least one, or leave mask= out"),
        (Region(1, mask=torch.stack([FULL, ~FULL])), r"the mask of image 1 holds no pixel"),
        (
            Region(point=(24, 0)),
            r"got the point \(24, 0\); it has one whole number for each axis of the images of 24x20 pixels, from "
            r"\(0, 0\) to \(23, 19\): \(y, x\), from the top left",
        ),
        (Region(point=(1, 2, 3)), r"got the point \(1, 2, 3\); it has one whole number for each axis"),
        (Region([1, 2, 3]), r"got 3 targets for 2 images"),
        (seewhy.Logit(1), r"the scores have the shape \(2, 4, 6, 5\)"),
    ],
)
def test_regions_that_are_not_there(target, message):
    with pytest.raises(TargetError, match=message):
        seewhy.explain(net(shrink=4), images(), target, labels=LABELS)


def test_an_empty_region_names_what_is_predicted():
    model, x = net(), images(count=1)
    model.up.bias.data[3] -= 100
    with pytest.raises(TargetError, match=r"no pixel of image 0 is predicted as 'car'; predicted are '\w+' \(\d+%\), "):
        seewhy.explain(model, x, "car", labels=LABELS)
    single = net(classes=1)
    single.up.bias.data -= 100
    with pytest.raises(TargetError, match=r"predicted as 'class 0'; no score is above 0: say where by mask= or point="):
        seewhy.explain(single, x)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": FULL, "point": (1, 1)}, r"got a mask and a point; a region is one of the two: leave the other out"),
        ({"mask": FULL.float()}, r"got a mask of torch.float32; a mask holds booleans: labels == 12, or scores > 0.5"),
        ({"mask": "dog.png"}, r"got str as a mask; give a tensor or an array of booleans"),
        ({"point": 7}, r"got 7 as a point; give a pixel of the images by whole numbers: \(y, x\), of a signal \(x,\)$"),
        ({"point": (0.5, 2)}, r"got \(0.5, 2\) as a point"),
        ({"classes": True}, r"got True as a class"),
    ],
)
def test_wrong_arguments_are_told_at_once(given, message):
    with pytest.raises(TargetError, match=message):
        Region(**given)


def test_a_region_of_a_classifier_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with pytest.raises(TargetError, match=r"a region was asked for, but the scores have the shape \(2, 4\)"):
        seewhy.explain(model, images(), Region(1))


@pytest.mark.parametrize("target", [None, 1, Region(1), Region(30, mask=FULL)])
def test_scores_with_classes_last_are_told_by_the_proportions_of_the_images(target):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(classes=9)

        def forward(self, x):
            return self.net(x).movedim(1, -1)

    text = (
        r"\(2, 24, 20, 9\), with their classes last; pass a module that puts them first: output\.permute\(0, 3, 1, 2\)"
    )
    with pytest.raises(TargetError, match=text):
        seewhy.explain(Last(), images(), target)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("given", "layer", "told"),
    [("point", "3", True), ("mask", "3", True), ("point", "1", False), ("half", "3", False), ("class", "3", False)],
)
def test_a_map_that_shows_little_but_the_point_is_told(rank, given, layer, told):
    conv, side = CONVS[rank - 1], (48, 14, 12)[rank - 1]
    torch.manual_seed(0)
    model = nn.Sequential(conv(1, 6, 3, 1, 1), nn.ReLU(), conv(6, 8, 9, 1, 4), nn.ReLU(), conv(8, 3, 1)).double()
    for parameter in model.parameters():
        parameter.data.abs_()
    x = torch.rand(1, 1, *[side] * rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    few, half = torch.zeros(2, *x.shape[2:], dtype=torch.bool)
    few[(slice(5, 7),) * rank] = half[:6] = True
    given = {"point": {"point": (5,) * rank}, "mask": {"mask": few}, "half": {"mask": half}, "class": {}}[given]
    e = seewhy.explain(model.eval(), x, Region(**given), "hires_cam", layer=layer)
    said = f"what was asked about, so that the map may show little but where that is; a layer ahead of {layer}, named"
    assert any(said in note for note in e.notes) == told


COARSE = {
    "of nothing but places": (8, 5, None, None, True),
    "of the largest class": (8, 5, Region(), None, True),
    "without edges and a score": (8, 4, None, None, False),
    "as fine as SegFormer's": (4, 5, None, None, False),
    "with a background": (8, 5, None, (*LABELS, "cow"), False),
    "of a class": (8, 5, 3, None, False),
    "of a place": (8, 5, Region(point=(3, 5)), None, False),
}


def test_labels_that_do_not_fit():
    way_out = r"give one for each, or if it tells of boxes and not of classes, ask Box\(decode=...\)"
    with pytest.raises(TargetError, match=f"got 3 labels for an output of 4 classes; {way_out}"):
        seewhy.explain(net(), images(), 1, labels=LABELS[:3])


@pytest.mark.parametrize(("shrink", "classes", "asked", "labels", "doubted"), COARSE.values(), ids=COARSE)
def test_places_that_may_be_a_detector_s_are_doubted_where_nobody_says_what_they_are(
    shrink, classes, asked, labels, doubted
):
    x = torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    e = seewhy.explain(net(shrink=shrink, classes=classes), x, asked, labels=labels, layer="down.2")
    said = "if the 4x6 places are a detector's, whose scores are no classes, ask Box(decode=...)"
    assert any(said in note for note in e.notes) == doubted


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real weights and photos of ../shared/data")
def test_deeplab_sees_the_dog_in_the_dog_and_the_cat_in_the_cat():
    from seewhy.metrics.localization import energy
    from shared_dense import VOC, deeplabv3

    loaded, photo = deeplabv3(), SHARED / "demo" / "dog_cat.jpg"
    grid = seewhy.compare(loaded, photo, ["dog", "cat"], ["hires_cam"])
    with torch.no_grad():
        winner = loaded.module(loaded.preprocess(seewhy.read(photo))[0][None])[0].argmax(0)
    dog, cat = (winner == VOC.split().index(name) for name in ("dog", "cat"))
    for own, other, mine in ((grid[0], grid[1], dog), (grid[1], grid[0], cat)):
        assert float(energy(own.map, mine[None])) > 2 * float(energy(other.map, mine[None]))
        assert bool(mine.flatten()[own.map[0].argmax()])
