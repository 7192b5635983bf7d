"""Noise, flips and scales around any method: each with its way back, and how the maps become one."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from oracles import agree
from seewhy.ensemble import Flips, Noise, Scales, changed, combine
from seewhy.methods.pixel import input_x_gradient, saliency, smooth_grad
from seewhy.types import MethodError, ShapeError

GRIDS = [(7,), (4, 6), (2, 3, 4)]
HOW = ("mean", "mean_squares", "variance")


def images(grid: tuple[int, ...] = (4, 6), b: int = 3, c: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(b, c, *grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(x: Tensor, weights: Tensor, power: int = 1) -> Tensor:
    """Of sum_p (w_p x_p)^power: with equal weights on mirrored sides a score without sides."""
    return power * weights**power * x ** (power - 1)


def maps_of(change: Any, x: Tensor, power: int = 1) -> Iterator[Tensor]:
    """The maps of input times gradient of a score that is the same at every pixel."""
    weights = torch.ones((), dtype=torch.float64)
    for copy, undo in change.changes(x):
        yield undo(input_x_gradient(copy, gradient(copy, weights, power)))


# Combining


def by_hand(maps: list[Tensor], how: str) -> Tensor:
    out = torch.zeros_like(maps[0])
    for place in itertools.product(*map(range, out.shape)):
        values = [float(map[place]) for map in maps]
        mean = sum(values) / len(values)
        out[place] = {
            "mean": mean,
            "mean_squares": sum(value**2 for value in values) / len(values),
            "variance": sum((value - mean) ** 2 for value in values) / len(values),
        }[how]
    return out


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_combining_equals_its_loops(how: str, count: int) -> None:
    maps = [images(seed=seed)[:, 0] + 1 for seed in range(count)]
    wanted = by_hand(maps, how)
    assert agree(combine(iter(maps), how), wanted)
    before = [map.clone() for map in maps]
    combine(maps, how)
    assert all(torch.equal(map, was) for map, was in zip(maps, before, strict=True))
    if count > 1:
        assert not agree(combine(maps[1:], how), wanted)
        assert not any(agree(combine(maps, other), wanted) for other in HOW if other != how)


def test_maps_that_are_alike_have_themselves_as_mean_and_no_variance() -> None:
    map = images()[:, 0]
    assert torch.equal(combine([map] * 5), map)
    assert (combine([map] * 5, "variance") == 0).all()
    assert agree(combine([map] * 5, "mean_squares"), map.square())


def test_a_small_variance_of_large_maps_is_not_lost() -> None:
    maps = [1e8 + images(seed=seed)[:, 0] for seed in range(6)]
    near = [map - 1e8 for map in maps]
    torch.testing.assert_close(combine(maps, "variance"), combine(near, "variance"), rtol=1e-6, atol=0)


def test_maps_are_taken_one_by_one() -> None:
    alive: list[int] = []

    def stream() -> Iterator[Tensor]:
        for number in range(20):
            alive.append(number)
            yield torch.full((1, 2, 2), float(number))

    assert combine(stream()).mean() == 9.5
    assert alive == list(range(20))


# Noise


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_mean_of_maps_under_noise_is_smooth_grad_where_the_colors_are_summed(grid: tuple[int, ...]) -> None:
    x, weights = images(grid), images(grid, b=1, seed=3)
    members = (
        undo(saliency(gradient(copy, weights, 3), channels="sum"))
        for copy, undo in Noise(samples=6, level=0.3, seed=2).changes(x)
    )
    wanted = smooth_grad(
        x,
        gradient(x, weights, 3),
        lambda at, rows: gradient(at, weights, 3),
        samples=6,
        level=0.3,
        seed=2,
        channels="sum",
    )
    assert agree(combine(members), wanted)


def test_noise_leaves_the_gradient_of_a_linear_score_and_has_no_variance_there() -> None:
    x, weights = images(), images(seed=3)
    maps = [undo(saliency(gradient(copy, weights))) for copy, undo in Noise(samples=4).changes(x)]
    assert torch.equal(combine(maps), saliency(weights))
    assert (combine(maps, "variance") == 0).all()


def test_noise_has_the_size_that_was_asked_for_whatever_the_range_of_the_image() -> None:
    x = images((16, 16)) * torch.tensor([1.0, 10, 0.1])[:, None, None, None]
    off = torch.stack([copy - x for copy, _ in Noise(samples=60, level=0.2).changes(x)])
    sigma = 0.2 * (x.flatten(1).amax(1) - x.flatten(1).amin(1))
    torch.testing.assert_close(off.movedim(1, 0).flatten(1).std(1), sigma, rtol=0.02, atol=0)
    assert (off.mean(0).abs().amax((1, 2, 3)) < sigma).all()


def test_the_seed_decides_not_the_company_nor_the_global_state() -> None:
    x, state = images(), torch.get_rng_state()
    copies = [copy for copy, _ in Noise(samples=3).changes(x)]
    alone = [copy for copy, _ in Noise(samples=5).changes(x[1:2])]
    assert all(torch.equal(together[1:2], single) for together, single in zip(copies, alone[:3], strict=True))
    assert not torch.equal(copies[0] - x, copies[1] - x)
    assert not torch.equal(next(Noise(seed=1).changes(x))[0], copies[0])
    assert torch.equal(torch.get_rng_state(), state)


# Flips


@pytest.mark.parametrize(
    ("axes", "grid"), [((-1,), (7,)), ((-1,), (4, 6)), ((-2, -1), (4, 6)), ((-3, -1), (2, 3, 4))], ids=str
)
def test_flips_come_in_every_combination_and_their_maps_come_back(axes: tuple[int, ...], grid: tuple[int, ...]) -> None:
    x = images(grid)
    copies = list(Flips(axes).changes(x))
    assert len(copies) == 2 ** len(axes)
    assert torch.equal(copies[0][0], x)
    assert not any(torch.equal(one[0], other[0]) for one, other in itertools.combinations(copies, 2))
    assert all(torch.equal(undo(copy[:, 0]), x[:, 0]) for copy, undo in copies)


@pytest.mark.parametrize("axes", [(-1,), (-2,), (-2, -1)])
def test_a_method_that_flips_with_the_image_is_as_without(axes: tuple[int, ...]) -> None:
    x = images()
    wanted = input_x_gradient(x, gradient(x, torch.ones(()).double(), 3))
    maps = list(maps_of(Flips(axes), x, 3))
    assert agree(combine(maps), wanted)
    assert combine(maps, "variance").max() < 1e-25


def test_a_method_with_sides_is_evened_out() -> None:
    x, weights = images(), images(seed=4)
    maps = [undo(saliency(gradient(copy, weights))) for copy, undo in Flips().changes(x)]
    assert agree(combine(maps), (saliency(weights) + saliency(weights).flip(-1)) / 2)


# Scales


def test_scales_interpolate_as_the_library_does_with_antialiasing() -> None:
    x = images((10, 12))
    for (copy, undo), factor in zip(Scales((0.5, 0.3, 1.0, 1.7)).changes(x), (0.5, 0.3, 1.0, 1.7), strict=True):
        size = [round(factor * 10), round(factor * 12)]
        assert agree(copy, F.interpolate(x, size, mode="bilinear", antialias=True))
        back = F.interpolate(copy, (10, 12), mode="bilinear", antialias=True)[:, 0]
        assert agree(undo(copy[:, 0]), back)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_scales_bring_back_constants_and_factor_1_brings_back_all(grid: tuple[int, ...]) -> None:
    x = images(grid)
    copy, undo = next(Scales((1.0,)).changes(x))
    assert agree(copy, x)
    assert agree(undo(copy[:, 0]), x[:, 0])
    for copy, undo in Scales((0.1, 0.5, 1.5, 2.0, 3.0)).changes(torch.full_like(x, 0.7)):
        assert agree(copy, torch.full_like(copy, 0.7))
        assert agree(undo(copy[:, 0]), torch.full_like(x[:, 0], 0.7))
    sizes = [copy.shape[2:] for copy, _ in Scales((0.1, 2.0)).changes(x)]
    assert sizes == [tuple(max(1, round(0.1 * side)) for side in grid), tuple(2 * side for side in grid)]


def test_a_slope_keeps_its_place_at_every_scale() -> None:
    """Seen from the middles of pixels, interpolation is exact on slopes away from the border: no half pixel is lost."""
    ramp = torch.arange(24, dtype=torch.float64).reshape(1, 1, 24)
    for copy, undo in Scales((0.5, 2.0, 3.0)).changes(ramp):
        assert agree(undo(copy[:, 0])[:, 3:-3], ramp[:, 0, 3:-3])


# All of them


def test_kinds_of_changes_combine_and_come_back_in_turn() -> None:
    x = images((6, 8))
    kinds = (Flips((-1, -2)), Scales((1.0, 2.0)), Noise(samples=3, level=0))
    copies = list(changed(x, kinds))
    assert len(copies) == 4 * 2 * 3
    assert {tuple(copy.shape[2:]) for copy, _ in copies} == {(6, 8), (12, 16)}
    assert all(agree(undo(copy[:, 0]), x[:, 0]) for copy, undo in copies if copy.shape[2] == 6)
    backwards = [undo(copy[:, 0]) for copy, undo in changed(x, kinds[::-1])]
    assert agree(combine(backwards), combine([undo(copy[:, 0]) for copy, undo in copies]))
    ((_, undo),) = changed(x, (Scales((2.0,)), Scales((3.0,))))
    assert undo(torch.zeros(3, 36, 48)).shape == (3, 6, 8)
    ((same, undo),) = changed(x, ())
    assert same is x
    assert torch.equal(undo(x[:, 0]), x[:, 0])


@pytest.mark.parametrize("change", [Noise(samples=2), Flips((-1,)), Scales((0.5, 2.0))], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_changes_leave_the_images_alone_and_keep_their_type(change: Any, dtype: torch.dtype) -> None:
    x = images().to(dtype)
    before = x.clone()
    for copy, undo in change.changes(x):
        assert copy.dtype == undo(copy[:, 0]).dtype == dtype
        copy.zero_()
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: Noise(samples=0),
            MethodError,
            "got 0 samples of noise of level 0.15; take at least one and a level of 0 or more",
        ),
        (
            lambda: Noise(level=-1),
            MethodError,
            "got 50 samples of noise of level -1; take at least one and a level of 0 or more",
        ),
        (
            lambda: Flips((0,)),
            MethodError,
            "got axes (0,) to flip; name each once, counted from the end: (-1,) is the width",
        ),
        (
            lambda: Flips((-1, -1)),
            MethodError,
            "got axes (-1, -1) to flip; name each once, counted from the end: (-1,) is the width",
        ),
        (
            lambda: Flips(()),
            MethodError,
            "got axes () to flip; name each once, counted from the end: (-1,) is the width",
        ),
        (
            lambda: next(Flips((-3,)).changes(images())),
            ShapeError,
            "got axis -3 to flip in images of shape (3, 2, 4, 6); they have 2 spatial axes, -1 to -2",
        ),
        (lambda: Scales(()), MethodError, "got scales (); give at least one factor, and all above 0"),
        (lambda: Scales((1.0, 0.0)), MethodError, "got scales (1.0, 0.0); give at least one factor, and all above 0"),
        (lambda: combine([]), ShapeError, "got no maps to combine; an ensemble has at least one member"),
        (
            lambda: combine([torch.zeros(1, 2, 3), torch.zeros(1, 3, 3)]),
            ShapeError,
            "got maps of shapes (1, 2, 3) and (1, 3, 3); an ensemble combines maps of one size",
        ),
        (
            lambda: combine([torch.zeros(1, 2)], "max"),
            MethodError,
            "no way 'max' of combining; choose 'mean', 'mean_squares' or 'variance'",
        ),
    ],
)
def test_what_cannot_be_done_is_said_at_once(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("change", "given", "text"),
    [
        (Flips(), {"axes": -1}, "got axes -1 to flip; name each once"),
        (Flips(), {"axes": (-1.5,)}, "got axes (-1.5,) to flip; name each once"),
        (Scales(), {"factors": 2.0}, "got scales 2.0; give at least one factor"),
        (Scales(), {"factors": (1.0, float("inf"))}, "got scales (1.0, inf); give at least one factor"),
        (Noise(), {"level": "a"}, "got 50 samples of noise of level a; take at least one"),
        (Noise(), {"level": float("nan")}, "got 50 samples of noise of level nan; take at least one"),
        (Noise(), {"samples": 2.5}, "got 2.5 samples of noise of level 0.15; take at least one"),
    ],
)
def test_arguments_of_another_kind(change: Any, given: dict[str, Any], text: str) -> None:
    for name, value in given.items():
        object.__setattr__(change, name, value)  # the checks of types that tests run with would be first
    with pytest.raises(MethodError) as raised:
        change.__post_init__()
    assert str(raised.value).startswith(text)
