"""Questions about a box: which one it is, on which layer it is explained, and what changed copies answer."""

import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from detectors import Levels, Suppressed, candidates, slow_iou
from seewhy.targets.question import Question, resolve
from seewhy.types import ModelError, TargetError

FINE, COARSE = "stem", "deep"


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def box(**given: Any) -> seewhy.Box:
    return seewhy.Box(decode=candidates, **given)


def settled(asked: seewhy.Box, output: Any, images: Tensor, labels: tuple[str, ...] | None = None) -> Any:
    size = tuple(images.shape[2:])
    question = Question(None, (), labels, len(images), output=output, size=size)
    return resolve(asked, question, torch.zeros(len(images), 0))


def best_of(output: Tensor, cells: slice) -> tuple[int, int]:
    """Candidate and class that rank best among some cells of the first image."""
    ranking = output[0, 5:, cells] * output[0, 4, cells]
    label, cell = divmod(int(ranking.argmax()), ranking.shape[1])
    return cell + (cells.start or 0), label


def inside(output: Tensor, cell: int) -> tuple[float, float]:
    x0, y0, x1, y1 = output[0, :4, cell].tolist()
    return (y0 + y1) / 2, (x0 + x1) / 2


def test_without_a_choice_it_is_the_best_of_all(images):
    model = Levels()
    output = model(images[:1])
    cell, label = best_of(output, slice(None))
    found = seewhy.explain(model, images[:1], box(read="score"))
    torch.testing.assert_close(found.scores, output[0, 5 + label, cell] * output[0, 4, cell][None])


@pytest.mark.parametrize(("read", "row"), [("x0", 0), ("y0", 1), ("x1", 2), ("y1", 3), ("objectness", 4)])
def test_every_number_of_a_box_can_be_asked_for(images, read, row):
    output = Levels()(images[:1])
    cell, _ = best_of(output, slice(None))
    target = settled(box(read=read), output, images[:1])
    torch.testing.assert_close(target(output, torch.tensor([0])), output[:, row, cell], rtol=0, atol=0)


def test_the_score_is_class_times_objectness_and_its_gradient_is_that_of_differences(images):
    model, image = Levels(), images[:1]
    target = settled(box(read="score"), model(image), image)
    rows = torch.tensor([0])

    clean = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target(model(clean), rows).sum(), clean)
    for seed in range(3):
        step = 1e-6 * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=image.dtype)
        with torch.no_grad():
            difference = (target(model(image + step), rows) - target(model(image - step), rows)) / 2
        torch.testing.assert_close((gradient * step).sum()[None], difference, rtol=1e-5, atol=0)


@pytest.mark.parametrize("read", ["class", "score", "objectness", "x0"])
def test_grad_cam_of_a_box_is_grad_cam_by_hand(images, read):
    model, image = Levels(), images[:1]
    output = model(image)
    target = settled(box(read=read), output, image)
    found = seewhy.explain(model, image, box(read=read), "grad_cam", rectify=False)
    (name,) = found.raw
    kept: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, out: kept.append(out))
    (gradient,) = torch.autograd.grad(target(model(image), torch.tensor([0])).sum(), kept)
    handle.remove()
    by_hand = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)
    torch.testing.assert_close(found.raw[name], by_hand.detach(), rtol=1e-12, atol=1e-14)
    assert by_hand.abs().max() > 0


@pytest.mark.parametrize(("cells", "layer"), [(slice(0, 96), FINE), (slice(96, None), COARSE)])
def test_a_box_is_explained_on_its_own_level(images, cells, layer):
    model, image = Levels(), images[:1]
    cell, label = best_of(model(image), cells)
    found = seewhy.explain(model, image, lambda output: output[:, 5 + label, cell], layer=layer, rectify=False)
    point = box(point=inside(model(image), cell), threshold=0.0)
    target = settled(point, model(image), image)
    assert target.picks[0].candidate == cell
    own = seewhy.explain(model, image, point, "grad_cam", rectify=False)
    assert list(own.raw) == [layer]
    torch.testing.assert_close(own.map, found.map)


def ranked_in(output: Tensor, cells: range) -> int:
    """The index of the best box of a level, counted as Box counts them."""
    target = [settled(box(index=n, threshold=0.0), output, torch.zeros(1, 3, 32, 48)) for n in range(12)]
    return next(n for n, each in enumerate(target) if each.picks[0].candidate in cells)


def test_several_boxes_each_have_their_own_level_and_share_two_forwards(images):
    model, image = Levels(), images[:1]
    output = model(image)
    fine, coarse = ranked_in(output, range(96)), ranked_in(output, range(96, 120))
    passes: list[int] = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    asked = [box(index=n, threshold=0.0) for n in (fine, coarse, fine)]
    seewhy.compare(model, image, asked, ["hires_cam"])  # what holds for all images is found once
    passes.clear()
    found = seewhy.compare(model, image, asked, ["hires_cam", "eigen_cam"])
    handle.remove()
    assert [list(each.raw) for each in found] == [[FINE], [FINE], [COARSE], [COARSE], [FINE], [FINE]]
    assert len(passes) == 2
    for each, alone in zip(list(found)[::2], asked, strict=True):
        torch.testing.assert_close(each.map, seewhy.explain(model, image, alone, "hires_cam").map)


class Joined(nn.Module):
    """The fine level of `Levels`, whose branches share a convolution after the features."""

    def __init__(self) -> None:
        super().__init__()
        levels = Levels()
        torch.manual_seed(0)
        self.stem, self.shared = levels.stem, nn.Conv2d(6, 6, 1).double()
        self.branches = nn.ModuleList([levels.fine_boxes, levels.fine_scores])

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.shared(self.stem(x)).tanh()
        return Levels._level(hidden, 4, *self.branches)


@pytest.mark.parametrize("several", [lambda a, b: a - b, lambda a, b: [a, b]], ids=["a difference", "two images"])
def test_what_lies_between_two_boxes_is_no_box(several):
    """Cells of the head see 3x3 of 4 pixels, too few for boxes of 24; those of two boxes lie further apart."""

    def two(output: Tensor) -> seewhy.Candidates:
        rows, columns = (4.0 * torch.arange(length).double() + 2 for length in (8, 12))
        centers = (
            torch.stack((columns.expand(8, -1), rows[:, None].expand(-1, 12))).flatten(1).T.expand(len(output), -1, 2)
        )
        ranking = torch.zeros_like(output[:, 5:].mT)
        ranking[:, 2 * 12 + 3, 0], ranking[:, 5 * 12 + 9, 0] = 0.9, 0.8
        return seewhy.Candidates(torch.cat((centers - 12, centers + 12), -1), output[:, 5:].mT, None, ranking)

    image = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    asked = several(seewhy.Box(index=0, decode=two), seewhy.Box(index=1, decode=two))
    images = image if isinstance(asked, list) else image[:1]
    alone = seewhy.explain(Joined(), images[:1], seewhy.Box(index=0, decode=two), "grad_cam", rectify=False)
    together = seewhy.explain(Joined(), images, asked, "grad_cam", rectify=False)
    assert [list(alone.raw), list(together.raw)] == [["stem.1"]] * 2


def test_images_whose_boxes_stand_in_different_levels_share_what_both_are_made_of(images):
    model = Levels()
    first, second = (model(image[None]) for image in images)
    asked = [box(index=ranked_in(first, range(96)), threshold=0.0)]
    asked += [box(index=ranked_in(second, range(96, 120)), threshold=0.0)]
    found = seewhy.explain(model, images, asked, "hires_cam")
    assert list(found.raw) == [FINE]
    for n in range(2):
        alone = seewhy.explain(model, images[n : n + 1], asked[n], "hires_cam", layer=FINE)
        torch.testing.assert_close(found.map[n : n + 1], alone.map)


@pytest.mark.parametrize(
    ("method", "options"), [("score_cam", {}), ("occlusion", {}), ("rise", {"masks": 12}), ("ablation_cam", {})]
)
def test_heads_of_candidates_are_asked_about_the_same_one_on_every_copy(images, method, options):
    model, image = Levels(), images[:1]
    cell, label = best_of(model(image), slice(None))

    def by_hand(output: Tensor) -> Tensor:
        return output[:, 5 + label, cell]

    found = seewhy.explain(model, image, box(), method, options=options)
    layer = next((name for name in found.raw if name in (FINE, COARSE)), None)
    expected = seewhy.explain(model, image, by_hand, method, layer=layer or FINE, options=options)
    torch.testing.assert_close(found.map, expected.map, rtol=1e-13, atol=1e-13)


def likeness(found: dict[str, Tensor], clean: dict[str, Tensor], index: int) -> Tensor:
    """D-RISE's similarity, slowly; of a list that holds the very box, that one's score."""
    total = 0 * found["scores"].sum()
    for place in range(len(found["scores"])):
        if found["labels"][place] == clean["labels"][index]:
            if float((found["boxes"][place] - clean["boxes"][index]).detach().abs().max()) <= 0.01:
                return found["scores"][place]
            overlap = slow_iou(found["boxes"][place].detach(), clean["boxes"][index].detach())
            total = max(total, overlap * found["scores"][place], key=lambda each: float(each.detach()))
    return total


@pytest.mark.parametrize(
    ("method", "options", "index"),
    [
        ("grad_cam", {}, 0),
        ("grad_cam", {}, 2),
        ("score_cam", {}, 2),
        ("occlusion", {"patch": 16, "stride": 16}, 2),
        ("rise", {"masks": 8}, 0),
    ],
)
def test_lists_are_asked_how_well_they_still_find_the_box(images, method, options, index):
    model, image = Suppressed(0.7), images[:1]
    clean = model(image)[0]

    def by_hand(output: list[dict[str, Tensor]]) -> Tensor:
        return torch.stack([likeness(each, clean, index) for each in output])

    found = seewhy.explain(model, image, seewhy.Box(index=index), method, options=options)
    layer = next((name for name in found.raw if name.startswith("levels")), "levels.stem")
    expected = seewhy.explain(model, image, by_hand, method, layer=layer, options=options)
    torch.testing.assert_close(found.scores, clean["scores"][index][None], rtol=0, atol=0)
    torch.testing.assert_close(found.map, expected.map, rtol=1e-13, atol=1e-13)


def test_a_copy_without_the_box_answers_zero(images):
    clean = Suppressed()(images)
    target = settled(seewhy.Box(), clean, images)
    nothing = {name: tensor[:0] for name, tensor in clean[0].items()}
    others = {**clean[0], "labels": clean[0]["labels"] + 7}
    answered = target([nothing, others, clean[0]], torch.tensor([0, 0, 0]))
    assert answered.tolist() == [0, 0, clean[0]["scores"][0].item()]
    with pytest.raises(TargetError, match="no such box any more, so it has no edge 'x0'; use a method that goes by"):
        settled(seewhy.Box(read="x0"), clean, images)([nothing], torch.tensor([0]))


def test_a_better_detection_that_overlaps_is_not_the_box_of_the_clean_pass():
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    output = [{"boxes": boxes, "scores": torch.tensor([0.9, 0.3]), "labels": torch.tensor([1, 1])}]
    target = settled(seewhy.Box(index=1), output, torch.zeros(1, 3, 16, 16))
    assert float(target(output, torch.tensor([0]))) == pytest.approx(0.3)


def test_of_candidates_that_overlap_only_the_better_one_counts():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 10]]])
    scores = torch.tensor([[[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.1, 0.6]]])
    rows = torch.tensor([0])

    def at(index: int, **given: Any) -> int:
        asked = seewhy.Box(index=index, decode=lambda _: seewhy.Candidates(boxes, scores, **given))
        return settled(asked, None, torch.zeros(1, 3, 16, 32)).picks[int(rows)].candidate

    assert [at(index) for index in range(3)] == [0, 2, 3]
    assert [at(index, distinct=True) for index in range(4)] == [0, 1, 2, 3]


def test_a_box_by_its_label_and_in_words(images):
    output = Suppressed(0.8)(images[:1])
    last = int(output[0]["labels"][-1])
    labels = tuple("dog, canine" if n == last else f"thing {n}" for n in range(3))
    asked = seewhy.Box(label="canine")
    found = settled(asked, output, images[:1], labels)
    place = int((output[0]["labels"] == last).nonzero()[0])
    assert found.picks[0].candidate == place
    told = seewhy.explain(Suppressed(0.8), images[:1], asked, "hires_cam", labels=labels).target[0]
    assert re.fullmatch(r"dog 0\.\d\d at x -?\d+--?\d+ y -?\d+--?\d+", told)
    edge = seewhy.Box(label="canine", read="y0")
    question = Question(None, (), labels, 1, output=output, size=(32, 48))
    assert settled(edge, output, images[:1], labels).told(question, 0).startswith("upper edge of dog 0.")


def test_low_scores_are_told_as_they_are_and_classes_without_a_label_are_doubted(images):
    def faint(output: Tensor) -> seewhy.Candidates:
        found = candidates(output)
        return seewhy.Candidates(found.boxes, found.scores * 1.6e-4, found.objectness)

    model = Levels()
    output = faint(model(images[:1]).detach())
    best = output.ranked().flatten().topk(1)
    label = int(best.indices) % 3
    asked = seewhy.Box(decode=faint, threshold=0)
    for count, doubted in ((label, True), (label + 1, False), (3, False)):
        labels = tuple(f"thing {n}" for n in range(count)) or None
        e = seewhy.explain(model, images[:1], asked, labels=labels)
        assert f" {float(best.values):.1g} at x" in e.target[0]
        said = f"a box is of class {label}, and labels= names {count} classes, 0 to {count - 1}; give one for each"
        assert any(said in note for note in e.notes) == (doubted and bool(count))


def test_where_no_scores_are_known_and_boxes_may_be_box_is_named(images):
    class Beside(Levels):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), {"features": self.stem(x)}

    with pytest.raises(
        ModelError, match=r"say which are the scores: output=...; or if it tells of boxes, ask Box\(dec"
    ):
        seewhy.explain(Beside(), images)


def test_boxes_add_up_like_all_questions(images):
    model, image = Levels(), images[:1]
    one, two = box(index=0), box(index=1, threshold=0.0)
    maps = [seewhy.explain(model, image, each, "saliency", rectify=None).scores for each in (one, two, one - 0.5 * two)]
    torch.testing.assert_close(maps[2], maps[0] - 0.5 * maps[1])


ERRORS: list[tuple[Any, str]] = [
    ({"index": 999}, "image 0: there is no box 999, they are counted from 0; choose one of these {n}: 0: "),
    (
        {"point": (31.5, 47.5)},
        "no box holds the point (31.5, 47.5) (row, column) of 32x48 pixels; choose one of these {n}, the ",
    ),
    ({"label": 9}, "no box is called 'class 9'; choose one of these {n}: 0: "),
    ({"label": "dog"}, "got the label 'dog', but this model comes without labels; pass labels=, or an index"),
    ({"read": "objectness"}, "a list of boxes tells no objectness; read 'class', or an edge such as 'x0'"),
]


@pytest.mark.parametrize(("given", "text"), ERRORS)
def test_a_box_that_is_not_there_is_an_error_that_lists_those_that_are(images, given, text):
    model = Suppressed(0.6)
    count = len(model(images[:1])[0]["scores"])
    with pytest.raises(TargetError, match=re.escape(text.format(n=count))):
        seewhy.explain(model, images[:1], seewhy.Box(**given))


def test_no_box_at_all_is_an_error(images):
    with pytest.raises(TargetError, match="image 0: the detector found no box at all; choose another image"):
        seewhy.explain(Suppressed(1.1), images, seewhy.Box())
    best = f"{float(candidates(Levels()(images[:1]).detach()).ranked().max()):.2g}"
    with pytest.raises(TargetError, match=f"image 0: no box ranks 0.99 or more, the best {best}; choose another image"):
        seewhy.explain(Levels(), images, box(threshold=0.99))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"index": 1, "label": 2}, "got index=1 and label=2; a box is chosen in one way: leave the others out"),
        ({"index": -1}, "index is -1; it is a number from 0 on"),
        ({"threshold": "high"}, "threshold is 'high'; it is a number from 0 on"),
        ({"point": (3,)}, "point is (3,); it is a row and a column in pixels: point=(120, 80)"),
        ({"label": 1.5}, "label is 1.5; it is the index of a class, or its label"),
        ({"read": "depth"}, "read is 'depth'; choose one of 'class', 'objectness', 'score', 'x0', 'y0', 'x1', 'y1'"),
        ({"decode": "yolo"}, "decode is 'yolo'; it is a function from the output to seewhy.Candidates"),
    ],
)
def test_arguments_of_another_kind(given, text):
    asked = seewhy.Box()
    for name, value in given.items():
        object.__setattr__(asked, name, value)  # the checks of types that tests run with would be first
    with pytest.raises(TargetError, match=re.escape(text)):
        asked.__post_init__()


def test_numbers_of_other_libraries_are_numbers(images):
    for number in (np.int64(1), torch.tensor(1)):
        assert seewhy.Box(index=number).index == 1
        assert seewhy.Box(label=number) == seewhy.Box(label=1)


def test_a_box_asked_of_another_model(images):
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).double()
    with pytest.raises(TargetError, match=r"a box was asked for, but the model returned a tensor \(2, 5\); that is"):
        seewhy.explain(classifier, images, seewhy.Box())
    with pytest.raises(TargetError, match=r"decode=candidates does not take this output \(.*\); pass another function"):
        seewhy.explain(classifier, images, box())
    with pytest.raises(TargetError, match=r"decode=<lambda> returned Tensor; return seewhy\.Candidates"):
        seewhy.explain(classifier, images, seewhy.Box(decode=lambda output: output))
    logits = seewhy.Box(decode=lambda _: seewhy.Candidates(torch.zeros(2, 1, 4), torch.full((2, 1, 3), 4.0)))
    with pytest.raises(TargetError, match="the candidates rank from 4 to 4; that is 0 to 1: where the class scores"):
        seewhy.explain(classifier, images, logits)
    few = seewhy.Box(decode=lambda _: seewhy.Candidates(torch.zeros(1, 1, 4), torch.full((1, 1, 3), 0.5)))
    with pytest.raises(TargetError, match="decode= returned boxes of 1 images; here are 2"):
        seewhy.explain(classifier, images, few)


def test_copies_that_have_the_box_elsewhere_are_refused_and_noisy_ones_are_not(images):
    for ensemble in (seewhy.Flips(), seewhy.Scales((0.5, 1.0))):
        with pytest.raises(TargetError, match="a box is known by its place, and flipped or scaled copies have it els"):
            seewhy.explain(Levels(), images, box(threshold=0.0), ensemble=ensemble)
    noisy = seewhy.explain(Levels(), images, box(threshold=0.0), "hires_cam", ensemble=seewhy.Noise(2, 1e-9))
    clean = seewhy.explain(Levels(), images, box(threshold=0.0), "hires_cam")
    torch.testing.assert_close(noisy.map, clean.map, rtol=1e-5, atol=1e-7)


def test_a_yolo_head_is_read_as_center_and_size():
    raw = torch.tensor([[[10.0, 20], [20, 20], [4, 8], [6, 8], [0.9, 0.2], [0.1, 0.7]]])
    for output in (raw, (raw, None)):
        read = seewhy.Candidates.yolo(output)
        assert read.boxes.tolist() == [[[8, 17, 12, 23], [16, 16, 24, 24]]]
        assert read.scores.tolist() == [[pytest.approx([0.9, 0.1]), pytest.approx([0.2, 0.7])]]


def test_a_warning_is_still_given_where_the_map_of_a_box_is_zero(images):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        e = seewhy.explain(Levels(), images[:1], -box(), "ablation_cam", rectify=None)
    blank = float(e.map.abs().max()) == 0
    assert blank == any("everywhere" in str(each.message) for each in seen)


def test_a_box_is_explained_by_hires_cam_where_no_method_is_named(images):
    model, asked, signed = Levels(), box(threshold=0.0), {"rectify": False}
    usual = seewhy.explain(model, images, asked, **signed)
    assert usual.method == "hires_cam"
    assert any(note.startswith("method: hires_cam, the default where the gradient is at few") for note in usual.notes)
    torch.testing.assert_close(usual.map, seewhy.explain(model, images, asked, "hires_cam", **signed).map)
    both = [asked, box(threshold=0.0, read="x0") - asked]
    assert [each.method for each in seewhy.compare(model, images[:1], both, **signed)] == ["hires_cam"] * 2
    assert seewhy.explain(model, images, [asked, -asked], **signed).method == "hires_cam"
    assert seewhy.explain(model, images, (asked, -asked), **signed).method == "hires_cam"
    named = seewhy.explain(model, images, asked, "grad_cam", **signed)
    assert named.method == "grad_cam"
    assert not any(note.startswith("method:") for note in named.notes)
    assert seewhy.explain(model, images, lambda output: output[:, 5, 0], **signed).method == "grad_cam"
