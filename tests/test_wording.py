"""The clauses that many sentences share."""

import pytest

from seewhy.wording import by, closest, near, some

LAYERS = ["layer1", "layer2", "layer3", "layer4", "fc", "layer4"]


def test_the_nearest_come_first_and_once() -> None:
    assert near("layr4", LAYERS)[0] == "layer4"
    assert near("layer4", LAYERS).count("layer4") == 1
    assert len(near("layer", LAYERS)) == 3
    assert near("layer", LAYERS, 9) == sorted(near("layer", LAYERS, 9), reverse=True)
    assert near("conv", LAYERS) == []


def test_a_near_miss_is_named_as_it_is_spelled() -> None:
    assert closest("fcc", iter(LAYERS)) == "closest 'fc'"
    assert closest("tab.jpg", ["cat.jpg", "bat\udcff.jpg"]) == "closest 'cat.jpg', 'bat\\udcff.jpg'"
    assert closest("conv", LAYERS) == "none is close"
    assert closest("conv", [], "check the path") == "check the path"


@pytest.mark.parametrize(("count", "text"), [(1, "a and 3 more"), (3, "a, b, c and 1 more"), (4, "a, b, c, d")])
def test_long_lists_are_cut(count: int, text: str) -> None:
    assert some("abcd", count) == text


def test_sizes() -> None:
    assert (by((14, 7)), by([3]), by(iter((4, 5, 6)))) == ("14x7", "3", "4x5x6")
