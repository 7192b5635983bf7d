"""Rules that broken code once passed all tests without: each test here was seen to fail on that code."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

import seewhy
from seewhy.backward import Ruled
from seewhy.data.frame import Frame
from seewhy.inputs import named
from seewhy.marks import on_grid, on_photo
from seewhy.model import alignment
from seewhy.model.rules import Rectified
from seewhy.targets.arithmetic import Sum
from seewhy.targets.classes import ClassScore
from seewhy.targets.detections import standing
from seewhy.types import MapWarning, ModelError


def images(size=16):
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


class Cells(nn.Module):
    """A box at every cell of an 8x8 grid, behind a rectified grid of twice that, and two classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, padding=1)
        self.boxes = nn.Conv2d(8, 5, 5, padding=2)

    def forward(self, x):
        return self.boxes(self.coarse(self.fine(x).relu()).relu())


def decode(output):
    raw = output.flatten(2).transpose(1, 2)
    centers = torch.tensor([[2.0 * (cell % 8) + 1, 2.0 * (cell // 8) + 1] for cell in range(64)])
    boxes = torch.cat([centers - 3 + raw[..., :2] * 0.1, centers + 3 + raw[..., 2:4] * 0.1], -1)
    return seewhy.Candidates(boxes, raw[..., 4:].sigmoid())


def test_of_a_box_too_a_finer_layer_is_looked_at_where_one_is_asked_for():
    alone = seewhy.explain(Cells(), images(), seewhy.Box(decode=decode, threshold=0.0), "hires_cam")
    both = seewhy.explain(Cells(), images(), seewhy.Box(decode=decode, threshold=0.0), "sharp")
    assert [tuple(raw.shape[-2:]) for raw in alone.raw.values()] == [(8, 8)]
    assert len(both.layers) == 2
    assert set(alone.layers) < set(both.layers)


def test_a_sum_of_parts_of_two_tensors_tells_no_gradient():
    output = {"a": torch.randn(1, 4), "b": torch.randn(1, 4)}
    rows = torch.zeros(1, dtype=torch.long)
    one = replace(ClassScore("score", (1,)), path=("a",))
    other = replace(ClassScore("score", (2,)), path=("b",))
    assert Sum(((1.0, one), (1.0, other))).gradient(output, rows) is None
    told = Sum(((1.0, one), (2.0, replace(other, path=("a",))))).gradient(output, rows)
    assert told is not None
    assert told[0] == ("a",)
    assert told[1].tolist() == [[0.0, 1.0, 2.0, 0.0]]


def test_a_map_that_is_kept_holds_no_others():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    for each in seewhy.compare(model, images(), [0, 1, 2], ["saliency"]):
        assert each.map.untyped_storage().nbytes() == each.map.numel() * each.map.element_size()


def test_of_embeddings_of_one_name_the_outermost_is_taken():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.one, self.other = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            found = self.conv(x).relu().mean((2, 3))
            return {
                "text": {"vision": {"image_embeds": self.one(found)}},
                "vision": {"image_embeds": self.other(found)},
            }

    pair = torch.cat([images(), images().flip(-1) * 2])
    found, said = (
        seewhy.explain(Nested(), pair, seewhy.Similarity([1, 0], read=read))
        for read in (None, ("vision", "image_embeds"))
    )
    torch.testing.assert_close(found.map, said.map)
    assert found.map.any()


def test_a_tile_with_a_sliver_of_a_region_answers_with_its_one_cell():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 3, 1)).double()
    x = torch.randn(1, 3, 8, 24, dtype=torch.float64)
    mask = torch.zeros(8, 24, dtype=torch.bool)
    mask[2:6, :8], mask[3, 13] = True, True  # 32 pixels of 4 to a cell, a quarter of a cell, and nothing
    tiled = seewhy.tiles(model, x, seewhy.Region(1, mask=mask), "hires_cam", size=8, overlap=0, rectify=False)
    logits = model(x)[0, 1].detach()
    expected = torch.stack([logits[1:3, :4].sum(), logits[1, 6], torch.zeros(()).double()])
    torch.testing.assert_close(tiled.scores, expected)


@pytest.mark.parametrize("beyond", [0.0, 0.5, 3.0])
def test_a_box_over_the_border_is_explained_where_its_part_in_the_image_is(beyond):
    class Wide(nn.Module):
        """A box of the whole picture, whose cell sees all of it, and sides that lie beyond the border by a share."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 8, 3, 2, 1)
            self.boxes = nn.Conv2d(8, 5, 15, padding=7)

        def forward(self, x):
            return self.boxes(self.stem(x).relu())

    def decoded(output):
        raw = output.flatten(2).transpose(1, 2)
        whole = torch.tensor([-beyond, -beyond, 1 + beyond, 1 + beyond]) * 16
        return seewhy.Candidates(whole + raw[..., :4] * 1e-3, raw[..., 4:].sigmoid())

    e = seewhy.explain(Wide(), images(), seewhy.Box(decode=decoded, threshold=0.0), "hires_cam")
    assert any("whose gradient spans the box" in note for note in e.notes)


def test_a_candidate_that_ranks_just_what_is_asked_for_is_a_box():
    boxes = torch.tensor([[[0.0, 0, 4, 4], [8.0, 8, 12, 12], [0.0, 8, 4, 12]]])
    found = standing(seewhy.Candidates(boxes, torch.tensor([[[0.25], [0.5], [0.2499]]])), (16, 16), 0, 0.25)
    assert found.candidates.tolist() == [1, 0]


@pytest.mark.parametrize("part", ["all", "end", "begin"])
def test_places_of_a_resized_photo_are_those_of_whole_numbers(part):
    """Pixel i of n lies in cell floor((2 i + 1) m / 2 n) of m, also where that is a border and floats fall short."""
    odd = torch.arange(40)[:, None] % 2 == 1
    for n, m in itertools.product(range(10, 34), range(9, 37)):
        first, last = {"all": (0, m), "end": (m // 2, m), "begin": (0, m // 2)}[part]  # of the m; then a border of 2
        grid = (last - first + 4, 1)
        frame = Frame.identity((n, 1)).resized((m, 1)).cropped(first, 0, (last - first, 1)).padded(2, 0, grid)
        cells = [(2 * i + 1) * m // (2 * n) for i in range(n)]
        for parity, mask in enumerate((~odd, odd)):
            found = on_photo(mask[: grid[0]], frame, grid)[:, 0]
            assert found.tolist() == [first <= cell < last and (cell - first) % 2 == parity for cell in cells], (n, m)
        pixels = [(2 * cell + 1) * n // (2 * m) % 2 == 1 for cell in range(first, last)]
        if any(pixels):  # else the mask lies under no middle
            found = on_grid(odd[:n], frame, grid, grid)[:, 0]
            assert found.tolist() == [False, False, *pixels, False, False], (n, m)


def test_of_several_tensors_those_that_are_called_like_images_are_the_images():
    model, (one, other) = nn.Conv2d(3, 2, 1), torch.rand(2, 1, 3, 8, 8)
    for given in ({"depth": one, "pixel_values": other}, {"pixel_values": other, "depth": one}):
        found, name, further = named(model, given, {})
        assert found is other
        assert name == "pixel_values"
        assert further == {"depth": one}
    with pytest.raises(ModelError, match="in which the tensors depth, mask may be images; give the images alone"):
        named(model, {"depth": one, "mask": other}, {})


@pytest.mark.parametrize(
    ("stride", "pixel", "is_moved"),
    [(20, 14, False), (20, 15, True), (20, 5, False), (20, 4, True), (3, 2, False), (4, 3, True)],
)
def test_a_cell_is_moved_that_is_more_than_a_quarter_of_it_and_than_a_pixel_off(stride, pixel, is_moved):
    leaf = torch.randn(1, 1, 5 * stride, 5 * stride, requires_grad=True, dtype=torch.float64)
    cells = leaf.clone()[..., pixel::stride, pixel::stride]
    edge, shape, size = get_gradient_edge(cells), cells.shape, tuple(leaf.shape[2:])
    passes = []
    leaf.register_hook(passes.append)
    reckoned = alignment.analytic(edge, leaf, (5, 5))
    found = alignment.place(edge, shape, leaf, (5, 5), reckoned)
    off = pixel - (stride - 1) / 2 if is_moved else 0
    assert found.shift(size, (5, 5)) == pytest.approx((off, off), abs=1e-9)
    assert len(passes) == is_moved


@pytest.mark.parametrize(("alike", "said"), [(0.89, ""), (0.91, ": it hardly depends on the question")])
def test_a_map_by_a_rule_hardly_depends_on_the_question_from_nine_tenths_on(alike, said):
    here, there = torch.tensor([[1.0, -1, 1, -1], [1.0, 1, -1, -1]]).double().reshape(2, 1, 1, 2, 2)
    mixture = 9 + alike * here + math.sqrt(1 - alike**2) * there
    ruled = Ruled(9 + here[None], mixture, Rectified(2, {}))
    assert str(ruled).endswith(f" that correlates {alike:.2f} with it{said}")


def test_of_a_map_that_is_the_same_everywhere_no_sign_is_advised():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[3].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    for target, what in ((0, "the same everywhere; it says nothing about places"), (1, "; rectify=False shows what")):
        with pytest.warns(MapWarning, match=what) as told:
            e = seewhy.explain(model, torch.ones(1, 3, 4, 4), target, "hires_cam", layer="0", rectify=True)
        assert ["rectify=False" in str(each.message) for each in told] == [target == 1]
        assert ["rectify=False" in note for note in e.notes if note.startswith("image 0: ")] == [target == 1]
