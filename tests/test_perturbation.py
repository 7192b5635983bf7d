"""Perturbation methods against slow oracles, what mathematics says of them, and how little of the model they run."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from oracles import Channels, agree
from oracles_perturbation import ORACLES, One
from seewhy import methods
from seewhy.facts import needs, options
from seewhy.methods import masking, perturbation
from seewhy.methods.masks import blurred, mask_average, min_max
from seewhy.tensor import interpolation, resize, spatial_mean, spatial_sum, unit, weighted_sum
from seewhy.types import MethodError

B, COLORS, K = 3, 3, 7
DEAD, CONSTANT, ALSO_DEAD = 2, 4, 5
SIZES = [(11,), (7, 9), (4, 5, 4)]
CLASSES = torch.tensor([2, 0, 3])

METHODS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        masking.score_cam,
        masking.ss_cam,
        masking.is_cam,
        masking.group_cam,
        masking.opti_cam,
        perturbation.ablation_cam,
        perturbation.recipro_cam,
        perturbation.rise,
        perturbation.occlusion,
    )
}
CHOICES: dict[str, list[dict[str, Any]]] = {
    "score_cam": [{}, {"variant": "authors"}, {"channels": 3}, {"rectify": False}],
    "ss_cam": [{"samples": 3}, {"samples": 3, "noise_on": "input"}, {"samples": 2, "sigma": 0.3, "seed": 5}],
    "is_cam": [{"samples": 3}, {"samples": 4, "cumulative": True}, {"samples": 2, "rectify": False}],
    "group_cam": [{"groups": 3, "radius": 9}, {"groups": 2, "theta": 0.4, "sigma": 1.5, "radius": 3, "rectify": False}],
    "opti_cam": [{"steps": 4}, {"steps": 3, "rate": 0.5}],
    "ablation_cam": [{}, {"relative": True}, {"rectify": False}],
    "recipro_cam": [{}, {"variant": "authors"}, {"variant": "authors_gaussian"}, {"stretch": False}],
    "rise": [{"masks": 10, "cells": 3}, {"masks": 6, "cells": 2, "keep": 0.3, "seed": 4}],
    "occlusion": [{}, {"patch": 3, "stride": 2}, {"patch": 2, "fill": 0.7}],
}
EVERY = [
    pytest.param(name, chosen, id="-".join([name, *(f"{k}={v}" for k, v in chosen.items())]))
    for name, several in CHOICES.items()
    for chosen in several
]


class Net(nn.Module):
    """A small network of any rank, whose layer has two dead channels and a constant one, with a smooth head."""

    def __init__(self, size: tuple[int, ...], linear: bool = False, colors: int = COLORS) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]
        self.conv = conv(colors, K, 3, stride=2, padding=1)
        with torch.no_grad():
            self.conv.weight[[DEAD, CONSTANT, ALSO_DEAD]] = 0
            self.conv.bias[[DEAD, CONSTANT, ALSO_DEAD]] = torch.tensor([-1.0, 0.1, -2.0])
        self.grid = tuple((side + 1) // 2 for side in size)
        self.hidden = nn.Linear(K * math.prod(self.grid), 3)
        self.last = nn.Linear(3, 4)
        nn.init.ones_(self.last.bias)
        self.only = nn.Linear(K, 4) if linear else None

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()

    def tail(self, a: Tensor) -> Tensor:
        if self.only is not None:
            return self.only(spatial_mean(a))
        return self.last(torch.tanh(2 * self.hidden(a.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.features(x))


@dataclass
class Case:
    """A network, some images, and the facts that methods ask for; counts what is run."""

    net: Net
    x: Tensor
    classes: Tensor = field(default_factory=lambda: CLASSES)
    most: int = 0
    runs: int = 0
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def pick(self, output: Tensor, rows: Tensor) -> Tensor:
        return output[torch.arange(len(rows)), self.classes[rows]]

    def scores_at(self, x: Tensor, rows: Tensor) -> Tensor:
        self.most, self.runs = max(self.most, len(x)), self.runs + len(x)
        self.seen.append((x.clone(), rows))
        with torch.no_grad():
            return self.pick(self.net(x), rows)

    def score_tail(self, a: Tensor, rows: Tensor) -> Tensor:
        self.most, self.runs = max(self.most, len(a)), self.runs + len(a)
        with torch.no_grad():
            return self.pick(self.net.tail(a), rows)

    def differentiable_scores_at(self, x: Tensor, rows: Tensor) -> Tensor:
        self.most, self.runs = max(self.most, len(x)), self.runs + len(x)
        return self.pick(self.net(x), rows)

    def upsample(self, maps: Tensor) -> Tensor:
        sizes = zip(self.x.shape[2:], maps.shape[1:], strict=True)
        return resize(maps, [interpolation((torch.arange(s) + 0.5).to(maps) * g / s - 0.5, g) for s, g in sizes])

    @property
    def activations(self) -> Tensor:
        return self.net.features(self.x).detach()

    @property
    def scores(self) -> Tensor:
        return self.pick(self.net(self.x), torch.arange(len(self.x))).detach()

    @property
    def gradients(self) -> Tensor:
        leaf = self.activations.requires_grad_()
        return torch.autograd.grad(self.pick(self.net.tail(leaf), torch.arange(len(leaf))).sum(), leaf)[0]

    def facts(self, name: str) -> dict[str, Any]:
        linear = self.gradients if self.net.only is not None else None
        every = {"inputs": self.x, "linear_gradients": linear}
        return {fact: every[fact] if fact in every else getattr(self, fact) for fact in needs(METHODS[name])}

    def one(self, i: int) -> One:
        row, size, grid = torch.tensor([i]), self.x.shape[2:], self.net.grid

        def lists(x: Tensor) -> Channels:
            return x.flatten(1).tolist()

        def lay(map: Tensor) -> Tensor:
            return self.upsample(map.reshape(1, *grid))[0].flatten()

        def image(x: Channels | Tensor) -> Tensor:
            return torch.as_tensor(x, dtype=self.x.dtype).reshape(1, -1, *size)

        return One(
            x=lists(self.x[i]),
            A=lists(self.activations[i]),
            g=lists(self.gradients[i]),
            y=float(self.scores[i]),
            size=tuple(size),
            grid=grid,
            score=lambda x: float(self.scores_at(image(x), row)),
            tail=lambda A: float(self.score_tail(torch.tensor(A, dtype=self.x.dtype).reshape(1, -1, *grid), row)),
            lay=lambda map: lay(torch.tensor(map, dtype=self.x.dtype)).tolist(),
            graph_score=lambda x: self.differentiable_scores_at(image(x), row)[0],
            graph_lay=lay,
        )


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def case(size: tuple[int, ...] = (7, 9), *, seed: int = 0, linear: bool = False) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Case(Net(size, linear), torch.randn(B, COLORS, *size))


def run(name: str, given: Case, **chosen: Any) -> Tensor:
    return METHODS[name](**given.facts(name), **chosen)


def expected(name: str, given: Case, **chosen: Any) -> Tensor:
    on_pixels = name in ("rise", "occlusion")
    shape = given.x.shape[2:] if on_pixels else given.net.grid
    maps = [ORACLES[name](given.one(i), **chosen) for i in range(len(given.x))]
    return torch.tensor(maps).reshape(len(maps), *shape)


def single(given: Case, i: int) -> Case:
    return replace(given, x=given.x[i : i + 1], classes=given.classes[i : i + 1], seen=[])


# Oracles


@pytest.mark.parametrize(("name", "chosen"), EVERY)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_method_equals_its_oracle(name: str, chosen: dict[str, Any], size: tuple[int, ...]) -> None:
    given = case(size)
    assert agree(run(name, given, **chosen), expected(name, given, **chosen))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_method_equals_its_oracle_on_other_networks(name: str, seed: int) -> None:
    given, chosen = case(seed=seed), CHOICES[name][0]
    assert agree(run(name, given, **chosen), expected(name, given, **chosen))


@pytest.mark.parametrize("name", ["ablation_cam", "recipro_cam"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_linear_end_gives_the_oracles_map_without_running_it(name: str, size: tuple[int, ...]) -> None:
    for chosen in CHOICES[name]:
        given = case(size, linear=True)
        map = run(name, given, **chosen)
        assert given.runs == 0
        assert agree(map, expected(name, given, **chosen))


class Signed(Net):
    """Without a rectifier at the end of the layer, so that its constant channels are not zero."""

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x)


def signed() -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        given = Case(Signed((7, 9)), torch.randn(B, COLORS, 7, 9))
    given.net.conv.bias.data[[DEAD, CONSTANT, ALSO_DEAD]] = torch.tensor([0.1, -0.1, 0.2])
    return given


@pytest.mark.parametrize(("name", "chosen"), EVERY)
def test_a_method_equals_its_oracle_on_signed_activations(name: str, chosen: dict[str, Any]) -> None:
    given = signed()
    assert (given.activations < 0).any()
    assert expected(name, given, **chosen).any()
    assert agree(run(name, given, **chosen), expected(name, given, **chosen))


def test_there_is_an_oracle_for_every_method_and_every_option_is_chosen_once() -> None:
    assert ORACLES.keys() == METHODS.keys() == CHOICES.keys()
    free = {"chunk", "seed", "rectify", "sigma", "rate", "keep", "fill", "theta", "radius"}
    for name, function in METHODS.items():
        assert set(options(function)) - free <= set().union(*CHOICES[name]), name


WRONG_TWINS: dict[str, Callable[[str, Case, dict[str, Any]], Tensor]] = {
    "map shifted by a place": lambda name, given, chosen: run(name, given, **chosen).roll(1, -1),
    "rows of the grid swapped": lambda name, given, chosen: run(name, given, **chosen).flip(1),
    "images swapped": lambda name, given, chosen: run(name, given, **chosen).flip(0),
    "relative error of 1e-6": lambda name, given, chosen: run(name, given, **chosen) * (1 + 1e-6),
    "sign turned": lambda name, given, chosen: -run(name, given, **chosen),
    "another size": lambda name, given, chosen: run(name, given, **chosen)[..., :-1],
    "scores of other images": lambda name, given, chosen: run(name, with_rows(given, lambda r: (r + 1) % B), **chosen),
    "one channel scaled": lambda name, given, chosen: run(name, with_scaled_channel(given), **chosen),
}


def with_rows(given: Case, change: Callable[[Tensor], Tensor]) -> Case:
    """The methods' callables get the rows changed: questions answered about another image's class."""

    class Wrong(Case):
        def pick(self, output: Tensor, rows: Tensor) -> Tensor:
            return super().pick(output, change(rows))

    return Wrong(given.net, given.x)


def with_scaled_channel(given: Case) -> Case:
    class Wrong(Case):
        @property
        def activations(self) -> Tensor:
            scale = torch.ones(K)
            scale[0] = 1.01
            return super().activations * scale.reshape(-1, *[1] * (self.x.ndim - 2))

    return Wrong(given.net, given.x)


@pytest.mark.parametrize(("name", "chosen"), EVERY)
def test_an_oracle_rejects_wrong_twins(name: str, chosen: dict[str, Any]) -> None:
    given = case(seed=5)
    wanted = expected(name, given, **chosen)
    assert wanted.abs().amax((1, 2)).min() > 0
    for twin, wrong in WRONG_TWINS.items():
        blind = twin == "one channel scaled" and "activations" not in needs(METHODS[name])
        assert agree(wrong(name, given, chosen), wanted) == blind, twin


# What holds for every method


@pytest.mark.parametrize(("name", "chosen"), EVERY)
def test_the_chunk_bounds_what_is_run_at_once_and_does_not_change_the_map(name: str, chosen: dict[str, Any]) -> None:
    wanted = run(name, case(), **chosen)
    for chunk in (1, 4, 1000):
        given = case()
        map = run(name, given, **chosen, chunk=chunk)
        assert 0 < given.most <= chunk
        torch.testing.assert_close(map, wanted, rtol=1e-13, atol=1e-13 * float(wanted.abs().max()))


class Largest(TorchDispatchMode):
    """The largest tensor that any operation puts out."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize(("name", "chosen"), EVERY)
def test_no_tensor_is_larger_than_a_chunk_of_images_or_the_layer(name: str, chosen: dict[str, Any]) -> None:
    given = case()
    facts = given.facts(name)
    with Largest() as largest:
        METHODS[name](**facts, **chosen, chunk=2)
    assert largest.numbers <= max(2 * given.x[0].numel(), given.x.numel(), given.activations.numel())


@pytest.mark.parametrize(("name", "chosen"), EVERY)
def test_a_batch_equals_its_images_one_by_one(name: str, chosen: dict[str, Any]) -> None:
    batch = run(name, case(), **chosen)
    singles = torch.cat([run(name, single(case(), i), **chosen) for i in range(B)])
    torch.testing.assert_close(batch, singles, rtol=1e-13, atol=1e-13 * float(batch.abs().max()))


@pytest.mark.parametrize(("name", "chosen"), EVERY)
def test_arguments_and_the_random_state_stay_as_they_were_and_a_second_call_gives_the_same(
    name: str, chosen: dict[str, Any]
) -> None:
    facts = case().facts(name)
    before = {fact: value.clone() for fact, value in facts.items() if isinstance(value, Tensor)}
    state = torch.get_rng_state()
    first = METHODS[name](**facts, **chosen)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, METHODS[name](**facts, **chosen))
    assert all(torch.equal(facts[fact], value) for fact, value in before.items())
    assert not first.requires_grad


@pytest.mark.parametrize(("name", "chosen"), EVERY)
def test_single_precision_gives_the_same_map_in_single_precision(name: str, chosen: dict[str, Any]) -> None:
    given, wanted = case(), run(name, case(), **chosen)
    half = Case(given.net.float(), given.x.float())
    map = run(name, half, **chosen)
    assert map.dtype == torch.float32
    torch.testing.assert_close(map.double(), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(("name", "chosen"), EVERY)
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_constant_images_and_dead_layers_give_finite_maps(name: str, chosen: dict[str, Any], fill: float) -> None:
    given = case()
    given.x = torch.full_like(given.x, fill)
    with torch.no_grad():
        given.net.conv.weight.zero_()  # every channel of the layer is constant now, and half of them dead
    assert run(name, given, **chosen).isfinite().all()


@pytest.mark.parametrize("name", [name for name in METHODS if "activations" in needs(METHODS[name])])
def test_nan_stays_visible_and_where_it_is(name: str) -> None:
    class Broken(Case):
        @property
        def activations(self) -> Tensor:
            values = super().activations
            values[1, 0, 0, 0] = torch.nan
            return values

    map = run(name, Broken(case().net, case().x), **CHOICES[name][0])
    assert map[1].isnan().any()
    assert map[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("name", "chosen"), [each for each in EVERY if each.values[0] not in ("group_cam", "rise", "occlusion")]
)
def test_the_order_of_channels_does_not_matter(name: str, chosen: dict[str, Any]) -> None:
    order = torch.tensor([3, 0, 6, 5, 1, 4, 2])

    class Shuffled(Case):
        @property
        def activations(self) -> Tensor:
            return super().activations[:, order]

        def score_tail(self, a: Tensor, rows: Tensor) -> Tensor:
            return super().score_tail(a[:, order.argsort()], rows)

    given = case()
    assert agree(run(name, Shuffled(given.net, given.x), **chosen), run(name, given, **chosen))


def test_a_seed_is_a_choice_of_noise() -> None:
    for name, chosen in [("ss_cam", {"samples": 2}), ("rise", {"masks": 4})]:
        one, same, other = (run(name, case(), **chosen, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not agree(one, other)


# How little is run


def test_constant_channels_of_an_image_share_one_evaluation_of_its_zero_mask() -> None:
    given = case()
    map = run("score_cam", given, chunk=2)
    assert given.runs == B * (K - 2)
    blank = [(x == 0).flatten(1).all(1) for x, _ in given.seen]
    assert torch.cat(blank).sum() == B
    # and each counts in the softmax, in which leaving two of the three out would enlarge the rest
    fewer = Case(given.net, given.x)
    weights = run("score_cam", fewer, variant="authors")
    assert not agree(map, weights)
    dead = torch.zeros(B, K).index_fill(1, torch.tensor([DEAD, CONSTANT, ALSO_DEAD]), 1)
    scores = torch.stack([torch.tensor([score_of(given, i, k) for k in range(K)]) for i in range(B)])
    shared = scores.softmax(1)
    assert agree(map, weighted_sum(shared, given.activations).relu())
    assert (shared * dead).sum(1).min() > 0.1


def score_of(given: Case, i: int, k: int) -> float:
    channel = given.activations[i, k]
    laid = given.upsample(channel[None])[0]
    mask = (laid - laid.min()) / (laid.max() - laid.min()) if channel.min() < channel.max() else torch.zeros_like(laid)
    return float(given.scores_at((given.x[i] * mask)[None], torch.tensor([i])))


def test_the_channels_that_spread_most_are_all_that_the_approximation_runs() -> None:
    given = case()
    few = run("score_cam", given, channels=2)
    assert given.runs == B * 2
    assert not agree(few, run("score_cam", case()))
    for many in (K, K + 5):
        assert torch.equal(run("score_cam", case(), channels=many), run("score_cam", case()))


def test_of_one_place_all_channels_spread_alike() -> None:
    given = case((1,))
    assert run("score_cam", given, channels=2).isfinite().all()
    assert given.runs == B


def test_rounding_in_the_upsampling_does_not_become_a_mask() -> None:
    class Rounded(Case):
        def upsample(self, maps: Tensor) -> Tensor:
            laid = super().upsample(maps)
            return laid * (1 + 1e-15 * torch.arange(laid.shape[-1]))

    given = signed()
    for name in ("score_cam", "is_cam"):
        assert agree(run(name, Rounded(given.net, given.x)), run(name, given))


def test_ablating_what_is_zero_already_runs_nothing() -> None:
    given = case()
    run("ablation_cam", given)
    assert given.runs == B * (K - 2)


def test_groups_without_any_evidence_run_nothing() -> None:
    class Against(Case):
        @property
        def gradients(self) -> Tensor:
            return -torch.ones_like(self.activations)

    given = Against(case().net, case().x)
    assert (run("group_cam", given, groups=3, radius=2) == 0).all()
    assert given.runs == B  # the blurred images alone


# Identities


class Linear(Case):
    """A score that is linear in the image, whatever the network says: w x + b."""

    @property
    def weights(self) -> Tensor:
        return torch.randn(self.x.shape[1:], generator=torch.Generator().manual_seed(7)) / 4

    def scores_at(self, x: Tensor, rows: Tensor) -> Tensor:
        self.most, self.runs = max(self.most, len(x)), self.runs + len(x)
        return (x * self.weights).flatten(1).sum(1) + 0.3 + rows

    @property
    def scores(self) -> Tensor:
        return self.scores_at(self.x, torch.arange(len(self.x)))


def linear(size: tuple[int, ...] = (7, 9)) -> Linear:
    given = case(size)
    return Linear(given.net, given.x)


def test_score_cam_does_not_see_a_shift_of_the_score() -> None:
    class Shifted(Case):
        def scores_at(self, x: Tensor, rows: Tensor) -> Tensor:
            return super().scores_at(x, rows) + 1000 * (rows + 1)

    given = case()
    torch.testing.assert_close(run("score_cam", Shifted(given.net, given.x)), run("score_cam", given))


def test_an_image_of_zeros_gives_the_mean_feature_map() -> None:
    given = case()

    class Blank(Case):
        @property
        def activations(self) -> Tensor:
            return given.activations

    blank = Blank(given.net, torch.zeros_like(given.x))
    for name in ("score_cam", "is_cam"):
        assert agree(run(name, blank), given.activations.mean(1))


def test_without_noise_or_steps_the_variations_of_score_cam_are_score_cam() -> None:
    wanted = run("score_cam", case())
    assert agree(run("ss_cam", case(), samples=2, sigma=0.0), wanted)
    assert agree(run("ss_cam", case(), samples=2, sigma=0.0, noise_on="input"), wanted)
    assert agree(run("is_cam", case(), samples=1), wanted)
    assert not agree(run("ss_cam", case(), samples=2), wanted)
    assert not agree(run("is_cam", case(), samples=2), wanted)


def test_of_a_linear_score_noise_changes_nothing_and_fading_scales_it() -> None:
    class Smaller(Linear):
        def scores_at(self, x: Tensor, rows: Tensor) -> Tensor:
            return super().scores_at(x, rows) * 6 / 10

    for noise_on in ("mask", "input"):
        assert agree(run("ss_cam", linear(), samples=3, noise_on=noise_on), run("score_cam", linear()))
    assert agree(run("is_cam", linear(), samples=5), run("score_cam", Smaller(linear().net, linear().x)))


def test_group_cam_weighs_by_what_a_group_brings_back() -> None:
    given = linear()
    chosen = {"groups": 1, "theta": 0.5, "sigma": 2.0, "radius": 4, "rectify": False}
    group = (given.activations * spatial_mean(given.gradients)[:, :, None, None]).sum(1).relu()
    median = group.flatten(1).quantile(0.5, dim=1)[:, None, None]
    laid = given.upsample(group.where(group > median, torch.zeros_like(group)))
    brought = (given.x - blurred(given.x, 2.0, 4)) * min_max(laid).unsqueeze(1)
    weight = (brought * given.weights).flatten(1).sum(1)
    assert agree(given.upsample(run("group_cam", given, **chosen)), weight[:, None, None] * min_max(laid))


@pytest.mark.parametrize(("sigma", "radius"), [(0.7, 2), (50.0, 5)])
def test_the_blur_is_a_mirrored_convolution(sigma: float, radius: int) -> None:
    x = case().x
    line = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2
    wanted = nn.functional.conv2d(nn.functional.pad(x, [radius] * 4, mode="reflect").flatten(0, 1)[:, None], kernel)
    torch.testing.assert_close(blurred(x, sigma, radius), wanted.reshape(x.shape))
    for shape in [(1, 1, 1), (1, 1, 2, 1), (2, 1, 3)]:
        torch.testing.assert_close(blurred(torch.full(shape, 0.3), 50.0, 25), torch.full(shape, 0.3))


def test_opti_cam_raises_the_score_behind_its_mask_and_stays_within_the_feature_maps() -> None:
    given = case()
    rows = torch.arange(B)

    def behind(map: Tensor) -> Tensor:
        return given.scores_at(given.x * min_max(given.upsample(map)).unsqueeze(1), rows)

    start = behind(given.activations.mean(1))
    map = run("opti_cam", given, steps=30)
    assert (behind(map) > start).all()
    assert (map >= given.activations.amin(1)).all()
    assert (map <= given.activations.amax(1)).all()


def test_opti_cam_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        map = run("opti_cam", case(), steps=3)
    assert agree(map, run("opti_cam", case(), steps=3))


def test_ablation_cam_is_the_same_map_whatever_the_sign_of_the_score() -> None:
    class Sunk(Case):
        @property
        def scores(self) -> Tensor:
            return super().scores - 50

        def score_tail(self, a: Tensor, rows: Tensor) -> Tensor:
            return super().score_tail(a, rows) - 50

    given, sunk = case(), Sunk(case().net, case().x)
    assert (given.scores > 0).all()
    assert (sunk.scores < 0).all()
    torch.testing.assert_close(run("ablation_cam", sunk), run("ablation_cam", given))
    assert agree(run("ablation_cam", given, relative=True) * given.scores[:, None, None], run("ablation_cam", given))
    assert agree(unit(run("ablation_cam", sunk, relative=True)), unit(run("ablation_cam", sunk)))


def test_ablation_cam_of_a_score_of_zero_is_finite() -> None:
    facts = case().facts("ablation_cam") | {"scores": torch.zeros(B)}
    map = METHODS["ablation_cam"](**facts, relative=True, rectify=False)
    assert agree(map, METHODS["ablation_cam"](**facts, rectify=False))


def test_on_a_linear_head_ablating_a_channel_costs_what_xgrad_cam_says() -> None:
    given = case(linear=True)
    A, g = given.activations, given.gradients
    drops = given.net.only.weight[CLASSES].detach() * spatial_mean(A)
    map = run("ablation_cam", given, rectify=False)
    assert agree(map, weighted_sum(drops, A))
    assert agree(drops[:, 0], spatial_sum(methods.xgrad_cam(A[:, :1], g[:, :1])[:, None])[:, 0])
    run_anyway = METHODS["ablation_cam"](**given.facts("ablation_cam") | {"linear_gradients": None}, rectify=False)
    assert agree(run_anyway, map)


def test_on_a_linear_head_recipro_cam_is_stretched_hires_cam() -> None:
    given = case(linear=True)
    assert agree(
        run("recipro_cam", given, variant="authors"), min_max(methods.hires_cam(given.activations, given.gradients))
    )
    plain = run("recipro_cam", given, variant="authors", stretch=False)
    bias = given.net.only.bias[CLASSES].detach()[:, None, None]
    assert agree(plain, methods.hires_cam(given.activations, given.gradients) + bias)


def test_rise_over_all_masks_of_a_linear_score_has_its_closed_form() -> None:
    given = linear((3, 3))
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).reshape(-1, 3, 3)
    contributions = (given.x * given.weights).sum(1)
    for chunk in (7, 512):
        map = mask_average(given.x, iter(every.split(chunk)), given.scores_at) / 0.5
        mean = given.scores_at(0.5 * given.x, torch.arange(B))[:, None, None]
        assert agree(map, mean + 0.5 * contributions)


def test_rise_over_masks_of_another_density_has_its_closed_form() -> None:
    given, p = linear((3,)), 0.25
    masks = [m for m in itertools.product([0.0, 1.0], repeat=3) for _ in range(3 ** m.count(0.0))]
    map = mask_average(given.x, iter(torch.tensor(masks).split(5)), given.scores_at) / p
    mean = given.scores_at(p * given.x, torch.arange(B))[:, None]
    assert agree(map, mean + (1 - p) * (given.x * given.weights).sum(1))


def test_the_masks_of_rise_show_each_pixel_as_often_as_asked() -> None:
    given = case()
    facts = {"inputs": given.x[:1], "scores_at": lambda x, rows: torch.ones(len(rows))}
    for keep in (0.5, 0.2):
        map = METHODS["rise"](**facts, masks=4000, cells=3, keep=keep)
        assert (map - 1).abs().max() < 5 * math.sqrt((1 - keep) / keep / 4000)
    assert agree(METHODS["rise"](**facts, masks=5, keep=1.0), torch.ones(1, 7, 9))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_covering_pixels_of_an_additive_score_gives_each_its_share(size: tuple[int, ...]) -> None:
    given = linear(size)
    assert agree(run("occlusion", given, patch=1), (given.x * given.weights).sum(1))
    assert agree(run("occlusion", given, patch=1, fill=0.5), ((given.x - 0.5) * given.weights).sum(1))


def test_covering_everything_costs_the_whole_score() -> None:
    given = linear((6, 6))
    map = run("occlusion", given, patch=6)
    blank = given.scores_at(torch.zeros_like(given.x), torch.arange(B))
    assert agree(map, (given.scores - blank)[:, None, None].expand(B, 6, 6))


# Refusals


@pytest.mark.parametrize(
    ("name", "chosen", "text"),
    [
        ("score_cam", {"variant": "fast"}, "got variant='fast'; choose one of 'paper', 'authors'"),
        ("score_cam", {"channels": 0}, "got channels=0; it counts what is evaluated and is at least 1"),
        ("ss_cam", {"samples": 0}, "got samples=0; it counts what is evaluated and is at least 1"),
        ("ss_cam", {"noise_on": "color"}, "got noise_on='color'; choose one of 'mask', 'input'"),
        ("is_cam", {"samples": -1}, "got samples=-1; it counts what is evaluated and is at least 1"),
        ("group_cam", {"groups": 0}, "got groups=0; it counts what is evaluated and is at least 1"),
        ("group_cam", {"theta": 1.5}, "got theta=1.5; it is the share of places set to zero, from 0 to 1"),
        ("opti_cam", {"steps": 0}, "got steps=0; it counts what is evaluated and is at least 1"),
        ("recipro_cam", {"variant": "x"}, "got variant='x'; choose one of 'paper', 'authors', 'authors_gaussian'"),
        ("rise", {"masks": 0}, "got masks=0; it counts what is evaluated and is at least 1"),
        ("rise", {"cells": 0}, "got cells=0; it counts what is evaluated and is at least 1"),
        ("rise", {"keep": 0.0}, "got keep=0.0; it is the probability that a cell is shown, above 0 and at most 1"),
        ("occlusion", {"patch": 8}, "got patch=8; choose one from 1 to 7, as the input is (7, 9)"),
        (
            "occlusion",
            {"patch": 3, "stride": 4},
            "got stride=4; choose one from 1 to 3, the patch: no pixel is left out",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_run(name: str, chosen: dict[str, Any], text: str) -> None:
    given = case()
    with pytest.raises(MethodError) as refused:
        run(name, given, **chosen)
    assert str(refused.value) == text
    assert given.runs == 0
