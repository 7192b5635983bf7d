"""Every method against its slow oracle, the oracles against wrong maps, and what must hold for all methods alike."""

import inspect
import itertools
import re
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

import oracles_attention
import oracles_perturbation
import oracles_pixel
import oracles_smooth
import test_more_methods
import test_pixel
from oracles import ORACLES, agree, expected
from seewhy import facts, registry
from seewhy.delegates.listed import DELEGATES
from seewhy.ensemble import fuse
from seewhy.facts import needs, options
from seewhy.method import Method
from seewhy.registry import find
from seewhy.tensor import first_component, unit
from seewhy.types import MethodError, ShapeError

FACTS = ("activations", "gradients", "class_weights")
METHODS = {name: row for name, row in registry.METHODS.items() if name in {name for name, _ in ORACLES}}
EVERY = {**registry.METHODS, **DELEGATES}
GRIDS = [(7,), (4, 5), (2, 3, 4)]
SINGLE = [pytest.param(row, id=row.name) for row in METHODS.values()]


def choices(row: Method) -> list[dict[str, bool]]:
    """Every combination of a method's boolean options."""
    names = [name for name, option in options(row.function).items() if option.type is bool]
    return [dict(zip(names, values, strict=True)) for values in itertools.product([False, True], repeat=len(names))]


VARIANTS = [
    pytest.param(row, chosen, id="-".join([row.name, *(f"{name}={value}" for name, value in chosen.items())]))
    for row in METHODS.values()
    for chosen in choices(row)
]


def draw(row: Method, grid: tuple[int, ...] = (4, 5), *, b: int = 3, c: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """Facts of a method: rectified activations, signed gradients with some exact zeros, signed class weights."""
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(b, c, *grid, generator=generator, dtype=torch.float64).relu()
    gradients = torch.randn(b, c, *grid, generator=generator, dtype=torch.float64)
    gradients = gradients.where(gradients.abs() > 0.1, torch.zeros_like(gradients))
    weights = torch.randn(b, c, generator=generator, dtype=torch.float64)
    every = dict(zip(FACTS, (activations, gradients, weights), strict=True))
    return {name: every[name] for name in needs(row.function)}


def each(facts: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {name: change(fact) for name, fact in facts.items()}


def on_grids(facts: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {name: change(fact) if fact.ndim > 2 else fact for name, fact in facts.items()}


def run(row: Method, facts: dict[str, Tensor], **chosen: bool) -> Tensor:
    return row.function(*facts.values(), **chosen)


# Oracles


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_method_equals_its_oracle(row: Method, chosen: dict[str, bool], grid: tuple[int, ...], seed: int) -> None:
    facts = draw(row, grid, seed=seed)
    assert agree(run(row, facts, **chosen), expected(row.name, facts, **chosen))


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
def test_a_method_equals_its_oracle_on_signed_activations(row: Method, chosen: dict[str, bool]) -> None:
    facts = draw(row)
    facts["activations"] = facts["activations"] - 0.3
    assert (facts["activations"].flatten(2).sum(-1) < 0).any()
    assert agree(run(row, facts, **chosen), expected(row.name, facts, **chosen))


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
@pytest.mark.parametrize("c", [1, 30], ids=["one channel", "more channels than places"])
def test_a_method_equals_its_oracle_for_few_and_many_channels(row: Method, chosen: dict[str, bool], c: int) -> None:
    facts = draw(row, (3, 3), b=2, c=c)
    assert agree(run(row, facts, **chosen), expected(row.name, facts, **chosen))


def scaled_channel(facts: dict[str, Tensor], map: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
    activations = facts["activations"].clone()
    activations[:, 2] *= 1.01
    return map(facts | {"activations": activations})


WRONG_TWINS = {
    "one channel scaled": scaled_channel,
    "map shifted by a pixel": lambda facts, map: map(facts).roll(1, -1),
    "rows of the grid swapped": lambda facts, map: map(facts)[:, [1, 0, 2, 3]],
    "images swapped": lambda facts, map: map(facts).flip(0),
    "relative error of 1e-6": lambda facts, map: map(facts) * (1 + 1e-6),
    "one place wrong by 1e-6": lambda facts, map: map(facts) + 1e-6 * map(facts).max() * torch.eye(4, 5),
    "sign turned": lambda facts, map: -map(facts),
    "another size": lambda facts, map: map(facts)[..., :-1],
}


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
@pytest.mark.parametrize("twin", WRONG_TWINS)
def test_an_oracle_rejects_a_wrong_twin(row: Method, chosen: dict[str, bool], twin: str) -> None:
    facts = draw(row)
    wanted = expected(row.name, facts, **chosen)
    assert wanted.abs().amax((1, 2)).min() > 0
    assert not agree(WRONG_TWINS[twin](facts, lambda changed: run(row, changed, **chosen)), wanted)


@pytest.mark.parametrize("row", SINGLE)
def test_each_option_changes_the_map(row: Method) -> None:
    facts = draw(row)
    facts["activations"] = facts["activations"] - 0.3
    maps = [run(row, facts, **chosen) for chosen in choices(row)]
    assert not any(agree(one, other) for one, other in itertools.combinations(maps, 2))


def test_there_is_an_oracle_for_every_method_and_choice_and_no_other() -> None:
    wanted = {(row.name, frozenset(chosen.items())) for row in METHODS.values() for chosen in choices(row)}
    assert ORACLES.keys() == wanted


# What holds for every method


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_has_the_layers_grid_and_dtype_and_values(
    row: Method, chosen: dict[str, bool], grid: tuple[int, ...], dtype: torch.dtype
) -> None:
    facts = draw(row, grid)
    map = run(row, each(facts, lambda fact: fact.to(dtype)), **chosen)
    assert (map.shape, map.dtype) == ((3, *grid), dtype)
    torch.testing.assert_close(map.double(), run(row, facts, **chosen), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
def test_zeros_give_zeros(row: Method, chosen: dict[str, bool]) -> None:
    facts = draw(row)
    for name in facts:
        map = run(row, facts | {name: torch.zeros_like(facts[name])}, **chosen)
        if name == "gradients" or name == "activations" or row.name == "cam":
            assert (map == 0).all()


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
@pytest.mark.parametrize("fill", [1.0, -1.0, 0.1, 1e-30, 1e30])
@pytest.mark.parametrize("c", [6, 40])
def test_constants_and_extremes_give_finite_maps_and_derivatives(
    row: Method, chosen: dict[str, bool], fill: float, c: int
) -> None:
    facts = each(draw(row, c=c), lambda fact: torch.full_like(fact, fill).requires_grad_())
    map = run(row, facts, **chosen)
    assert map.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(map.sum(), list(facts.values())))


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
@pytest.mark.parametrize("scale", [1e-200, 1e150])
def test_no_absolute_scale_is_hidden_in_a_formula(row: Method, chosen: dict[str, bool], scale: float) -> None:
    facts = draw(row)
    # Grad-CAM++ is no linear function of the evidence, but its g * sum(A) may come at any scale of either
    change = {"gradients": 1 / scale} if row.name == "grad_cam_pp" else {}
    factors = {"activations": scale} | change
    scaled = run(row, {name: fact * factors.get(name, 1) for name, fact in facts.items()}, **chosen)
    assert agree(scaled if change else scaled / scale, run(row, facts, **chosen))


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
def test_arguments_stay_as_they_were_and_a_second_call_gives_the_same(row: Method, chosen: dict[str, bool]) -> None:
    facts = draw(row)
    before, state = each(facts, Tensor.clone), torch.get_rng_state()
    first, second = run(row, facts, **chosen), run(row, facts, **chosen)
    assert torch.equal(first, second)
    assert all(torch.equal(facts[name], before[name]) for name in facts)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
def test_a_batch_equals_its_images_one_by_one(row: Method, chosen: dict[str, bool]) -> None:
    facts = draw(row)
    singles = torch.cat([run(row, each(facts, lambda x, i=i: x[i : i + 1]), **chosen) for i in range(3)])
    batch = run(row, facts, **chosen)
    torch.testing.assert_close(batch, singles, rtol=1e-14, atol=1e-14 * float(singles.abs().max()))


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
def test_the_order_of_channels_does_not_matter(row: Method, chosen: dict[str, bool]) -> None:
    facts = draw(row)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert agree(run(row, each(facts, lambda x: x[:, order]), **chosen), run(row, facts, **chosen))


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
@pytest.mark.parametrize("axis", [-1, -2])
def test_flipped_evidence_gives_the_flipped_map(row: Method, chosen: dict[str, bool], axis: int) -> None:
    facts = draw(row)
    flipped = run(row, on_grids(facts, lambda x: x.flip(axis)), **chosen)
    assert agree(flipped, run(row, facts, **chosen).flip(axis))


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
def test_memory_layout_does_not_matter(row: Method, chosen: dict[str, bool]) -> None:
    facts = draw(row)
    strided = on_grids(facts, lambda x: x.to(memory_format=torch.channels_last))
    assert agree(run(row, strided, **chosen), run(row, facts, **chosen))


@pytest.mark.parametrize(("row", "chosen"), [v for v in VARIANTS if v.values[0].class_specific])
def test_questions_are_mapped_from_outside(row: Method, chosen: dict[str, bool]) -> None:
    several = [draw(row, seed=seed) for seed in range(4)]
    shared = {"activations": several[0]["activations"]}
    asked = [name for name in needs(row.function) if name not in shared]
    stacked = [torch.stack([facts[name] for facts in several]) for name in asked]
    mapped = torch.vmap(lambda *facts: row.function(shared["activations"], *facts, **chosen))(*stacked)
    looped = torch.stack([run(row, facts | shared, **chosen) for facts in several])
    torch.testing.assert_close(mapped, looped, rtol=1e-13, atol=1e-13 * float(looped.abs().max()))


@pytest.mark.parametrize(("row", "chosen"), VARIANTS)
@pytest.mark.parametrize("c", [3, 9], ids=["few channels", "many channels"])
def test_maps_are_differentiable(row: Method, chosen: dict[str, bool], c: int) -> None:
    facts = draw(row, (2, 3), b=2, c=c)
    # away from the kinks of ReLU, where no derivative exists
    inputs = [(x + 0.05 * torch.sign(x + 1e-9)).requires_grad_() for x in facts.values()]
    assert torch.autograd.gradcheck(lambda *x: row.function(*x, **chosen), inputs, atol=1e-6)


@pytest.mark.parametrize("row", SINGLE)
def test_a_method_is_signed_exactly_if_its_row_says_so(row: Method) -> None:
    facts = draw(row)
    facts["activations"] = facts["activations"] - 0.3
    assert (run(row, facts) < 0).any() == row.signed


@pytest.mark.parametrize("row", SINGLE)
def test_nan_stays_visible(row: Method) -> None:
    facts = draw(row)
    facts["activations"][1, 2, 0, 0] = torch.nan
    map = run(row, facts)
    assert map[1].isnan().any()
    assert map[[0, 2]].isfinite().all()


# The first component


def test_the_first_component_has_the_norm_of_the_largest_singular_value_and_spans_its_direction() -> None:
    for c, grid in [(5, (4, 6)), (40, (3, 4))]:
        x = draw(METHODS["eigen_cam"], grid, c=c)["activations"] - 0.2
        for center in (False, True):
            flat = x.flatten(2) - (x.flatten(2).mean(-1, keepdim=True) if center else 0)
            _, sigma, right = torch.linalg.svd(flat, full_matrices=False)
            projection = first_component(x, center).flatten(1)
            torch.testing.assert_close(projection.norm(dim=1), sigma[:, 0], rtol=1e-12, atol=0)
            torch.testing.assert_close((projection * right[:, 0]).sum(1).abs(), sigma[:, 0], rtol=1e-12, atol=0)


def test_the_first_component_keeps_its_norm_where_the_leading_direction_is_not_unique() -> None:
    basis = torch.linalg.qr(draw(METHODS["eigen_cam"], (3, 3), c=9)["activations"].flatten(2)).Q
    for x in (basis[:, :4], basis[:, :, :4]):
        torch.testing.assert_close(first_component(x, False).norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(2, 40, 3, 4), (2, 5, 10, 10)])
def test_the_first_component_decomposes_the_smaller_side(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    eigh, sizes = torch.linalg.eigh, []
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: sizes.append(matrix.shape[-1]) or eigh(matrix))
    first_component(torch.ones(shape), False)
    assert sizes == [min(shape[1], shape[2] * shape[3])]


def test_the_first_component_of_one_channel_is_that_channel_in_single_precision() -> None:
    for seed in range(60):  # float32 eigenvectors of one of these in nine are NaN, or do not converge
        generator = torch.Generator().manual_seed(seed)
        alive = torch.rand(1, 13, 13, generator=generator) ** 3 * (torch.rand(1, 13, 13, generator=generator) > 0.5)
        x = torch.cat([alive.new_zeros(199, 13, 13), alive])[None]
        torch.testing.assert_close(first_component(x, False), alive, rtol=0, atol=1e-5)


def test_the_first_component_is_differentiable_where_channels_are_dead_or_alike() -> None:
    x = draw(METHODS["eigen_cam"], (3, 4), c=8)["activations"]
    x[:, 3:6], x[:, 7] = 0, x[:, 0]

    def component(kept: Tensor) -> Tensor:
        return first_component(torch.cat([kept, x[:, 3:]], 1), False)

    leaf = x[:, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(component, [leaf])
    x.requires_grad_()
    assert torch.autograd.grad(first_component(x, True).pow(2).sum(), x)[0].isfinite().all()


# The registry


def test_every_row_is_filled_and_agrees_with_its_function() -> None:
    for name, row in registry.METHODS.items():
        assert name == row.name == row.function.__name__
        for field in ("title", "paper", "weakness"):
            assert len(getattr(row, field)) > 2, (name, field)
        assert 2014 <= row.year <= 2026
    assert {len(row.weakness) <= 110 for row in registry.METHODS.values()} == {True}
    told = {name: (row.family, row.class_specific, row.cost) for name, row in registry.METHODS.items()}
    assert told["cam"] == ("activation", True, "1 forward")
    assert told["eigen_cam"] == ("activation", False, "1 forward")
    assert told["layer_cam"] == ("gradient", True, "1 forward, 1 back")


def test_every_method_has_an_oracle() -> None:
    of_tables = {name for name, _ in ORACLES} | oracles_perturbation.ORACLES.keys() | oracles_attention.ORACLES.keys()
    smooth = {method.__name__ for method in test_more_methods.CASES}
    pixel = {case.partition("-")[0] for case in test_pixel.CASES}
    assert smooth <= {name for name, what in vars(oracles_smooth).items() if is_of(oracles_smooth, what)}
    assert pixel - {"guided_backprop", "deconvnet"} <= {  # these two: saliency's, and tests/test_rules.py
        name for name, what in vars(oracles_pixel).items() if is_of(oracles_pixel, what)
    }
    assert of_tables | smooth | pixel == registry.METHODS.keys() - {"sharp", "best"}  # by hand in tests/test_presets.py


def is_of(module: ModuleType, what: object) -> bool:
    return inspect.isfunction(what) and what.__module__ == module.__name__


def test_every_need_is_a_known_fact_and_every_option_has_a_type_and_a_default() -> None:
    for row in registry.METHODS.values():
        assert set(needs(row.function)) <= facts.FACTS.keys()
        for option in options(row.function).values():
            assert option.type is not inspect.Parameter.empty
            assert isinstance(option.default, option.type)
    assert needs(METHODS["grad_cam"].function) == ("activations", "gradients")
    pp = options(METHODS["grad_cam_pp"].function)
    assert {name: (o.type, o.default) for name, o in pp.items()} == {
        "alpha_normalize": (bool, False),
        "rectify": (bool, True),
    }


PUBLISHED = r"arXiv:\d{4}\.\d{4,5}|\b(19|20)\d\d\b|No publication|None\."


@pytest.mark.parametrize("name", EVERY)
def test_every_docstring_has_the_sections_of_the_conventions(name: str) -> None:
    row = EVERY[name]
    text = inspect.getdoc(row.function) or ""
    meaning, *paragraphs = text.partition("\n\nArgs:\n")[0].split("\n\n")
    assert re.fullmatch(r"[^\n]{20,}\.", meaning)
    assert any(re.match(r"[LSM](_\w+)? = .", paragraph) for paragraph in paragraphs)
    assert any(re.match(r"Identity\w*(:| )", paragraph) for paragraph in paragraphs)
    sections = re.findall(r"^([A-Z]\w+):$", text, re.MULTILINE)
    assert [each for each in sections if each not in ("Raises", "Weakness")] == ["Args", "Returns", "Reference"]
    weakness = text.partition("\nWeakness:\n")[2] if name in registry.METHODS else row.weakness
    assert re.match(r"\s*(\S+ ){3}", weakness)
    told = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    given = (*needs(row.function), *options(row.function))
    assert re.findall(r"^    (\w+): \S", told, re.MULTILINE) == list(given)
    assert re.search(PUBLISHED, text.partition("\nReference:\n")[2].partition("\n\n")[0])


def test_nobody_adds_or_takes_a_method() -> None:
    for rows in (registry.METHODS, DELEGATES):
        with pytest.raises(TypeError):
            rows["mine"] = rows[next(iter(rows))]
        with pytest.raises(TypeError):
            del rows[next(iter(rows))]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Grad-CAM", "grad_cam"),
        ("gradcam", "grad_cam"),
        ("GRAD_CAM", "grad_cam"),
        ("Grad-CAM++", "grad_cam_pp"),
        ("gradcam++", "grad_cam_pp"),
        ("GradCAMPlusPlus", "grad_cam_pp"),
        ("grad_cam_plus_plus", "grad_cam_pp"),
        ("GradCAMpp", "grad_cam_pp"),
        ("HiResCAM", "hires_cam"),
        ("XGrad-CAM", "xgrad_cam"),
        ("GradCAMElementWise", "grad_cam_elementwise"),
        ("Element-wise Grad-CAM", "grad_cam_elementwise"),
        ("Eigen-CAM", "eigen_cam"),
        ("EigenGradCAM", "eigen_grad_cam"),
        ("LayerCAM", "layer_cam"),
        ("CAM", "cam"),
    ],
)
def test_a_method_is_found_in_any_spelling(spelling: str, name: str) -> None:
    assert find(spelling) is METHODS[name]


def test_an_unknown_method_names_the_closest_ones() -> None:
    with pytest.raises(MethodError) as unknown:
        find("grad_kam")
    assert str(unknown.value).startswith("no method 'grad_kam'; there are 41, closest 'grad_cam', ")
    with pytest.raises(MethodError) as strange:
        find("42")
    assert str(strange.value) == f"no method '42'; there are {len(registry.METHODS)}, namely " + ", ".join(
        map(repr, registry.METHODS)
    )


# Fusion


def test_fusing_one_map_gives_its_unit_map() -> None:
    map = torch.tensor([[[-1.0, 2.0], [4.0, 0.0]]])
    for how in ("mean", "max", "max_tanh"):
        assert torch.equal(fuse([map], how), torch.tensor([[[0.0, 0.5], [1.0, 0.0]]]))


def test_fusing_follows_its_formulas_and_the_order_of_the_layers() -> None:
    generator = torch.Generator().manual_seed(0)
    shallow, middle, deep = torch.randn(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    u, v, w = unit(shallow), unit(middle), unit(100 * deep)
    maps = [shallow, middle, 100 * deep]
    torch.testing.assert_close(fuse(maps), (u + v + w) / 3)
    assert torch.equal(fuse(maps, "max"), torch.maximum(torch.maximum(u, v), w))
    for gamma in (2.0, 0.5):
        wanted = torch.maximum(torch.maximum(torch.tanh(gamma * u), torch.tanh(gamma * v)), w)
        assert torch.equal(fuse(maps, "max_tanh", gamma=gamma), wanted)
    assert not torch.equal(fuse(maps, "max_tanh"), fuse(maps[::-1], "max_tanh"))
    assert torch.equal(fuse([-u, -v], "max_tanh"), torch.zeros_like(u))


def test_fusing_refuses_nothing_different_sizes_and_unknown_ways() -> None:
    map = torch.ones(1, 2, 2)
    with pytest.raises(ShapeError, match=r"got no maps; fusing takes at least one map"):
        fuse([])
    with pytest.raises(ShapeError, match=r"got maps of sizes \(1, 2, 2\), \(1, 3, 3\); .* resize them to one first"):
        fuse([map, torch.ones(1, 3, 3)])
    with pytest.raises(MethodError, match="no fusion 'product'; choose 'mean', 'max' or 'max_tanh'"):
        fuse([map], "product")
