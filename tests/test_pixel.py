"""The pixel methods against their slow oracles, the oracles against wrong maps, and what mathematics says of them."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import oracles_pixel as oracles
from oracles import agree
from seewhy.methods import pixel
from seewhy.model.rules import ruled
from seewhy.tensor import noise
from seewhy.types import MethodError, ShapeError

CHANNELS = ("max_abs", "sum", "sum_abs")
RULES = ("midpoint", "gauss_legendre", "right")
HOW = ("mean", "mean_squares", "variance")
GRIDS = [(7,), (4, 5), (2, 3, 4)]
B, C = 3, 3


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Net:
    """A small network of any rank, with its scores and gradients at changed images, and the most it got at once."""

    def __init__(self, grid: tuple[int, ...] = (4, 5), rectifier: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        self.rank, self.most, self.calls = len(grid), 0, 0
        self.rectifier = rectifier
        self.kernel = drawn(4, C, *[3] * self.rank, seed=1)
        self.head = drawn(4, *grid, seed=2)

    def features(self, x: Tensor) -> Tensor:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        return self.rectifier(convolve(x, self.kernel.to(x), padding=1))

    def score(self, x: Tensor) -> Tensor:
        return (self.features(x) * self.head.to(x)).flatten(1).sum(1)

    def scores_at(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.score(x).detach()

    def gradients_at(self, x: Tensor, rows: Tensor) -> Tensor:
        assert len(x) == len(rows)
        self.most, self.calls = max(self.most, len(x)), self.calls + 1
        leaf = x.detach().clone().requires_grad_()
        return torch.autograd.grad(self.score(leaf).sum(), leaf)[0]

    def gradient(self, x: Tensor) -> Tensor:
        return self.gradients_at(x, torch.arange(len(x)))


def images(grid: tuple[int, ...] = (4, 5), seed: int = 0) -> Tensor:
    return drawn(B, C, *grid, seed=seed)


def upsample(maps: Tensor) -> Tensor:
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[maps.ndim + 1]
    return F.interpolate(maps[:, None], scale_factor=2, mode=mode)[:, 0]


def as_lists(x: Tensor) -> list[Any]:
    return x.flatten(1).tolist()


def on_lists(function: Callable[[Tensor], Tensor], grid: tuple[int, ...]) -> oracles.GradientOf:
    """A function of a batch, for one image given as lists."""

    def of(x: oracles.Image) -> oracles.Image:
        tensor = torch.tensor(x, dtype=torch.float64)
        return as_lists(function(tensor.reshape(1, len(x), *grid))[0])

    return of


def stacked(maps: list[list[float]], grid: tuple[int, ...]) -> Tensor:
    return torch.tensor(maps, dtype=torch.float64).reshape(-1, *grid)


# Each case: a function of the image batch that gives (the method's map, the oracle's)
Case = Callable[[Tensor, tuple[int, ...]], tuple[Tensor, Tensor]]


def saliency(channels: str) -> Case:
    def case(x: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        g = Net(grid).gradient(x)
        wanted = [oracles.saliency(as_lists(each), channels=channels) for each in g]
        return pixel.saliency(g, channels=channels), stacked(wanted, grid)

    return case


def guided(method: Callable[..., Tensor], channels: str) -> Case:
    def case(x: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        wanted = [oracles.saliency(as_lists(each), channels=channels) for each in x]
        return method(x, channels=channels), stacked(wanted, grid)

    return case


def input_x_gradient(channels: str) -> Case:
    def case(x: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        g = Net(grid).gradient(x)
        pairs = zip(x, g, strict=True)
        wanted = [oracles.input_x_gradient(as_lists(a), as_lists(b), channels=channels) for a, b in pairs]
        return pixel.input_x_gradient(x, g, channels=channels), stacked(wanted, grid)

    return case


def integrated(rule: str, channels: str, steps: int = 5) -> Case:
    def case(x: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        net, baseline = Net(grid), drawn(C, *grid, seed=5)
        options: dict[str, Any] = {"steps": steps, "rule": rule, "channels": channels}
        gradient = on_lists(net.gradient, grid)
        wanted = [oracles.integrated_gradients(as_lists(each), as_lists(baseline), gradient, **options) for each in x]
        return pixel.integrated_gradients(x, net.gradients_at, baseline=baseline, **options), stacked(wanted, grid)

    return case


def smooth(how: str, channels: str) -> Case:
    def case(x: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        net = Net(grid)
        options: dict[str, Any] = {"level": 0.2, "how": how, "channels": channels}
        draws = [as_lists(draw) for draw in noise(x, 4, 9)]
        gradient = on_lists(net.gradient, grid)
        wanted = [oracles.smooth_grad(as_lists(each), draws, gradient, **options) for each in x]
        map = pixel.smooth_grad(x, net.gradient(x), net.gradients_at, samples=4, seed=9, chunk=3, **options)
        return map, stacked(wanted, grid)

    return case


def guided_grad_cam(channels: str) -> Case:
    def case(x: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        activations, gradients = drawn(B, 6, *grid, seed=6).relu(), drawn(B, 6, *grid, seed=7)
        size = tuple(2 * side for side in grid)
        r = F.interpolate(x, size=size)
        up = on_lists(lambda map: upsample(map[:, 0])[:, None], grid)
        wanted = [
            oracles.guided_grad_cam(*map(as_lists, facts), up, channels=channels)
            for facts in zip(activations, gradients, r, strict=True)
        ]
        return pixel.guided_grad_cam(activations, gradients, r, upsample, channels=channels), stacked(wanted, size)

    return case


CASES: dict[str, Case] = {}
for way in CHANNELS:
    CASES[f"saliency-{way}"] = saliency(way)
    CASES[f"guided_backprop-{way}"] = guided(pixel.guided_backprop, way)
    CASES[f"deconvnet-{way}"] = guided(pixel.deconvnet, way)
    CASES[f"input_x_gradient-{way}"] = input_x_gradient(way)
    CASES[f"guided_grad_cam-{way}"] = guided_grad_cam(way)
    CASES |= {f"integrated_gradients-{rule}-{way}": integrated(rule, way) for rule in RULES}
    CASES |= {f"smooth_grad-{how}-{way}": smooth(how, way) for how in HOW}

VARIANTS = [pytest.param(case, id=name) for name, case in CASES.items()]


@pytest.mark.parametrize("case", VARIANTS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_a_method_equals_its_oracle(case: Case, grid: tuple[int, ...], seed: int) -> None:
    got, wanted = case(images(grid, seed), grid)
    assert agree(got, wanted)


WRONG_TWINS: dict[str, Callable[[Case, Tensor], Tensor]] = {
    "one channel scaled": lambda case, x: case(x * torch.tensor([1, 1.01, 1])[:, None, None], (4, 5))[0],
    "map shifted by a pixel": lambda case, x: case(x, (4, 5))[0].roll(1, -1),
    "rows of the grid swapped": lambda case, x: case(x, (4, 5))[0][:, [1, 0]],
    "images swapped": lambda case, x: case(x.flip(0), (4, 5))[0],
    "relative error of 1e-6": lambda case, x: case(x, (4, 5))[0] * (1 + 1e-6),
    "sign turned": lambda case, x: -case(x, (4, 5))[0],
}


@pytest.mark.parametrize("case", VARIANTS)
@pytest.mark.parametrize("twin", WRONG_TWINS)
def test_an_oracle_rejects_a_wrong_twin(case: Case, twin: str) -> None:
    x = images()
    wanted = case(x, (4, 5))[1]
    assert wanted.abs().amax((1, 2)).min() > 0
    assert not agree(WRONG_TWINS[twin](case, x), wanted)


def test_each_choice_of_an_option_is_another_map() -> None:
    alike = ("deconvnet-", "smooth_grad-mean_squares-sum_abs", "smooth_grad-variance-sum_abs")  # squares have no sign
    maps = {name: case(images(), (4, 5))[0] for name, case in CASES.items() if not name.startswith(alike)}
    assert not [pair for pair in itertools.combinations(maps, 2) if agree(maps[pair[0]], maps[pair[1]])]


# Integrated gradients


def linear(x: Tensor) -> Tensor:
    return x


def residual(net: Net, x: Tensor, steps: int, rule: str) -> Tensor:
    map = pixel.integrated_gradients(x, net.gradients_at, steps=steps, rule=rule, baseline=0.3)
    return pixel.completeness_residual(map, x, net.score(x), net.scores_at, baseline=0.3).abs()


def test_the_nodes_of_the_oracle_integrate_polynomials() -> None:
    for n in range(1, 7):
        for degree in range(2 * n):
            total = sum(weight * at**degree for at, weight in oracles.legendre(n))
            assert total == pytest.approx((1 - (-1) ** (degree + 1)) / (degree + 1), abs=1e-14)


@pytest.mark.parametrize("rule", RULES)
def test_on_linear_scores_it_is_input_times_gradient_and_complete(rule: str) -> None:
    net, x = Net(rectifier=linear), images()
    for steps in (1, 7):
        map = pixel.integrated_gradients(x, net.gradients_at, steps=steps, rule=rule)
        assert agree(map, pixel.input_x_gradient(x, net.gradient(x)))
        assert residual(net, x, steps, rule).max() < 1e-12


def test_one_midpoint_is_exact_on_quadratics_and_n_nodes_up_to_degree_2n() -> None:
    x = images()
    assert residual(Net(rectifier=torch.square), x, 1, "midpoint").max() < 1e-11
    assert residual(Net(rectifier=torch.square), x, 1, "gauss_legendre").max() < 1e-11
    for nodes in (2, 3):
        assert residual(Net(rectifier=lambda z, n=nodes: z ** (2 * n)), x, nodes, "gauss_legendre").max() < 1e-6
        assert residual(Net(rectifier=lambda z, n=nodes: z ** (2 * n + 1)), x, nodes, "gauss_legendre").min() > 1e-3
    assert residual(Net(rectifier=lambda z: z**3), x, 1, "midpoint").min() > 1e-3


def test_the_residual_falls_with_the_order_of_the_rule() -> None:
    """On a smooth score twice the steps leave a quarter with midpoints, a half with the paper's sum."""
    net, x = Net(rectifier=torch.tanh), images() / 4
    for rule, order in (("midpoint", 2), ("right", 1)):
        errors = torch.stack([residual(net, x, steps, rule) for steps in (64, 128, 256)])
        slopes = (errors[:-1] / errors[1:]).log2()
        torch.testing.assert_close(slopes, torch.full_like(slopes, order), rtol=0, atol=0.05)
    assert residual(net, x, 60, "gauss_legendre").max() < 1e-11


def test_kinks_cost_the_rules_their_order_but_not_convergence() -> None:
    net, x = Net(rectifier=torch.relu), images()
    slope = (x - 0.3).abs().sum() * net.head.abs().max() * net.kernel.abs().sum()
    for rule in RULES:
        errors = {steps: residual(net, x, steps, rule).max() for steps in (4, 32, 256)}
        assert errors[256] < errors[4] / 16
        assert all(error * steps < slope for steps, error in errors.items())
        assert errors[256] > 1e-8


@pytest.mark.parametrize("shape", [(), (C,), (C, 1, 1), (C, 4, 5), (B, C, 4, 5)], ids=str)
def test_a_baseline_may_be_a_number_a_color_or_an_image(shape: tuple[int, ...]) -> None:
    net, x, baseline = Net(), images(), drawn(*shape, seed=8)
    full = (baseline[:, None, None] if len(shape) == 1 else baseline).expand_as(x)
    map = pixel.integrated_gradients(x, net.gradients_at, steps=3, baseline=baseline)
    assert agree(map, pixel.integrated_gradients(x, net.gradients_at, steps=3, baseline=full))
    complete = pixel.integrated_gradients(x, net.gradients_at, steps=2000, baseline=baseline)
    rest = pixel.completeness_residual(complete, x, net.score(x), net.scores_at, baseline=baseline)
    assert rest.abs().max() < 1e-4
    wrong = pixel.completeness_residual(complete, x, net.score(x), net.scores_at, baseline=baseline + 1)
    assert wrong.abs().min() > 1e-2


def test_an_image_that_is_its_baseline_has_no_shares() -> None:
    x = images()
    assert (pixel.integrated_gradients(x, Net().gradients_at, baseline=x) == 0).all()


# SmoothGrad


def test_on_a_linear_score_the_mean_is_saliency_and_there_is_no_variance() -> None:
    net, x = Net(rectifier=linear), images()
    g = net.gradient(x)
    for level in (0.0, 0.15, 3.0):
        assert agree(pixel.smooth_grad(x, g, net.gradients_at, samples=5, level=level), pixel.saliency(g))
        assert pixel.smooth_grad(x, g, net.gradients_at, samples=5, level=level, how="variance").max() < 1e-25


def test_of_a_quadratic_score_the_variance_is_that_of_the_noise() -> None:
    """y = sum x^2 / 2 has g = x, so that the gradients vary exactly like the images."""
    x = images() * torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    map = pixel.smooth_grad(x, x, lambda at, rows: at, samples=4000, level=0.1, how="variance", channels="sum")
    sigma = 0.1 * (x.flatten(1).amax(1) - x.flatten(1).amin(1))
    torch.testing.assert_close(map.flatten(1).mean(1), C * sigma**2, rtol=0.02, atol=0)


def test_squares_are_the_square_of_the_mean_and_the_variance() -> None:
    net, x = Net(), images()
    net.kernel[:, 1:] = 0  # one color channel counts, so that C changes no sum
    mean, squares, variance = (pixel.smooth_grad(x, net.gradient(x), net.gradients_at, how=how) for how in HOW)
    assert variance.max() > 0
    assert agree(squares, mean.square() + variance)


def test_the_variance_survives_large_gradients() -> None:
    """g is 1e8 and a little: the squares alone would lose what varies."""
    x = images()
    map = pixel.smooth_grad(x, 1e8 + x, lambda at, rows: 1e8 + at, how="variance", channels="sum")
    assert torch.allclose(map, pixel.smooth_grad(x, x, lambda at, rows: at, how="variance", channels="sum"), rtol=1e-5)


def test_the_seed_decides_and_the_global_state_does_not() -> None:
    net, x, state = Net(), images(), torch.get_rng_state()

    def map(seed: int) -> Tensor:
        return pixel.smooth_grad(x, net.gradient(x), net.gradients_at, samples=3, seed=seed)

    first = map(0)
    torch.rand(1)
    assert torch.equal(map(0), first)
    assert not agree(map(1), first)
    torch.set_rng_state(state)


# The rectifiers' rules, with a model


def ruled_gradient(rule: str, model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    score = model(leaf)[:, 0]
    with ruled(rule, [score], leaf):
        return torch.autograd.grad(score.sum(), leaf)[0]


def test_the_rules_meet_the_gradient_where_nothing_negative_comes_back_and_each_other_where_all_is_open() -> None:
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Conv2d(C, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 1)).double(),
        images(),
    )
    leaf = x.clone().requires_grad_()
    g, d = (ruled_gradient(rule, model, x) for rule in ("guided", "deconvnet"))
    assert not agree(pixel.deconvnet(d), pixel.guided_backprop(g))
    with torch.no_grad():
        model[3].weight.abs_()
    plain = torch.autograd.grad(model(leaf).sum(), leaf)[0]
    assert agree(pixel.guided_backprop(ruled_gradient("guided", model, x)), pixel.saliency(plain))
    assert not agree(pixel.deconvnet(ruled_gradient("deconvnet", model, x)), pixel.saliency(plain))
    with torch.no_grad():
        model[0].bias.add_(100)
        model[3].weight.neg_()[:, :40].neg_()
    g, d = (ruled_gradient(rule, model, x) for rule in ("guided", "deconvnet"))
    assert agree(pixel.deconvnet(d), pixel.guided_backprop(g))


def test_guided_grad_cam_is_zero_where_grad_cam_is_and_its_product_elsewhere() -> None:
    activations, gradients = drawn(B, 6, 2, 3).relu(), drawn(B, 6, 2, 3, seed=1)
    r = drawn(B, C, 4, 6, seed=2)
    place = upsample(torch.einsum("bk,bkhw->bhw", gradients.mean((2, 3)), activations).relu())
    assert (place == 0).any()
    for channels in CHANNELS:
        map = pixel.guided_grad_cam(activations, gradients, r, upsample, channels=channels)
        assert agree(map, pixel.guided_backprop(r, channels=channels) * place)
        assert (map[place == 0] == 0).all()


# What holds for all


def every(net: Net, **chosen: Any) -> dict[str, Callable[[Tensor], Tensor]]:
    """All methods as functions of the image batch."""
    at = net.gradients_at
    return {
        "saliency": lambda x: pixel.saliency(net.gradient(x)),
        "input_x_gradient": lambda x: pixel.input_x_gradient(x, net.gradient(x)),
        "integrated_gradients": lambda x: pixel.integrated_gradients(x, at, steps=7, **chosen),
        "gauss_legendre": lambda x: pixel.integrated_gradients(x, at, steps=7, rule="gauss_legendre", **chosen),
        "smooth_grad": lambda x: pixel.smooth_grad(x, net.gradient(x), at, samples=7, **chosen),
        "var_grad": lambda x: pixel.smooth_grad(x, net.gradient(x), at, samples=7, how="variance", **chosen),
        "guided_grad_cam": lambda x: pixel.guided_grad_cam(x, net.gradient(x), x, lambda map: map),
    }


NAMES = tuple(every(Net()))
NOISY = ("smooth_grad", "var_grad")
AVERAGES = ("integrated_gradients", "gauss_legendre", *NOISY)


@pytest.mark.parametrize("name", AVERAGES)
def test_chunks_change_the_memory_and_never_the_result(name: str) -> None:
    wanted = every(Net(), chunk=1000)[name](images())
    for chunk in (1, 2, 5, 20):
        net = Net()
        method = every(net, chunk=chunk)[name]
        torch.testing.assert_close(method(images()), wanted, rtol=1e-12, atol=1e-14 * float(wanted.abs().max()))
        clean = B if name in NOISY else 0  # the clean gradient is a fact
        assert net.most <= max(chunk, clean)
        assert net.calls == -(-7 * B // chunk) + (clean > 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_batch_equals_its_images_one_by_one_in_both_types(name: str, grid: tuple[int, ...]) -> None:
    method, x = every(Net(grid), chunk=4)[name], images(grid)
    batch = method(x)
    singles = torch.cat([method(x[i : i + 1]) for i in range(B)])
    torch.testing.assert_close(batch, singles, rtol=1e-12, atol=1e-14 * float(singles.abs().max()))
    single = method(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), batch, rtol=1e-3, atol=1e-4 * float(batch.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_stay_as_they_were(name: str) -> None:
    x = images()
    before, state = x.clone(), torch.get_rng_state()
    first, second = every(Net())[name](x), every(Net())[name](x)
    assert torch.equal(first, second)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [0.0, 1.0, -1e30, 1e-30])
def test_constant_images_give_finite_maps(name: str, fill: float) -> None:
    x = torch.full((B, C, 4, 5), fill, dtype=torch.float64)
    assert every(Net())[name](x).isfinite().all()
    if fill == 0 and name not in ("saliency", "smooth_grad"):
        assert (every(Net())[name](x) == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_visible_in_its_image_alone(name: str) -> None:
    x = images()
    x[1, 2, 0, 0] = torch.nan
    map = every(Net(), chunk=4)[name](x)
    assert map[1].isnan().any()
    assert map[[0, 2]].isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOISY])
def test_the_order_of_color_channels_does_not_matter(name: str) -> None:
    turned, order = Net(), [2, 0, 1]
    turned.kernel = turned.kernel[:, order]
    assert agree(every(turned)[name](images()[:, order]), every(Net())[name](images()))


@pytest.mark.parametrize("name", ["saliency", "input_x_gradient", "integrated_gradients", "guided_grad_cam"])
def test_a_flipped_image_gives_the_flipped_map_of_a_network_without_sides(name: str) -> None:
    net = Net()
    net.kernel, net.head = net.kernel + net.kernel.flip(-1), net.head + net.head.flip(-1)
    assert agree(every(net)[name](images().flip(-1)), every(net)[name](images()).flip(-1))


# What is refused


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: pixel.saliency(x, channels="mean"),
            MethodError,
            "no way 'mean' to make the color channels one; choose 'max_abs', 'sum' or 'sum_abs'",
        ),
        (
            lambda x: pixel.integrated_gradients(x, Net().gradients_at, steps=0),
            MethodError,
            "got 0 steps; integrating takes at least one, and 20 to 300 are usual",
        ),
        (
            lambda x: pixel.integrated_gradients(x, Net().gradients_at, rule="simpson"),
            MethodError,
            "no rule 'simpson' of integration; choose 'midpoint', 'gauss_legendre' or 'right'",
        ),
        (
            lambda x: pixel.integrated_gradients(x, Net().gradients_at, baseline=torch.zeros(2, 5)),
            ShapeError,
            "got a baseline of shape (2, 5) for inputs of (3, 3, 4, 5); give a number, or a tensor of shape (3,), "
            "(3, 4, 5) or (3, 3, 4, 5)",
        ),
        (
            lambda x: pixel.completeness_residual(x[:, 0], x, x[:, 0, 0, 0], Net().scores_at, baseline=torch.zeros(4)),
            ShapeError,
            "got a baseline of shape (4,) for inputs of (3, 3, 4, 5); give a number, or a tensor of shape (3,), "
            "(3, 4, 5) or (3, 3, 4, 5)",
        ),
        (
            lambda x: pixel.smooth_grad(x, x, Net().gradients_at, samples=0),
            MethodError,
            "got 0 samples of noise of level 0.15; take at least one and a level of 0 or more",
        ),
        (
            lambda x: pixel.smooth_grad(x, x, Net().gradients_at, level=-0.1),
            MethodError,
            "got 50 samples of noise of level -0.1; take at least one and a level of 0 or more",
        ),
        (
            lambda x: pixel.smooth_grad(x, x, Net().gradients_at, how="median"),
            MethodError,
            "no way 'median' of averaging; choose 'mean', 'mean_squares' or 'variance'",
        ),
    ],
)
def test_what_cannot_be_done_is_said(call: Callable[[Tensor], Tensor], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        call(images())
    assert str(raised.value) == text
