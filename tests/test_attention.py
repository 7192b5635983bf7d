"""Attention methods on plain tensors: oracles, wrong twins, identities, and what must hold for all of them."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from oracles import agree
from oracles_attention import ORACLES, expected, rollout_matrix
from seewhy.facts import needs, options
from seewhy.methods.attention import attention_rollout, chefer, grad_eclip, gradient_rollout, legrad
from seewhy.types import MethodError

METHODS = {f.__name__: f for f in (attention_rollout, gradient_rollout, chefer, legrad, grad_eclip)}
GRIDS = [(6,), (2, 3), (2, 1, 3)]
PATCHES = range(2, 8)  # of nine tokens: two ahead of the patches, one behind
SEQUENCES = ("attentions", "attention_gradients", "attention_gradients_by_depth")
CHOICES = {
    "attention_rollout": [{}],
    "gradient_rollout": [{}],
    "chefer": [{}, {"last_blocks": 2}],
    "legrad": [{}, {"last_blocks": 1}],
    "grad_eclip": [
        dict(zip(("similarity", "rectify"), on, strict=True)) for on in itertools.product([0 > 1, 0 < 1], repeat=2)
    ],
}
VARIANTS = [
    pytest.param(name, chosen, id="-".join([name, *(f"{k}={v}" for k, v in chosen.items())]))
    for name, choices in CHOICES.items()
    for chosen in choices
]
SINGLE = pytest.mark.parametrize("name", METHODS)


def token_map(grid: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    return lambda tokens: tokens[:, PATCHES.start : PATCHES.stop].unflatten(1, grid)


def draw(name: str, *, b: int = 3, heads: int = 2, depth: int = 3, read: str = "class", seed: int = 0) -> dict:
    """Facts of a method, without token_map: rows that sum to 1, signed gradients, tokens read."""
    torch.manual_seed(seed)
    n, d, double = 9, 4, torch.float64

    def several() -> list[Tensor]:
        return [torch.randn(b, heads, n, n, dtype=double) for _ in range(depth)]

    reading = torch.zeros(b, n, dtype=double)
    reading[:, {"class": slice(0, 1), "patches": slice(2, 8), "two": slice(0, 2)}[read]] = 1
    every = {
        "attentions": [(2 * x).softmax(-1) for x in several()],
        "attention_gradients": several(),
        "attention_gradients_by_depth": several(),
        **{k: torch.randn(b, heads, n, d, dtype=double) for k in ("queries", "keys", "values", "head_gradients")},
        "reading": reading / reading.sum(1, keepdim=True),
    }
    return {need: every[need] for need in needs(METHODS[name]) if need != "token_map"}


def each(facts: dict, change: Callable[[Tensor], Tensor]) -> dict:
    return {name: change(x) if isinstance(x, Tensor) else [change(y) for y in x] for name, x in facts.items()}


def run(name: str, facts: dict, grid: tuple[int, ...] = (2, 3), **chosen) -> Tensor:
    return METHODS[name](**facts, token_map=token_map(grid), **chosen)


# Oracles


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("read", ["class", "patches", "two"])
def test_a_method_equals_its_oracle(name: str, chosen: dict, grid: tuple[int, ...], read: str) -> None:
    facts = draw(name, read=read)
    assert agree(run(name, facts, grid, **chosen), expected(name, facts, PATCHES, grid, **chosen))


def swapped_blocks(name: str, facts: dict, **chosen) -> Tensor:
    one = next(iter(facts.values()))
    first = {k: [x[1], x[0], *x[2:]] for k, x in facts.items() if k in SEQUENCES and isinstance(one, list)}
    return run(name, facts | first, **chosen)


WRONG_TWINS = {
    "one head scaled": lambda name, facts, **o: run(
        name, each(facts, lambda x: x * torch.tensor([1.01, 1])[:, None, None] if x.ndim == 4 else x), **o
    ),
    "map shifted by a patch": lambda name, facts, **o: run(name, facts, **o).roll(1, -1),
    "rows of the grid swapped": lambda name, facts, **o: run(name, facts, **o).flip(1),
    "images swapped": lambda name, facts, **o: run(name, facts, **o).flip(0),
    "relative error of 1e-6": lambda name, facts, **o: run(name, facts, **o) * (1 + 1e-6),
    "one place wrong by 1e-6": lambda name, facts, **o: run(name, facts, **o) + 1e-6 * torch.eye(2, 3),
    "sign turned": lambda name, facts, **o: -run(name, facts, **o),
    "queries and keys exchanged": lambda name, facts, **o: run(
        name, each(facts, lambda x: x.mT if x.shape[-1] == x.shape[-2] else x) | _exchanged(facts), **o
    ),
}


def _exchanged(facts: dict) -> dict:
    return {"values": facts["values"].flip(2)} if "values" in facts else {}


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
@pytest.mark.parametrize("twin", WRONG_TWINS)
def test_an_oracle_rejects_a_wrong_twin(name: str, chosen: dict, twin: str) -> None:
    facts = draw(name)
    wanted = expected(name, facts, PATCHES, (2, 3), **chosen)
    assert wanted.abs().amax((1, 2)).min() > 0
    assert not agree(WRONG_TWINS[twin](name, facts, **chosen), wanted)


@pytest.mark.parametrize("name", ["attention_rollout", "gradient_rollout", "chefer"])
def test_an_oracle_knows_the_order_of_the_blocks(name: str) -> None:
    facts = draw(name)
    assert not agree(swapped_blocks(name, facts), expected(name, facts, PATCHES, (2, 3)))


@SINGLE
def test_each_option_changes_the_map(name: str) -> None:
    facts = draw(name)
    maps = [run(name, facts, **chosen) for chosen in CHOICES[name]]
    assert not any(agree(one, other) for one, other in itertools.combinations(maps, 2))
    assert set(options(METHODS[name])) == {option for chosen in CHOICES[name] for option in chosen}


def test_there_is_an_oracle_for_every_method() -> None:
    assert ORACLES.keys() == METHODS.keys() == CHOICES.keys()


# Identities


@pytest.mark.parametrize("read", ["class", "patches"])
def test_the_rows_of_rollout_sum_to_1(read: str) -> None:
    for name in ("attention_rollout", "gradient_rollout"):
        facts = draw(name, read=read)
        shares = METHODS[name](**facts, token_map=lambda tokens: tokens)
        torch.testing.assert_close(shares.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-14, atol=0)
        assert (shares >= 0).all()
    image = [block[0].tolist() for block in draw("attention_rollout")["attentions"]]
    torch.testing.assert_close(torch.tensor(rollout_matrix(image), dtype=torch.float64).sum(1), torch.ones(9).double())


def test_tokens_that_attend_to_themselves_alone_are_rolled_out_as_they_are() -> None:
    alone = [torch.eye(9, dtype=torch.float64).expand(3, 2, 9, 9)] * 4
    reading = torch.rand(3, 9, dtype=torch.float64)
    torch.testing.assert_close(attention_rollout(alone, lambda tokens: tokens, reading), reading, rtol=1e-15, atol=0)


@pytest.mark.parametrize("read", ["class", "patches"])
def test_rollout_of_uniform_attention_is_known(read: str) -> None:
    reading = draw("attention_rollout", read=read)["reading"]
    uniform = [torch.full((3, 2, 9, 9), 1 / 9, dtype=torch.float64)] * 3
    shares = attention_rollout(uniform, lambda tokens: tokens, reading)  # half stays in place, three times
    torch.testing.assert_close(shares, reading / 8 + (1 - 1 / 8) / 9, rtol=1e-14, atol=0)


@pytest.mark.parametrize("read", ["class", "patches", "two"])
def test_without_a_gradient_chefers_relevance_is_zero(read: str) -> None:
    facts = draw("chefer", read=read)
    nothing = {"attention_gradients": [torch.zeros_like(x) for x in facts["attention_gradients"]]}
    assert (run("chefer", facts | nothing) == 0).all()
    assert (run("chefer", {**facts, "attentions": [torch.zeros_like(x) for x in facts["attentions"]]}) == 0).all()
    rolled = gradient_rollout(**facts | nothing, token_map=lambda tokens: tokens)
    assert torch.equal(rolled, facts["reading"])


def test_of_one_block_chefers_relevance_is_the_row_of_its_attention() -> None:
    facts = draw("chefer", depth=1)
    row = (facts["attentions"][0] * facts["attention_gradients"][0]).relu().mean(1)[:, 0]
    torch.testing.assert_close(run("chefer", facts, (6,)), row[:, 2:8], rtol=1e-14, atol=0)


def test_negative_gradients_alone_leave_no_legrad() -> None:
    facts = each(draw("legrad"), lambda x: -x.abs())
    assert (run("legrad", facts) == 0).all()
    one = {
        "attention_gradients_by_depth": [
            -facts["attention_gradients_by_depth"][0],
            *facts["attention_gradients_by_depth"][1:],
        ]
    }
    single = {"attention_gradients_by_depth": one["attention_gradients_by_depth"][:1]}
    torch.testing.assert_close(3 * run("legrad", one), run("legrad", single))


def test_legrad_is_linear_in_the_score_and_the_products_are_not() -> None:
    for name in ("legrad", "grad_eclip", "chefer", "gradient_rollout"):
        facts = draw(name)
        doubled = {k: each({k: x}, lambda y: 2 * y)[k] for k, x in facts.items() if "gradients" in k}
        linear = agree(run(name, facts | doubled), 2 * run(name, facts))
        assert linear == (name in ("legrad", "grad_eclip"))


def test_grad_eclip_of_uniform_attention_averages_to_the_gradient_times_the_output() -> None:
    facts = draw("grad_eclip")
    map = grad_eclip(**facts, token_map=lambda tokens: tokens, similarity=False, rectify=False)
    output = facts["values"].mean(2)
    wanted = (output * facts["head_gradients"][:, :, 0]).sum((1, 2))
    torch.testing.assert_close(map.mean(1), wanted, rtol=1e-12, atol=1e-14)


def test_grad_eclip_does_not_care_for_the_length_of_queries_and_keys() -> None:
    facts = draw("grad_eclip")
    longer = {"queries": 3 * facts["queries"], "keys": facts["keys"] * torch.rand(3, 1, 9, 1).double() + 0}
    assert agree(run("grad_eclip", facts | longer), run("grad_eclip", facts))


def test_where_all_keys_are_alike_grad_eclip_weighs_no_patch_less() -> None:
    facts = draw("grad_eclip")
    alike = {"keys": torch.zeros_like(facts["keys"])}
    assert torch.equal(run("grad_eclip", facts | alike), run("grad_eclip", facts, similarity=False))


# What holds for all of them


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_has_the_grid_the_dtype_and_the_values(name: str, chosen: dict, dtype: torch.dtype) -> None:
    facts = draw(name)
    map = run(name, each(facts, lambda x: x.to(dtype)), **chosen)
    assert (map.shape, map.dtype) == ((3, 2, 3), dtype)
    torch.testing.assert_close(map.double(), run(name, facts, **chosen), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_the_order_of_the_heads_does_not_matter(name: str, chosen: dict) -> None:
    facts = draw(name, heads=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = each(facts, lambda x: x[:, order] if x.ndim == 4 else x)
    assert agree(run(name, permuted, **chosen), run(name, facts, **chosen))


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_the_order_of_the_patches_is_that_of_the_map(name: str, chosen: dict) -> None:
    facts = draw(name, read="patches")
    order = torch.tensor([0, 1, 4, 2, 7, 6, 3, 5, 8])

    def reordered(x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x[:, order]
        return x[:, :, order][:, :, :, order] if x.shape[2] == x.shape[3] else x[:, :, order]

    moved = run(name, each(facts, reordered), (6,), **chosen)
    assert agree(moved, run(name, facts, (6,), **chosen)[:, order[2:8] - 2])


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_a_batch_equals_its_images_one_by_one(name: str, chosen: dict) -> None:
    facts = draw(name)
    singles = torch.cat([run(name, each(facts, lambda x, i=i: x[i : i + 1]), **chosen) for i in range(3)])
    torch.testing.assert_close(run(name, facts, **chosen), singles, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_arguments_stay_as_they_were_and_a_second_call_gives_the_same(name: str, chosen: dict) -> None:
    facts, before, state = draw(name), draw(name), torch.get_rng_state()
    assert torch.equal(run(name, facts, **chosen), run(name, facts, **chosen))
    for fact in facts:
        assert all(torch.equal(*pair) for pair in zip(facts[fact], before[fact], strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
@pytest.mark.parametrize("fill", [0.0, 1.0, -1.0, 1e-30])
def test_zeros_and_constants_give_finite_maps_and_derivatives(name: str, chosen: dict, fill: float) -> None:
    facts = each(draw(name), lambda x: torch.full_like(x, fill).requires_grad_())
    if fill < 0 and "attentions" in facts:
        facts["attentions"] = draw(name)["attentions"]
    map = run(name, facts, **chosen)
    assert map.isfinite().all()
    assert (map.amax((1, 2)) == map.amin((1, 2))).all() or fill < 0
    leaves = [x for fact in facts.values() for x in ([fact] if isinstance(fact, Tensor) else fact) if x.requires_grad]
    found = torch.autograd.grad(map.sum(), leaves, allow_unused=True)
    assert all(gradient.isfinite().all() for gradient in found if gradient is not None)


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_maps_are_differentiable(name: str, chosen: dict) -> None:
    facts = draw(name, b=1, depth=2, read="patches")
    names = [k for k, x in facts.items() if isinstance(x, Tensor)]
    several = [k for k in facts if k not in names]

    def of(*flat: Tensor) -> Tensor:
        lists = {k: list(flat[2 * i : 2 * i + 2]) for i, k in enumerate(several)}
        return run(name, lists | dict(zip(names, flat[2 * len(several) :], strict=True)), **chosen)

    flat = [x.requires_grad_() for k in several for x in facts[k]] + [facts[k].requires_grad_() for k in names]
    assert torch.autograd.gradcheck(of, flat, atol=1e-6)


@pytest.mark.parametrize(("name", "chosen"), [v for v in VARIANTS if v.values[0] != "attention_rollout"])
def test_questions_are_mapped_from_outside(name: str, chosen: dict) -> None:
    asked = [draw(name, seed=seed) for seed in range(3)]
    shared = {k: x for k, x in asked[0].items() if "gradients" not in k}
    own = [{k: x for k, x in facts.items() if "gradients" in k} for facts in asked]
    stacked = {
        k: torch.stack([o[k] for o in own])
        if isinstance(own[0][k], Tensor)
        else [torch.stack(x) for x in zip(*(o[k] for o in own), strict=True)]
        for k in own[0]
    }
    mapped = torch.vmap(lambda given: run(name, shared | given, **chosen))(stacked)
    looped = torch.stack([run(name, shared | given, **chosen) for given in own])
    torch.testing.assert_close(mapped, looped, rtol=1e-12, atol=1e-14)


@SINGLE
def test_maps_are_not_negative_unless_asked_for(name: str) -> None:
    assert (run(name, draw(name)) >= 0).all()
    assert (run("grad_eclip", draw("grad_eclip"), rectify=False) < 0).any()


@SINGLE
def test_nan_stays_visible(name: str) -> None:
    facts = draw(name)
    first = next(iter(facts))
    spoiled = [x.clone() for x in facts[first]] if isinstance(facts[first], list) else facts[first].clone()
    (spoiled[-1] if isinstance(spoiled, list) else spoiled)[1, 0, 0] = torch.nan
    map = run(name, facts | {first: spoiled})
    assert map[1].isnan().any()
    assert map[[0, 2]].isfinite().all()


@pytest.mark.parametrize("name", ["chefer", "legrad"])
@pytest.mark.parametrize("count", [-1, 4])
def test_more_blocks_than_there_are_are_refused(name: str, count: int) -> None:
    with pytest.raises(MethodError) as refused:
        run(name, draw(name), last_blocks=count)
    assert str(refused.value) == f"got last_blocks={count} for a model of 3 attention blocks; give 1 to 3, or 0 for all"
