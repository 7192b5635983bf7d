"""Methods of changed inputs, many layers, activations alone and concepts: oracles, identities, what always holds."""

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import oracles_smooth as oracles
from oracles import agree
from seewhy.methods.activation import eigen_cam, fem, kpca_cam
from seewhy.methods.factors import dff, factorize, relevance
from seewhy.methods.gradient import grad_cam, grad_cam_pp, shapley_cam
from seewhy.methods.layers import full_grad, full_grad_residual, refine_cam, winsor_cam
from seewhy.methods.smooth import expected_grad_cam, smooth_grad_cam_pp
from seewhy.tensor import spatial_mean, unit
from seewhy.types import MethodError, ShapeError

SIZES = {1: (14,), 2: (8, 10), 3: (4, 6, 8)}
CLASSES = torch.tensor([2, 0, 3])
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Net(nn.Module):
    """Two convolutions, each before and after its rectifier: four layers; then a tail that is bent, or a linear one."""

    def __init__(self, rank: int, linear: bool = False) -> None:
        super().__init__()
        self.first = CONV[rank](3, 4, 3, stride=2, padding=1)
        self.second = CONV[rank](4, 6, 3, padding=1)
        cells = 6 * int(torch.tensor([(side + 1) // 2 for side in SIZES[rank]]).prod())
        bent = [nn.Flatten(), nn.Linear(cells, 7), nn.Tanh(), nn.Linear(7, 4)]
        self.tail = nn.Sequential(nn.Flatten(), nn.Linear(cells, 4)) if linear else nn.Sequential(*bent)

    def layers(self, x: Tensor) -> list[Tensor]:
        first = self.first(x)
        shallow = first.relu()
        second = self.second(shallow)
        return [first, shallow, second, second.relu()]

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.layers(x)[-1])


@dataclass(frozen=True)
class World:
    """All facts about a few images of a net, each by its name."""

    net: Net
    inputs: Tensor
    classes: Tensor

    def score(self, activations: Tensor, rows: Tensor) -> Tensor:
        return self.net.tail(activations).gather(1, self.classes[rows][:, None])[:, 0]

    @cached_property
    def rows(self) -> Tensor:
        return torch.arange(len(self.inputs))

    @cached_property
    def activations_by_layer(self) -> list[Tensor]:
        return [layer.detach() for layer in self.net.layers(self.inputs)]

    @cached_property
    def gradients_by_layer(self) -> list[Tensor]:
        layers = self.net.layers(self.inputs)
        return list(torch.autograd.grad(self.score(layers[-1], self.rows).sum(), layers))

    @property
    def activations(self) -> Tensor:
        return self.activations_by_layer[-1]

    @property
    def gradients(self) -> Tensor:
        return self.gradients_by_layer[-1]

    @cached_property
    def hessian_product(self) -> Tensor:
        leaf = self.activations.clone().requires_grad_()
        gradients = torch.autograd.grad(self.score(leaf, self.rows).sum(), leaf, create_graph=True)[0]
        return torch.autograd.grad(gradients, leaf, self.activations)[0]

    @cached_property
    def input_gradients(self) -> Tensor:
        leaf = self.inputs.clone().requires_grad_()
        return torch.autograd.grad(self.score(self.net.layers(leaf)[-1], self.rows).sum(), leaf)[0]

    @cached_property
    def bias_gradients(self) -> list[Tensor]:
        gradients, shape = self.gradients_by_layer[::2], (1, -1, *[1] * (self.inputs.ndim - 2))
        convolutions = zip(gradients, [self.net.first, self.net.second], strict=True)
        parts = [gradient * conv.bias.detach().reshape(shape) for gradient, conv in convolutions]
        return [*parts, self.inputs.new_ones(len(self.inputs), 2)]

    def gradients_at(self, inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        layer = self.net.layers(inputs)[-1]
        return layer.detach(), torch.autograd.grad(self.score(layer, rows).sum(), layer)[0]

    @cached_property
    def matrices(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(5)
        pixels = self.inputs[0, 0].numel()
        cells = [layer[0, 0].numel() for layer in self.activations_by_layer]
        return [torch.rand(pixels, n, generator=generator, dtype=torch.float64).to(self.inputs) for n in cells]

    @property
    def upsample_by_layer(self) -> list[Callable[[Tensor], Tensor]]:
        return [lambda map, m=m: (map.flatten(1) @ m.mT).reshape(-1, *self.inputs.shape[2:]) for m in self.matrices]

    def only(self, i: int) -> "World":
        return World(self.net, self.inputs[i : i + 1], self.classes[i : i + 1])


@cache
def world(rank: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64, linear: bool = False) -> World:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net(rank, linear).double()
        inputs = torch.randn(3, 3, *SIZES[rank], dtype=torch.float64)
    return World(net.to(dtype).requires_grad_(True), inputs.to(dtype), CLASSES)


COPIES = {"samples": 3}
CASES: dict[Callable[..., Tensor], list[dict[str, Any]]] = {
    shapley_cam: [{}, {"rectify": False}],
    kpca_cam: [{}, {"kernel": "rbf"}, {"kernel": "linear"}, {"gamma": 2.0}, {"kernel": "rbf", "gamma": 2.0}],
    fem: [{}, {"sigmas": 0.5}, {"variant": "pytorch_grad_cam", "sigmas": 1.5}],
    refine_cam: [{}],
    winsor_cam: [{}, {"percentile": 60.0}],
    full_grad: [{}, {"variant": "per_channel"}],
    smooth_grad_cam_pp: [
        COPIES,
        COPIES | {"noise": 0.5, "rectify": False},
        COPIES | {"noise": 0.3, "absolute": True},
        COPIES | {"as_printed": True},
        {"samples": 5, "seed": 3},
    ],
    expected_grad_cam: [
        COPIES,
        COPIES | {"noise": 0.5, "rectify": False},
        COPIES | {"spread": 0.0, "noise": 0.0},
        {"samples": 5, "seed": 3, "spread": 1.0},
    ],
    dff: [
        {"concepts": 2, "iterations": 3},
        {"concepts": 4, "iterations": 20, "rectify": False},
        {"concepts": 2, "iterations": 3, "rectify": False, "concept": 1},
    ],
}
VARIANTS = [
    pytest.param(method, chosen, id="-".join([method.__name__, *(f"{k}={v}" for k, v in chosen.items())]))
    for method, every in CASES.items()
    for chosen in every
]
SINGLE = [variant for variant in VARIANTS if variant.values[0] is not dff]


def run(method: Callable[..., Tensor], facts: World, chosen: dict[str, Any], **changed: Any) -> Tensor:
    parameters = inspect.signature(method).parameters.values()
    needs = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    return method(*(changed.get(name, getattr(facts, name)) for name in needs), **chosen)


def wanted(method: Callable[..., Tensor], facts: World, chosen: dict[str, Any]) -> Tensor:
    """What the oracle of that name says, image by image."""
    grid, s = facts.activations.shape[2:], facts.inputs.shape[2:]
    if method is dff:
        rows = facts.activations.movedim(1, -1).flatten(0, -2).tolist()
        maps = oracles.dff(rows, [oracles.listed(g) for g in facts.gradients], **({"rectify": True} | chosen))
        return torch.tensor(maps, dtype=torch.float64).reshape(-1, *grid)
    oracle = getattr(oracles, method.__name__)
    maps = [oracle(*of_one(method, facts.only(i)), **chosen) for i in range(len(facts.inputs))]
    on_input = method in (refine_cam, winsor_cam, full_grad)
    return torch.tensor(maps, dtype=torch.float64).reshape(-1, *(s if on_input else grid))


def of_one(method: Callable[..., Tensor], one: World) -> list[Any]:
    """The facts of one image as its oracle takes them."""
    if method in (refine_cam, winsor_cam):
        layers = ([oracles.listed(x[0]) for x in xs] for xs in (one.activations_by_layer, one.gradients_by_layer))
        return [*layers, [m.tolist() for m in one.matrices]]
    if method is full_grad:
        drawn = one.bias_gradients[:2]
        sizes = [tuple(part.shape[2:]) for part in drawn]
        images = [oracles.listed(x[0]) for x in (one.inputs, one.input_gradients)]
        return [*images, [oracles.listed(part[0]) for part in drawn], sizes, tuple(one.inputs.shape[2:])]
    if method in (smooth_grad_cam_pp, expected_grad_cam):
        return [
            one.inputs,
            oracles.listed(one.activations[0]),
            lambda changed: oracles.listed(one.gradients_at(changed, torch.tensor([0]))[1][0]),
        ]
    names = [p.name for p in inspect.signature(method).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return [oracles.listed(getattr(one, name)[0]) for name in names]


# Oracles


@pytest.mark.parametrize(("method", "chosen"), VARIANTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_method_equals_its_oracle(method: Callable[..., Tensor], chosen: dict[str, Any], rank: int) -> None:
    facts = world(rank, seed=33)
    assert agree(run(method, facts, chosen), wanted(method, facts, chosen))


TWINS: dict[str, Callable[[Tensor], Tensor]] = {
    "map shifted by a pixel": lambda map: map.roll(1, -1),
    "rows of the grid swapped": lambda map: map[:, [1, 0, *range(2, map.shape[1])]],
    "images swapped": lambda map: map.flip(0),
    "relative error of 1e-6": lambda map: map * (1 + 1e-6),
    "one place wrong by 1e-6": lambda map: map + 1e-6 * map.max() * torch.eye(*map.shape[1:]),
    "sign turned": lambda map: -map,
    "another size": lambda map: map[..., :-1],
}


@pytest.mark.parametrize(("method", "chosen"), VARIANTS)
def test_an_oracle_rejects_wrong_twins(method: Callable[..., Tensor], chosen: dict[str, Any]) -> None:
    facts = world(2, seed=33)
    right, map = wanted(method, facts, chosen), run(method, facts, chosen)
    assert right.abs().amax((1, 2)).min() > 0
    for twin, change in TWINS.items():
        assert not agree(change(map), right), twin
    scaled = World(facts.net, facts.inputs * torch.tensor([1.01, 1, 1])[:, None, None], facts.classes)
    assert not agree(run(method, scaled, chosen), right)


def test_every_option_has_cases_and_changes_the_map() -> None:
    for method, every in CASES.items():
        options = {p.name for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY}
        assert options - {"chunk"} <= set().union(*every), method
        maps = [run(method, world(2, seed=33), chosen) for chosen in every]
        assert not any(agree(one, other) for one, other in itertools.combinations(maps, 2)), method


# What holds for every method


@pytest.mark.parametrize(("method", "chosen"), SINGLE)
def test_a_batch_equals_its_images_one_by_one(method: Callable[..., Tensor], chosen: dict[str, Any]) -> None:
    facts = world()
    singles = torch.cat([run(method, facts.only(i), chosen) for i in range(3)])
    assert agree(run(method, facts, chosen), singles)


@pytest.mark.parametrize(("method", "chosen"), VARIANTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_single_precision_stays_and_gives_nearly_the_same(
    method: Callable[..., Tensor], chosen: dict[str, Any], rank: int
) -> None:
    single = run(method, world(rank, dtype=torch.float32), chosen)
    double = run(method, world(rank), chosen)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4 * float(double.abs().max()))


@pytest.mark.parametrize(("method", "chosen"), VARIANTS)
def test_arguments_stay_and_a_second_call_gives_the_same(method: Callable[..., Tensor], chosen: dict[str, Any]) -> None:
    facts = world()
    tensors = [facts.inputs, facts.input_gradients, facts.hessian_product, *facts.bias_gradients]
    tensors += [*facts.activations_by_layer, *facts.gradients_by_layer]
    before, state = [x.clone() for x in tensors], torch.get_rng_state()
    assert torch.equal(run(method, facts, chosen), run(method, facts, chosen))
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("method", "chosen"), VARIANTS)
@pytest.mark.parametrize("fill", [0.0, 1.0, 0.1, 1e-12])
def test_constants_give_finite_maps_and_zeros_zero(
    method: Callable[..., Tensor], chosen: dict[str, Any], fill: float
) -> None:
    facts = world()

    def full(x: Tensor) -> Tensor:
        return torch.full_like(x, fill)

    lists = {
        name: [full(x) for x in getattr(facts, name)]
        for name in ("activations_by_layer", "gradients_by_layer", "bias_gradients")
    }
    names = ("inputs", "activations", "gradients", "hessian_product", "input_gradients")
    changed = lists | {name: full(getattr(facts, name)) for name in names}
    changed["gradients_at"] = lambda inputs, rows: 2 * [full(facts.activations[rows])]
    map = run(method, facts, chosen, **changed)
    assert map.isfinite().all()
    if fill == 0:
        assert (map == 0).all()


@pytest.mark.parametrize(("method", "chosen"), VARIANTS)
def test_nan_stays_visible(method: Callable[..., Tensor], chosen: dict[str, Any]) -> None:
    facts = world()
    broken = facts.activations.clone()
    broken[1, 2, 0, 0] = torch.nan
    inputs = facts.inputs.clone()
    inputs[1, 0, 0, 0] = torch.nan
    layers = [*facts.activations_by_layer[:3], broken]
    map = run(method, facts, chosen, activations=broken, activations_by_layer=layers, inputs=inputs)
    assert map[1].isnan().any()
    if method is not dff:
        assert map[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("method", "chosen"), [v for v in VARIANTS if v.values[0] in (smooth_grad_cam_pp, expected_grad_cam)]
)
def test_the_chunk_changes_nothing_and_is_never_exceeded(method: Callable[..., Tensor], chosen: dict[str, Any]) -> None:
    facts, seen = world(), []

    def watched(inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(inputs))
        return facts.gradients_at(inputs, rows)

    whole = run(method, facts, chosen)
    for chunk in (1, 2, 4, 7, 100):
        seen.clear()
        map = run(method, facts, chosen | {"chunk": chunk}, gradients_at=watched)
        torch.testing.assert_close(map, whole, rtol=1e-13, atol=1e-13 * float(whole.abs().max()))
        assert (sum(seen), max(seen) <= chunk) == (3 * chosen["samples"], True)


# Identities


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def product(score: Callable[[Tensor], Tensor], A: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients, and the Hessian times A."""
    leaf = A.clone().requires_grad_()
    gradients = torch.autograd.grad(score(leaf).sum(), leaf, create_graph=True)[0]
    return gradients.detach(), torch.autograd.grad((gradients * A).sum(), leaf)[0]


def test_shapley_cam_is_grad_cam_where_the_tail_is_made_of_rectifiers() -> None:
    torch.manual_seed(0)
    A = torch.randn(2, 6, 6, 6, dtype=torch.float64).relu()
    tail = nn.Sequential(nn.Conv2d(6, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(20, 8), nn.ReLU())
    tail = nn.Sequential(tail, nn.Linear(8, 1)).double()
    gradients, hessian_product = product(tail, A)
    assert (hessian_product == 0).all()
    assert torch.equal(shapley_cam(A, gradients, hessian_product), grad_cam(A, gradients))
    gradients, hessian_product = product(lambda a: tail(a).tanh(), A)
    assert not agree(shapley_cam(A, gradients, hessian_product), grad_cam(A, gradients))


def test_shapley_cam_of_a_quadratic_score_of_the_means_sums_to_what_the_score_gained() -> None:
    torch.manual_seed(0)
    A = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    square, slope = torch.randn(6, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)

    def score(a: Tensor) -> Tensor:
        means = spatial_mean(a)
        return torch.einsum("bk,kl,bl->b", means, square, means) + means @ slope + 3

    map = shapley_cam(A, *product(score, A), rectify=False)
    close(map.flatten(1).sum(1), score(A) - 3)
    gradients, _ = product(score, A)
    assert not agree(grad_cam(A, gradients, rectify=False).flatten(1).sum(1), score(A) - 3)


def test_kpca_cam_with_a_linear_kernel_is_centered_eigen_cam() -> None:
    for c in (3, 30):
        A = torch.randn(4, c, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(c)).relu()
        close(kpca_cam(A, kernel="linear"), eigen_cam(A, center=True))


def test_kpca_cam_has_the_norm_of_the_largest_eigenvalue_and_sums_to_zero() -> None:
    A = world().activations
    x = (A.flatten(2) - A.flatten(2).mean(-1, keepdim=True)).mT
    centering = torch.eye(20, dtype=A.dtype) - 1 / 20
    for kernel, matrix in {
        "sigmoid": torch.tanh(x @ x.mT / 6 + 1),
        "rbf": torch.exp(-(torch.cdist(x, x) ** 2) / 6),
    }.items():
        map = kpca_cam(A, kernel=kernel).flatten(1)
        close(map.square().sum(1), torch.linalg.eigvalsh(centering @ matrix @ centering)[:, -1])
        assert (map.sum(1).abs() < 1e-12 * map.abs().amax(1)).all()


def test_a_bright_blob_stays_bright_in_every_kernel() -> None:
    A = 0.05 * torch.rand(2, 6, 5, 6, generator=torch.Generator().manual_seed(0))
    A[:, :, 1:3, 2:4] += 1
    for kernel in ("sigmoid", "rbf", "linear"):
        map = kpca_cam(A, kernel=kernel)
        assert (map[:, 1:3, 2:4].amin((1, 2)) > map[:, 3:].amax((1, 2))).all()


def test_fem_marks_outliers_only() -> None:
    A = torch.rand(2, 6, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A[:, 0] = 0.1  # a constant channel stands out nowhere, whatever rounding does to its mean
    A[:, 1] = 0
    A[:, 1, 2, 3] = 64
    map = fem(A, sigmas=3.0)
    expected = torch.zeros(2, 8, 8, dtype=torch.float64)
    expected[:, 2, 3] = 1
    close(map, expected)
    share = (fem(A.relu().clamp_max(1) / A.mean((2, 3), keepdim=True), sigmas=1.5) > 0).double().mean()
    assert 0 < share < 6 / (1 + 1.5**2)


def identity(map: Tensor) -> Tensor:
    return map


def test_refine_cam_of_one_layer_is_its_unit_map_and_of_two_equal_ones_the_square() -> None:
    A, g = world().activations, world().gradients
    base = unit(grad_cam_pp(A, g))
    assert torch.equal(refine_cam([A], [g], [identity]), base)
    assert torch.equal(refine_cam([A, A], [g, g], [identity, identity]), base.square())
    assert (refine_cam([A, A], [g, -g.abs()], [identity, identity]) == 0).all()


def test_winsor_cam_of_one_layer_is_its_map_and_at_percentile_zero_the_plain_sum() -> None:
    A, g = world().activations, world().gradients.abs()
    map = grad_cam(A, g)
    low, high = map.amin((1, 2), keepdim=True), map.amax((1, 2), keepdim=True)
    scaled = (map - low) / (high - low)
    close(winsor_cam([A], [g], [identity]), scaled)
    assert (winsor_cam([A], [-g], [identity]) == 0).all()
    layers = [A, A, A, A]
    for percentile, total in [(0.0, 3.0), (50.0, 0.1 + 1 + 1), (100.0, 0.1 + (0.1 + 0.9 / 3) + 1)]:
        # importances 1, 2 and 4 times the first, and a negative one
        map = winsor_cam(layers, [g, 2 * g, 4 * g, -g], 4 * [identity], percentile=percentile)
        close(map, total * scaled)


def test_full_grad_is_complete_in_a_network_of_rectifiers_and_batch_norms() -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList([
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3, bias=False),
        nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 4, 7), nn.ReLU(), nn.Linear(7, 1),
    ]).double()  # fmt: skip
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        for value in (norm.running_mean, norm.weight.data, norm.bias.data):
            value.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 3, 10, 12, dtype=torch.float64).requires_grad_()
    outputs = [x]
    for layer in layers.eval():
        outputs.append(layer(outputs[-1]))
    gradients = torch.autograd.grad(outputs[-1].sum(), outputs)
    parts = []
    for layer, gradient in zip(layers, gradients[1:], strict=True):
        bias = getattr(layer, "bias", None)
        if isinstance(layer, nn.BatchNorm2d):
            bias = layer.bias - layer.running_mean * layer.weight / (layer.running_var + layer.eps).sqrt()
        if bias is not None:
            parts.append((gradient * bias.reshape(1, -1, *[1] * (gradient.ndim - 2))).detach())
    scores, x = outputs[-1][:, 0].detach(), x.detach()
    residual = full_grad_residual(x, gradients[0], parts, scores)
    assert residual.abs().max() < 1e-12 * scores.abs().max()
    without = full_grad_residual(x, gradients[0], parts[:-1], scores)
    torch.testing.assert_close(without, -layers[-1].bias.detach().expand(4))
    map = full_grad(x, gradients[0], parts)
    assert torch.equal(map, full_grad(x, gradients[0], parts[:3]))  # linear layers have no places
    assert not agree(map, full_grad(x, gradients[0], parts[:2]))


def test_smooth_grad_cam_pp_without_noise_is_grad_cam_pp() -> None:
    facts = world()
    for rectify in (True, False):
        map = run(smooth_grad_cam_pp, facts, {"samples": 4, "noise": 0.0, "rectify": rectify})
        close(map, grad_cam_pp(facts.activations, facts.gradients, rectify=rectify))
    printed = run(smooth_grad_cam_pp, facts, {"samples": 4, "noise": 0.0, "as_printed": True})
    assert not agree(unit(printed), unit(grad_cam_pp(facts.activations, facts.gradients)))


def test_smooth_grad_cam_pp_counts_every_copy_and_not_the_last_alone() -> None:
    facts = world()
    one, other = facts.gradients, facts.gradients.flip(0)
    calls = iter([one, other, other, one])

    def scripted(inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return facts.activations, next(calls)

    maps = [run(smooth_grad_cam_pp, facts, {"samples": 2, "chunk": 3}, gradients_at=scripted) for _ in range(2)]
    close(maps[0], maps[1])


def test_tiny_gradients_keep_their_cubes() -> None:
    facts = world(dtype=torch.float32)

    def tiny(inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        activations, gradients = facts.gradients_at(inputs, rows)
        return activations, gradients * 1e-20

    map = run(smooth_grad_cam_pp, facts, COPIES, gradients_at=tiny)
    first = torch.zeros_like(facts.activations)
    for field in oracles.draws(facts.inputs, 3, 0):
        reach = facts.inputs.flatten(1).amax(1) - facts.inputs.flatten(1).amin(1)
        noisy = facts.inputs + 0.15 * reach[:, None, None, None] * field.float()
        first += facts.gradients_at(noisy, facts.rows)[1] / 3
    expected = torch.einsum("bc,bchw->bhw", first.relu().sum((2, 3)) / 2, facts.activations) * 1e-20
    torch.testing.assert_close(map, expected, rtol=1e-4, atol=0)


def test_expected_grad_cam_is_grad_cam_where_the_score_is_linear() -> None:
    facts = world(linear=True)
    map = run(expected_grad_cam, facts, {"samples": 3, "rectify": False})
    close(map, grad_cam(facts.activations, facts.gradients, rectify=False))


def test_expected_grad_cam_without_chance_is_the_mean_gradient_from_the_mean_color_to_the_image() -> None:
    facts = world()
    steps = [facts.gradients_at((j + 0.5) / 40 * facts.inputs, facts.rows)[1] for j in range(40)]
    map = run(expected_grad_cam, facts, {"samples": 40, "spread": 0.0, "noise": 0.0})
    close(map, grad_cam(facts.activations, torch.stack(steps).mean(0)))


# Concepts


def patterns(b: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Activations of three concepts that share no channel and no place, with their maps and directions."""
    generator = torch.Generator().manual_seed(0)
    maps, directions = torch.zeros(3, b, 4, 6, dtype=torch.float64), torch.zeros(3, 6, dtype=torch.float64)
    for r, strength in enumerate((9.0, 3.0, 1.0)):
        maps[r, :, :, 2 * r : 2 * r + 2] = strength * (torch.rand(b, 4, 2, generator=generator).double() + 0.5)
        directions[r, 2 * r : 2 * r + 2] = torch.rand(2, generator=generator).double() + 0.5
    directions = directions / directions.norm(dim=1, keepdim=True)
    return torch.einsum("rbhw,rc->bchw", maps, directions), maps, directions


def test_concepts_that_do_not_overlap_are_found_strongest_first() -> None:
    A, maps, directions = patterns()
    found, along = factorize(A, 3)
    close(found, maps)
    close(along, directions)


@pytest.mark.parametrize("images", [3, 1], ids=["more places", "more channels"])
def test_a_factorization_is_that_of_the_oracle_not_negative_and_with_directions_of_length_one(images: int) -> None:
    A = world().activations[:images, :, :, : 5 if images == 3 else 1]
    maps, directions = factorize(A, 3, iterations=5)
    rows, along = oracles.factorize(A.movedim(1, -1).flatten(0, -2).tolist(), 3, 5)
    assert agree(directions, torch.tensor(along, dtype=torch.float64))
    assert agree(maps, torch.tensor(rows, dtype=torch.float64).mT.reshape(3, *A[:, 0].shape))
    assert maps.min() >= 0
    assert directions.min() >= 0
    close(directions.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_concepts_come_by_strength_also_where_updates_changed_their_order() -> None:
    for seed in range(4):
        A = torch.rand(2, 6, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        strengths = factorize(A, 4)[0].flatten(1).norm(dim=1)
        assert (strengths.diff() < 0).all()


def error(A: Tensor, concepts: int, iterations: int) -> float:
    maps, directions = factorize(A, concepts, iterations=iterations)
    return float((torch.einsum("rb...,rc->bc...", maps, directions) - A).norm())


def test_no_update_makes_the_factorization_worse_and_it_comes_near_the_best_of_that_rank() -> None:
    A = world().activations
    errors = [error(A, 3, iterations) for iterations in range(12)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(errors))
    best = torch.linalg.svdvals(A.movedim(1, -1).flatten(0, -2))[3:].norm()
    assert best <= error(A, 3, 200) < 1.2 * best
    assert error(A, 3, 200) < errors[-1] < 0.9 * errors[0]


def test_a_factorization_has_no_hidden_scale_and_counts_negatives_as_zero() -> None:
    A = world().activations - 0.05
    assert (A < 0).any()
    maps, directions = factorize(A, 3)
    for scale in (1e-150, 1e100):
        scaled, along = factorize(scale * A, 3)
        close(scaled / scale, maps)
        close(along, directions)
    close(factorize(A.relu(), 3)[0], maps)


def test_a_factorization_depends_on_the_company_of_an_image_and_not_on_its_place() -> None:
    A = world().activations
    maps, directions = factorize(A, 3)
    turned, along = factorize(A.flip(0), 3)
    close(turned.flip(1), maps)
    close(along, directions)
    assert not agree(factorize(A[:1], 3)[0], maps[:, :1])


def test_dff_of_an_exact_factorization_is_grad_cam_and_relevance_shares_out_the_score() -> None:
    A, _, _ = patterns()
    weights = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = (weights / 24)[:, :, None, None].expand_as(A)
    close(dff(A, gradients, concepts=3), grad_cam(A, gradients))
    close(dff(A, gradients, concepts=3, rectify=False), grad_cam(A, gradients, rectify=False))
    maps, directions = factorize(A, 3)
    shares = relevance(directions, weights) * maps.flatten(2).mean(-1).mT
    close(shares.sum(1), (weights * spatial_mean(A)).sum(1))


def test_the_concepts_of_dff_share_out_its_map() -> None:
    facts = world()
    A, gradients = facts.activations, facts.gradients
    each = [dff(A, gradients, concepts=3, concept=r, rectify=False) for r in range(3)]
    close(torch.stack(each).sum(0), dff(A, gradients, concepts=3, rectify=False))
    maps, directions = factorize(A, 3)
    weights = relevance(directions, spatial_mean(gradients))
    for r in range(3):
        close(each[r], weights[:, r, None, None] * maps[r])
        close(dff(A, gradients, concepts=3, concept=r), each[r].relu())


# Errors


@pytest.mark.parametrize(
    ("method", "chosen", "text"),
    [
        (kpca_cam, {"kernel": "poly"}, "no kernel 'poly'; choose 'sigmoid', 'rbf' or 'linear'"),
        (fem, {"variant": "paper"}, "no variant 'paper' of FEM; choose 'authors' or 'pytorch_grad_cam'"),
        (full_grad, {"variant": "paper"}, "no variant 'paper' of FullGrad; choose 'authors' or 'per_channel'"),
        (winsor_cam, {"percentile": 101.0}, "got percentile=101.0; Winsor-CAM cuts at a percentile of 0..100"),
        (smooth_grad_cam_pp, {"samples": 0}, "got samples=0; an average takes at least 1 changed copy of each image"),
        (smooth_grad_cam_pp, {"noise": -0.1}, "got a standard deviation of -0.1; choose 0 or more"),
        (expected_grad_cam, {"samples": -1}, "got samples=-1; an average takes at least 1 changed copy of each image"),
        (expected_grad_cam, {"spread": -0.2}, "got a standard deviation of -0.2; choose 0 or more"),
        (dff, {"concepts": 0}, "got concepts=0; a batch of 60 places and 6 channels has 1 to 6"),
        (dff, {"concept": 5}, "got concept=5 of 5; give one from 0 to 4, or None for all"),
        (dff, {"concepts": 7}, "got concepts=7; a batch of 60 places and 6 channels has 1 to 6"),
    ],
)
def test_what_cannot_be_is_said(method: Callable[..., Tensor], chosen: dict[str, Any], text: str) -> None:
    with pytest.raises(MethodError) as refused:
        run(method, world(), chosen)
    assert str(refused.value) == text


@pytest.mark.parametrize("method", [refine_cam, winsor_cam])
def test_layers_that_do_not_match_are_said(method: Callable[..., Tensor]) -> None:
    A, g = world().activations, world().gradients
    with pytest.raises(ShapeError, match="got 0 activations, 0 gradients and 0 enlargements; a method over several"):
        method([], [], [])
    with pytest.raises(ShapeError, match="got 1 activations, 2 gradients and 1 enlargements"):
        method([A], [g, g], [identity])
