"""Peaks, masks, segments and boxes against a flood fill written from the definition, and SciPy's labels."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy.localize import Box, Span, boxes, components, mask, peak
from seewhy.types import MethodError, ShapeError

MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0.1, 0.95)).map(
    lambda s: np.random.default_rng(s[2]).random(s[:2]) < s[3]
)


def flood_fill(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """The definition: from each pixel that has no number yet, give its number to all that can be reached from it."""
    labels, number = np.zeros(mask.shape, int), 0
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)] + [(-1, -1), (-1, 1), (1, -1), (1, 1)] * (connectivity == 8)
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        number += 1
        reached = [start]
        while reached:
            row, column = reached.pop()
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column] > labels[row, column]:
                labels[row, column] = number
                reached += [(row + y, column + x) for y, x in steps]
    return labels


@settings(deadline=None, max_examples=300)
@given(MASKS, st.sampled_from([4, 8]))
def test_components_equal_a_flood_fill_with_the_same_numbers(mask, connectivity):
    found = components(torch.from_numpy(mask), connectivity).numpy()
    np.testing.assert_array_equal(found, flood_fill(mask, connectivity))


def spiral(size: int) -> np.ndarray:
    """One line that winds inwards with a gap of one pixel: the longest way from a segment's start to its end."""
    walls, (y, x), (dy, dx) = np.zeros((size, size), bool), (0, -1), (0, 1)
    for length in [size, *(n for m in range(size - 1, 0, -2) for n in (m, m))]:
        for _ in range(length):
            y, x = y + dy, x + dx
            walls[y, x] = True
        dy, dx = dx, -dy
    return walls


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(
    "mask",
    [
        spiral(33),
        np.indices((40, 40)).sum(0) % 2 == 0,
        np.indices((31, 40))[1] % 2 == 0,
        np.indices((31, 40))[0] % 2 == 0,
        np.eye(50, dtype=bool),
        np.eye(50, dtype=bool)[::-1].copy(),
        np.ones((3, 5), bool),
        np.zeros((3, 5), bool),
        np.random.default_rng(0).random((200, 300)) < 0.55,
    ],
    ids=["spiral", "board", "columns", "rows", "diagonal", "other diagonal", "all", "none", "noise"],
)
def test_components_equal_scipy_up_to_the_order_of_numbers(mask, connectivity):
    scipy = pytest.importorskip("scipy.ndimage", reason="needs SciPy, which seewhy itself does not")
    theirs, count = scipy.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
    ours = components(torch.from_numpy(mask), connectivity).numpy()
    assert ours.max(initial=0) == count
    pairs = {(int(a), int(b)) for a, b in zip(ours.ravel(), theirs.ravel(), strict=True)}
    assert len(pairs) == len(np.unique(ours))  # one of theirs for each of ours


def test_corners_connect_with_8_and_not_with_4():
    diagonal = torch.eye(3, dtype=torch.bool)
    assert components(diagonal, 8).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert components(diagonal, 4).tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]


def test_the_end_of_a_row_does_not_touch_the_start_of_the_next_but_one():
    ends = torch.tensor([[0, 0, 1], [0, 0, 0], [1, 0, 0]]).bool()
    assert components(ends).tolist() == [[0, 0, 1], [0, 0, 0], [2, 0, 0]]
    neighbors = torch.tensor([[0, 0, 1], [1, 0, 0]]).bool()
    assert components(neighbors).tolist() == [[0, 0, 1], [2, 0, 0]]


def test_peak_is_the_first_of_tied_pixels_and_none_without_a_positive_value():
    map = torch.tensor([[0.0, 1.0, 3.0], [3.0, -9.0, 3.0]])
    assert peak(map) == (0, 2)
    assert peak(map * 1e-30) == (0, 2)
    assert peak(torch.zeros(2, 3)) is None
    assert peak(-map.abs()) is None
    assert peak(torch.tensor([[1, 2]]).bfloat16()) == (0, 1)


def test_mask_is_the_share_of_the_maximum():
    map = torch.tensor([[-50.0, 0.0, 14.0], [15.0, 16.0, 100.0]], dtype=torch.float64)
    assert mask(map).tolist() == [[False, False, False], [True, True, True]]
    assert mask(map, 1.0).tolist() == [[False] * 3, [False, False, True]]
    assert mask(map, 0.0).tolist() == [[False, True, True], [True] * 3]
    assert not mask(torch.zeros(2, 2)).any()
    assert not mask(torch.full((2, 2), -1.0), 0.0).any()


@settings(deadline=None, max_examples=50)
@given(MASKS, st.floats(0, 1), st.integers(-20, 20))
def test_mask_does_not_depend_on_the_maps_unit(noise, threshold, exponent):
    map = torch.from_numpy(np.random.default_rng(noise.sum()).normal(size=noise.shape))
    assert torch.equal(mask(map, threshold), mask(map * 2.0**exponent, threshold))


def test_boxes_are_pixel_edges_ordered_by_area_with_the_mean_heat():
    map = torch.zeros(6, 8)
    map[1:3, 2:6] = 0.5
    map[2, 3] = 1.0
    map[5, 7] = 0.9
    map[4:6, 0] = 0.2
    map[0, 0] = 0.14
    expected = [
        Box(2, 1, 6, 3, area=8, score=4.5 / 8),
        Box(0, 4, 1, 6, area=2, score=0.2),
        Box(7, 5, 8, 6, area=1, score=0.9),
    ]
    found = boxes(map, largest=False)
    assert [box.xyxy for box in found] == [box.xyxy for box in expected]
    assert [box.area for box in found] == [8, 2, 1]
    assert [box.score for box in found] == pytest.approx([box.score for box in expected])
    assert boxes(map) == found[:1]
    assert boxes(torch.zeros(4, 4)) == []


@settings(deadline=None, max_examples=100)
@given(MASKS)
def test_boxes_are_the_extent_of_the_segments(noise):
    map = torch.from_numpy(noise * np.random.default_rng(1).uniform(0.5, 1, noise.shape))
    labels = flood_fill(noise, 8)
    expected = []
    for number in range(1, labels.max() + 1):
        rows, columns = np.nonzero(labels == number)
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        expected.append((*edges, len(rows), map.numpy()[labels == number].mean()))
    expected.sort(key=lambda box: -box[4])
    found = [(*box.xyxy, box.area, box.score) for box in boxes(map, largest=False)]
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-12)


def test_errors_say_the_rule_and_the_way_out():
    bad = torch.tensor([[1.0, float("nan")], [float("inf"), 0.0]])
    for function in (peak, mask, boxes):
        with pytest.raises(ShapeError, match="got a map with 2 values of NaN or infinity; a place needs numbers; mend"):
            function(bad)
        with pytest.raises(ShapeError, match=r"got a map of \(0, 3\); a place needs pixels; check how it was cropped"):
            function(torch.zeros(0, 3))
    with pytest.raises(MethodError, match=r"got threshold=15; it is a share of the map's maximum, 0\.\.1; 0\.15 is"):
        mask(torch.ones(2, 2), 15)
    with pytest.raises(MethodError, match="got connectivity=6; pixels touch 4 or 8 neighbors; pass 4 or 8"):
        inspect.unwrap(components)(torch.ones(2, 2).bool(), 6)  # unwrapped: past the tests' own type checker


def flooded(mask: np.ndarray, corners: bool) -> np.ndarray:
    """The definition in any number of dimensions."""
    labels, number = np.zeros(mask.shape, int), 0
    around = [np.array(step) - 1 for step in np.ndindex(*[3] * mask.ndim)]
    around = [step for step in around if corners or np.abs(step).sum() == 1]
    for start in zip(*np.nonzero(mask), strict=True):
        number += not labels[start]
        reached = [] if labels[start] else [np.array(start)]
        while reached:
            at = reached.pop()
            if (at >= 0).all() and (at < mask.shape).all() and mask[tuple(at)] and not labels[tuple(at)]:
                labels[tuple(at)] = number
                reached += [at + step for step in around]
    return labels


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("size", [(40,), (5, 6, 7), (1, 9, 4), (3, 4, 2, 5)])
def test_components_of_any_number_of_axes(size, connectivity):
    for seed, share in enumerate((0.1, 0.2, 0.35)):
        mask = np.random.default_rng(seed).random(size) < share
        found = components(torch.from_numpy(mask), connectivity).numpy()
        np.testing.assert_array_equal(found, flooded(mask, connectivity == 8))


def test_peak_and_boxes_of_signals_and_volumes():
    signal = torch.tensor([0.0, 1, 5, 3, 0, 2, 0])
    assert peak(signal) == (2,)
    assert boxes(signal, 0.2, largest=False) == [Span((1,), (4,), 3, 3.0), Span((5,), (6,), 1, 2.0)]
    volume = torch.zeros(4, 5, 6)
    volume[1:3, 2:5, 3] = 2
    volume[2, 4, 3] = 5
    assert peak(volume) == (2, 4, 3)
    assert boxes(volume) == [Span((1, 2, 3), (3, 5, 4), 6, 2.5)]
    assert peak(-volume) is None
    assert boxes(-volume) == []
