"""Localization metrics against slow loops, and the identities that say what a figure means."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy.metrics.localization import (
    best_box_iou,
    box_iou,
    center_gaussian,
    edge_map,
    energy,
    enrichment,
    pixel_auroc,
    pointing_game,
    random_map,
    uniform,
)
from seewhy.types import ShapeError

DOUBLE = torch.float64
RANKING = [pointing_game, pixel_auroc]
MASSES = [energy, enrichment]


def drawn(seed, shape=(4, 7, 9), levels=None, share=0.3):
    """Signed maps (of few levels: with many ties) and masks that are neither empty nor full."""
    generator = torch.Generator().manual_seed(seed)
    map = torch.randn(shape, generator=generator, dtype=DOUBLE)
    if levels:
        map = (map * levels / 2).round()
    mask = torch.rand(shape, generator=generator) < share
    mask[:, 0, 0], mask[:, -1, -1] = True, False
    return map, mask


def pixels(map):
    return [(row, column) for row in range(map.shape[0]) for column in range(map.shape[1])]


def slow_pointing(map, mask, tolerance):
    top = max(float(map[p]) for p in pixels(map))
    tied = [p for p in pixels(map) if float(map[p]) == top]
    inside = [p for p in pixels(mask) if mask[p]]
    return sum(any(math.dist(p, q) <= tolerance for q in inside) for p in tied) / len(tied)


def slow_energy(map, mask):
    positive = {p: max(float(map[p]), 0.0) for p in pixels(map)}
    return sum(heat for p, heat in positive.items() if mask[p]) / sum(positive.values())


def slow_auroc(map, mask):
    inside = [float(map[p]) for p in pixels(map) if mask[p]]
    outside = [float(map[p]) for p in pixels(map) if not mask[p]]
    return sum((i > o) + (i == o) / 2 for i in inside for o in outside) / (len(inside) * len(outside))


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_slow_loops(seed, levels):
    map, mask = drawn(seed, levels=levels)
    for tolerance in (0, 1, 1.5, 2.9):
        expected = torch.tensor([slow_pointing(*pair, tolerance) for pair in zip(map, mask, strict=True)], dtype=DOUBLE)
        torch.testing.assert_close(pointing_game(map, mask, tolerance=tolerance), expected, rtol=0, atol=1e-12)
    for metric, slow in ((energy, slow_energy), (pixel_auroc, slow_auroc)):
        expected = torch.tensor([slow(*pair) for pair in zip(map, mask, strict=True)], dtype=DOUBLE)
        torch.testing.assert_close(metric(map, mask), expected, rtol=0, atol=1e-12)


@given(st.integers(0, 2**31), st.sampled_from([None, 1, 3]))
@settings(max_examples=25, deadline=None)
def test_increasing_transforms_change_no_ranking(seed, levels):
    map, mask = drawn(seed, levels=levels)
    for metric in RANKING:
        for transform in (lambda x: 3 * x - 40, torch.exp, torch.atan):
            torch.testing.assert_close(metric(transform(map), mask), metric(map, mask), rtol=0, atol=1e-12)


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_scaling_changes_no_share_of_mass_and_reversal_mirrors_the_auroc(seed):
    map, mask = drawn(seed, levels=3)
    for metric in MASSES:
        torch.testing.assert_close(metric(map * 7.5, mask), metric(map, mask), rtol=0, atol=1e-12)
    torch.testing.assert_close(pixel_auroc(-map, mask), 1 - pixel_auroc(map, mask), rtol=0, atol=1e-12)
    torch.testing.assert_close(energy(map, mask) + energy(map, ~mask), torch.ones(4, dtype=DOUBLE), rtol=0, atol=1e-12)


def test_the_object_itself_is_the_perfect_map():
    _, mask = drawn(0)
    map = mask.double()
    for metric in (pointing_game, energy, pixel_auroc):
        assert metric(map, mask).tolist() == [1] * 4
        assert metric(map, ~mask).tolist() == [0] * 4
    torch.testing.assert_close(enrichment(map, mask), 1 / mask.double().mean((1, 2)))


def test_a_uniform_map_has_the_objects_area_as_its_energy():
    _, mask = drawn(0)
    map = uniform((7, 9)).expand(4, -1, -1)
    torch.testing.assert_close(energy(map, mask), mask.double().mean((1, 2)), rtol=0, atol=1e-12)
    torch.testing.assert_close(enrichment(map, mask), torch.ones(4, dtype=DOUBLE), rtol=0, atol=1e-12)


def test_random_maps_score_chance():
    generator = torch.Generator().manual_seed(0)
    maps = torch.stack([random_map((10, 10), generator) for _ in range(4000)])
    mask = torch.zeros(4000, 10, 10, dtype=torch.bool)
    mask[:, 2:5, 1:8] = True
    area, error = 0.21, math.sqrt(0.21 * 0.79 / 4000)
    assert float(pointing_game(maps, mask).mean()) == pytest.approx(area, abs=4 * error)
    assert float(energy(maps, mask).mean()) == pytest.approx(area, abs=0.002)
    assert float(pixel_auroc(maps, mask).mean()) == pytest.approx(0.5, abs=0.005)


def test_ties_count_as_chance_would():
    map = torch.tensor([[[2.0, 2, 0], [0, 2, 2]]])
    mask = torch.tensor([[[True, False, False], [False, False, True]]])
    assert pointing_game(map, mask).item() == 0.5
    assert pixel_auroc(map, mask).item() == (2 * 2 + 4 * 0.5) / 8


def test_tolerance_forgives_a_miss_by_distance_between_centers():
    map, mask = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.bool)
    map[0, 0, 0], mask[0, 3, 4] = 1, True
    assert pointing_game(map, mask, tolerance=4.99).item() == 0
    assert pointing_game(map, mask, tolerance=5).item() == 1


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, math.nan, math.inf])
def test_a_map_without_a_ranking_has_no_figure(value):
    map, mask = drawn(0)
    spoilt = map.clone()
    spoilt[1] = value
    for metric in RANKING:
        found, whole = metric(spoilt, mask), metric(map, mask)
        assert found.isnan().tolist() == [False, True, False, False]
        assert torch.equal(found[[0, 2, 3]], whole[[0, 2, 3]])


@pytest.mark.parametrize("metric", [*RANKING, *MASSES])
def test_one_bad_number_or_an_empty_object_leaves_no_figure(metric):
    map, mask = drawn(0)
    map[0, 1, 1] = math.nan
    mask[2] = False
    assert metric(map, mask).isnan().tolist() == [True, False, True, False]


@pytest.mark.parametrize("metric", MASSES)
def test_a_map_without_positive_values_has_no_mass_to_share(metric):
    map, mask = drawn(0)
    map[1], map[2] = 0, -map[2].abs()
    assert metric(map, mask).isnan().tolist() == [False, True, True, False]


def test_an_object_over_the_whole_picture_has_no_auroc():
    map, mask = drawn(0)
    mask[0] = True
    assert pixel_auroc(map, mask).isnan().tolist() == [True, False, False, False]


@pytest.mark.parametrize("metric", [*RANKING, energy])
def test_sizes_must_agree(metric):
    with pytest.raises(
        ShapeError, match=r"got maps of \(1, 4, 4\) and masks of \(1, 4, 5\); both are \(b h w\) of one"
    ):
        # unwrapped: the type checker that the tests run under would be faster
        inspect.unwrap(metric)(torch.ones(1, 4, 4), torch.ones(1, 4, 5, dtype=torch.bool))


@pytest.mark.parametrize("metric", [*RANKING, *MASSES])
def test_a_batch_equals_its_pictures_one_by_one_and_changes_nothing(metric):
    map, mask = drawn(5)
    before = map.clone(), mask.clone()
    singles = torch.cat([metric(map[i : i + 1], mask[i : i + 1]) for i in range(4)])
    assert torch.equal(metric(map, mask), singles)
    assert torch.equal(map, before[0])
    assert torch.equal(mask, before[1])


# ---- boxes


def blobs():
    """A large segment 2..6 x 3..9 of heat 0.5, and a small one of heat 1."""
    map = torch.zeros(1, 12, 12)
    map[0, 2:6, 3:9] = 0.5
    map[0, 9:11, 0:2] = 1
    return map


def test_the_box_of_the_largest_segment_is_compared_with_the_best_matching_object():
    map = blobs()
    assert box_iou(map, [torch.tensor([[3.0, 2, 9, 6]])]).item() == 1
    assert box_iou(map, [torch.tensor([[0.0, 9, 2, 11], [6.0, 2, 12, 6]])]).item() == pytest.approx(12 / 36)
    assert box_iou(map, [torch.tensor([[0.0, 9, 2, 11]])]).item() == 0
    assert box_iou(map, [torch.tensor([[0.0, 9, 2, 11]])], threshold=0.6).item() == 1


def test_overlap_equals_counting_pixels():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        ends = torch.rand(4, 2, generator=generator).mul(19).sort(1).values.round()
        (y0, y1), (x0, x1), (v0, v1), (u0, u1) = ((int(a), int(b) + 1) for a, b in ends)
        map, truth = torch.zeros(1, 20, 20), torch.zeros(20, 20, dtype=torch.bool)
        map[0, y0:y1, x0:x1], truth[v0:v1, u0:u1] = 1, True
        expected = (truth & (map[0] > 0)).sum() / (truth | (map[0] > 0)).sum()
        found = box_iou(map, [torch.tensor([[u0, v0, u1, v1]]).float()])
        assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_no_box_leaves_no_overlap():
    maps = torch.stack(
        [torch.zeros(12, 12), torch.full((12, 12), math.nan), -torch.ones(12, 12), blobs()[0], blobs()[0]]
    )
    truth = torch.tensor([[3.0, 2, 9, 6]])
    found = box_iou(maps, [truth, truth, truth, torch.zeros(0, 4), truth])
    assert found.isnan().tolist() == [True, True, True, True, False]


def test_the_oracle_threshold_is_common_to_all_maps_and_the_best():
    maps = torch.cat([blobs(), blobs()])
    small, large = torch.tensor([[0.0, 9, 2, 11]]), torch.tensor([[3.0, 2, 9, 6]])
    assert best_box_iou(maps[:1], [small])[1] > 0.5
    assert best_box_iou(maps[:1], [large])[1] <= 0.5
    found, threshold = best_box_iou(maps, [small, large])
    assert (found.sum().item(), threshold) == (1, 0.05)
    assert best_box_iou(torch.zeros(1, 4, 4), [small])[0].isnan().all()


def test_every_map_needs_boxes_of_its_own():
    with pytest.raises(ShapeError, match="got 1 maps and boxes for 2; each map needs its own"):
        box_iou(blobs(), [torch.zeros(1, 4)] * 2)


# ---- baselines


def test_the_center_blob_is_symmetric_and_falls_as_a_gaussian():
    blob = center_gaussian((9, 13), width=0.2)
    assert torch.allclose(blob, blob.flip(0))
    assert torch.allclose(blob, blob.flip(1))
    assert blob[4, 6] == 1
    assert blob[4, 6 + 4].item() == pytest.approx(math.exp(-((4 / 13 / 0.2) ** 2) / 2), rel=1e-5)
    assert blob[4 + 3, 6].item() == pytest.approx(math.exp(-((3 / 9 / 0.2) ** 2) / 2), rel=1e-5)


def test_the_edge_map_is_the_slope_of_the_picture():
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    ramp = (3 * rows + 4 * columns).expand(1, 3, -1, -1)
    found = edge_map(ramp)
    assert torch.allclose(found[0, 1:-1, 1:-1], torch.full((6, 7), 5.0))
    assert torch.equal(edge_map(torch.full((1, 3, 5, 5), 0.7)), torch.zeros(1, 5, 5))


def test_random_maps_follow_their_generator():
    first, second = (random_map((3, 4), torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert torch.equal(first, random_map((3, 4), torch.Generator().manual_seed(1)))
    assert not torch.equal(first, second)
