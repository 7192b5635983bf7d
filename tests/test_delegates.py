"""Captum's methods behind our call: its own numbers, identities, refusals in words, and nothing left on the model."""

import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seewhy
from seewhy import facts
from seewhy.delegates.listed import DELEGATES
from seewhy.model.batch import Batch
from seewhy.model.replay import Replay
from seewhy.model.scorer import Scorer
from seewhy.types import MethodError
from test_leave_no_trace import fingerprint, restless, same

try:
    import captum.attr as captum
    import sklearn  # noqa: F401
except ImportError:
    captum = None

needs_captum = pytest.mark.skipif(captum is None, reason="needs captum and scikit-learn, the extra captum")
NAMES = list(DELEGATES)
QUICK = {
    "captum:lime": {"samples": 40, "patches": 3, "alpha": 1e-3},
    "captum:kernel_shap": {"samples": 40, "patches": 3},
    "captum:shapley_sampling": {"samples": 3, "patches": 3},
    "captum:gradient_shap": {"samples": 11},
}


class Net(nn.Module):
    """Rectifiers that are modules and run once, as Captum wants them."""

    def __init__(self, rank=2, rectifier=nn.ReLU):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.a, self.first, self.b = conv(3, 6, 3, padding=1), rectifier(), conv(6, 8, 3, 2, 1)
        self.second, self.head = nn.ReLU(), nn.Linear(8, 5)
        self.pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[rank](1)

    def forward(self, x):
        return self.head(self.pool(self.second(self.b(self.first(self.a(x))))).flatten(1))


def net(*args, **kwargs):
    torch.manual_seed(0)
    made = Net(*args, **kwargs).double().eval()
    made.head.weight.data *= 100
    return made


def images(count=2, size=(8, 9)):
    return torch.randn(count, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def options(name, size=(8, 9)):
    return {"baseline": images(3, size)} if name == "captum:deep_lift_shap" else dict(QUICK.get(name, {}))


def explained(name, model=None, x=None, **more):
    x = images() if x is None else x
    chosen = options(name, x.shape[2:]) | more.pop("options", {})
    return seewhy.explain(net() if model is None else model, x, more.pop("target", 1), name, options=chosen, **more)


# Captum's own numbers


@needs_captum
def test_gradient_methods_are_captums_own_summed_over_colors():
    model, x = net(), images()
    references = options("captum:deep_lift_shap")["baseline"]
    with pytest.warns(UserWarning, match="Setting forward, backward hooks|require gradients"):
        theirs = {
            "captum:deep_lift": captum.DeepLift(model).attribute(x, 0, target=1),
            "captum:deep_lift_shap": captum.DeepLiftShap(model).attribute(x, references, target=1),
            "captum:lrp": captum.LRP(model).attribute(x, target=1),
        }
    for name, expected in theirs.items():
        torch.testing.assert_close(explained(name).map, expected.detach().sum(1), msg=name)


@needs_captum
def test_patch_methods_are_captums_own():
    model, x = net(), images(1)
    rows, columns = torch.arange(8) * 3 // 8, torch.arange(9) * 3 // 9
    mask = (rows[:, None] * 3 + columns)[None, None]
    how = {"feature_mask": mask, "perturbations_per_eval": 4, "target": 1, "baselines": 0.0}
    torch.manual_seed(0)
    expected = captum.KernelShap(model).attribute(x, n_samples=40, **how)
    torch.testing.assert_close(explained("captum:kernel_shap", x=x).map, expected[:, 0].double(), rtol=1e-5, atol=1e-5)
    torch.manual_seed(0)
    expected = captum.ShapleyValueSampling(model).attribute(x, n_samples=3, **how)
    torch.testing.assert_close(explained("captum:shapley_sampling", x=x).map, expected[:, 0].double())
    torch.manual_seed(0)
    expected = captum.Lime(model).attribute(x, n_samples=40, **how)
    found = explained("captum:lime", x=x, options={"alpha": 0.01}).map
    torch.testing.assert_close(found, expected[:, 0].double(), rtol=1e-5, atol=1e-5)
    assert len(found.unique()) > 3


# Identities


class Linear(nn.Module):
    """y = w x, whose attributions are known."""

    def __init__(self, size=(8, 9)):
        super().__init__()
        self.flat = nn.Linear(3 * int(np.prod(size)), 4, bias=False)

    def forward(self, x):
        return self.flat(x.flatten(1))


def linear():
    torch.manual_seed(1)
    return Linear().double()


@needs_captum
@pytest.mark.parametrize("name", NAMES)
def test_on_a_linear_score_every_method_gives_weight_times_distance(name):
    model, x = linear(), images()
    weights = model.flat.weight[1].detach().reshape(3, 8, 9)
    start = torch.full_like(x[0], 0.5) if name != "captum:lrp" else torch.zeros_like(x[0])
    chosen = {"baseline": 0.5} if name != "captum:lrp" else {}
    if name == "captum:deep_lift_shap":
        chosen = {"baseline": torch.stack([start - 1, start + 1])}
    if name in ("captum:lime", "captum:kernel_shap"):
        chosen |= {"samples": 400}
    if name == "captum:lime":
        chosen |= {"alpha": 1e-9}
    expected = (weights * (x - start)).sum(1)
    if "patches" in options(name):
        rows, columns = torch.arange(8) * 3 // 8, torch.arange(9) * 3 // 9
        patch = rows[:, None] * 3 + columns
        sums = torch.zeros(2, 9, dtype=x.dtype).index_add(1, patch.flatten(), expected.flatten(1))
        expected = sums[:, patch]
    found = explained(name, model, x, options=chosen)
    tolerance = 1e-4 if "patches" in options(name) else 1e-7
    torch.testing.assert_close(found.map, expected, rtol=tolerance, atol=tolerance)
    assert found.notes == ()


@needs_captum
@pytest.mark.parametrize("name", ["captum:deep_lift", "captum:shapley_sampling", "captum:kernel_shap"])
def test_completeness(name):
    model, x = net(), images()
    e = explained(name, model, x, options={"samples": 400} if "kernel" in name else {})
    change = (model(x) - model(torch.zeros_like(x)))[:, 1].detach()
    sums = e.map.flatten(1).sum(1)
    if name != "captum:deep_lift":  # each patch counts once, whatever its size
        sums = torch.stack([e.map[:, row, column] for row in (0, 3, 7) for column in (0, 4, 8)]).sum(0)
    torch.testing.assert_close(sums, change, rtol=1e-10 if "deep" in name else 1e-3, atol=0.0)


@needs_captum
@pytest.mark.parametrize("kind", ["module", "function"])
def test_a_nonlinear_part_that_captum_does_not_see_is_said(kind):
    model = net(rectifier=nn.ReLU6 if kind == "module" else nn.Identity)
    if kind == "function":
        model.b.register_forward_pre_hook(lambda module, given: (F.relu(given[0]),))
    model.a.weight.data *= 10
    e = explained("captum:deep_lift", model)
    change = (model(images()) - model(torch.zeros_like(images())))[:, 1].detach()
    share = ((e.map.flatten(1).sum(1) - change) / change).abs().max()
    assert share > 0.02
    assert e.notes == (
        f"the attributions do not sum to the score's change from the baseline, but are off by {share:.0%} of it: some "
        "nonlinear part of the model is none that Captum has a rule for (a function instead of a module, ReLU6, GELU, "
        "...) and was taken as linear",
    )


@needs_captum
def test_relevance_that_the_biases_keep_is_said():
    assert explained("captum:lrp").notes[0].startswith("the attributions do not sum to the score, but are off by ")
    model = net()
    for part in (model.a, model.b, model.head):
        part.bias.data.zero_()
    e = explained("captum:lrp", model)
    assert e.notes == ()
    torch.testing.assert_close(e.map, seewhy.explain(model, images(), 1, "input_x_gradient").map, rtol=1e-5, atol=1e-8)


# What it refuses, in words


class Reused(Net):
    def forward(self, x):
        return self.head(self.pool(self.first(self.b(self.first(self.a(x))))).flatten(1))


@needs_captum
def test_captums_reason_reaches_the_user_and_the_model_is_as_it_was():
    torch.manual_seed(0)
    model = Reused().double()
    before = fingerprint(model)
    with pytest.raises(MethodError, match=r"^captum:deep_lift does not take this model; Captum's reason: ") as caught:
        explained("captum:deep_lift", model)
    assert "your module is being used more than once in the network" in str(caught.value)
    assert str(caught.value).endswith("; integrated_gradients and occlusion take any")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert same(before, fingerprint(model))
    with pytest.raises(MethodError, match=r"captum:lrp .* reason: Module of type .*ReLU6'> has no rule defined"):
        explained("captum:lrp", net(rectifier=nn.ReLU6))


@needs_captum
@pytest.mark.parametrize(
    ("name", "chosen", "text"),
    [
        ("captum:lime", {"samples": 0}, "got samples=0; take at least 1"),
        ("captum:gradient_shap", {"samples": 0}, "got samples=0; take at least 1"),
        ("captum:kernel_shap", {"patches": 0}, "got patches=0; choose how many there are along each axis, at least 1"),
        ("captum:lime", {"steps": 3}, "captum:lime has no option 'steps'; its options are: patches, samples, alpha, "),
        ("captum:deep_lift", {"baseline": torch.zeros(4)}, r"got a baseline of shape \(4,\) for inputs of"),
        (
            "captum:deep_lift_shap",
            {"baseline": None},
            r"captum:deep_lift_shap got no references; give images to compare with, .* \(r, 3, 8, 9\), r at least 2",
        ),
        ("captum:deep_lift_shap", {"baseline": torch.zeros(1, 3, 8, 9)}, r"references of shape \(1, 3, 8, 9\); give"),
        ("captum:gradient_shap", {"baseline": torch.zeros(2, 3, 8, 8)}, r"references of shape \(2, 3, 8, 8\); give"),
        ("captum:lrp", {"channels": "mean"}, "no way 'mean' to make the color channels one"),
    ],
)
def test_options_that_make_no_sense(name, chosen, text):
    with pytest.raises(seewhy.SeewhyError, match=text):
        explained(name, options=chosen)


def test_names_without_a_method():
    with pytest.raises(
        MethodError, match=r"^no method 'captum:limes'; of Captum's there are 'captum:lime', 'captum:ke"
    ):
        seewhy.explain(net(), images(), 1, "captum:limes")


@pytest.mark.parametrize("missing", ["captum", "captum.attr", "sklearn"])
def test_without_captum_the_extra_is_named(missing, monkeypatch):
    monkeypatch.delitem(sys.modules, "captum.attr", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    text = r"captum:lrp needs the packages captum and scikit-learn, .*; pip install 'seewhy\[captum\]'$"
    with pytest.raises(MethodError, match=text):
        seewhy.explain(net(), images(), 1, "captum:lrp")


@needs_captum
def test_names_in_any_case():
    assert seewhy.explain(net(), images(), 1, "captum:Deep-LIFT").method == "captum:deep_lift"


@needs_captum
def test_an_error_of_the_target_is_the_targets():
    def target(output, rows):
        if len(rows) == 2:
            return output[:, 1]
        raise seewhy.TargetError("only two")

    with pytest.raises(seewhy.TargetError, match="only two"):
        explained("captum:deep_lift", target=target)


def test_a_model_that_cannot_be_copied_is_said():
    model = net()
    model.lock = threading.Lock()
    scorer = Scorer(Replay(model, Batch(images()), {}), lambda output, rows: output[:, 1])
    with pytest.raises(MethodError, match=r"on a copy of the model, which cannot be copied \(cannot pickle .*; choose"):
        scorer.apart()


# Properties


@needs_captum
@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_as_it_was(name):
    model = restless()
    before, versions = fingerprint(model), [each._version for each in model.parameters()]
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    x = images(2, (12, 10)).float()
    more = {"baseline": x + 1} if name == "captum:deep_lift_shap" else QUICK.get(name, {})
    seewhy.explain(model, x, 1, name, options=dict(more))
    assert same(before, fingerprint(model))
    assert versions == [each._version for each in model.parameters()]
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert not x.requires_grad


@needs_captum
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(11,), (8, 9), (5, 6, 4)], ids=len)
def test_a_batch_is_a_loop_of_singles_at_any_rank(name, size):
    if name == "captum:lrp" and len(size) != 2:
        pytest.skip("Captum has no LRP rule for convolutions in 1-D and 3-D")
    model, x = net(len(size)), images(3, size)
    together = explained(name, model, x, target=[0, 1, 2], rectify=False).map
    singles = torch.cat([explained(name, model, x[n : n + 1], target=n, rectify=False).map for n in range(3)])
    assert together.abs().amax() > 0
    torch.testing.assert_close(together, singles, rtol=1e-6, atol=1e-9)


@needs_captum
@pytest.mark.parametrize("name", ["captum:lime", "captum:kernel_shap", "captum:shapley_sampling", "captum:deep_lift"])
def test_a_baseline_may_be_an_image_for_each(name):
    model, x = net(), images()
    starts = torch.stack([x[0] / 2, x[1] - 1])
    together = explained(name, model, x, options={"baseline": starts}).map
    singles = [explained(name, model, x[n : n + 1], options={"baseline": starts[n]}).map for n in range(2)]
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-6, atol=1e-9)
    assert not torch.allclose(together[1], explained(name, model, x, options={"baseline": starts[0]}).map[1])


@needs_captum
@pytest.mark.parametrize("name", [name for name in NAMES if "chunk" in facts.options(DELEGATES[name].function)])
def test_the_chunk_changes_nothing(name):
    one, many = (explained(name, options={"chunk": chunk}).map for chunk in (1, 7))
    torch.testing.assert_close(one, many, rtol=1e-6, atol=1e-9)


@needs_captum
@pytest.mark.parametrize("name", list(QUICK))
def test_the_seed_decides(name):
    one, same_seed, other = (explained(name, options={"seed": seed}).map for seed in (3, 3, 4))
    assert torch.equal(one, same_seed)
    assert not torch.allclose(one, other)


@needs_captum
@pytest.mark.parametrize("name", NAMES)
def test_what_else_the_model_takes_follows_the_images(name):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, scale, *, shift):
            return scale[:, None] * self.net(x) + shift[:, None]

    x, scale = images(3), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    extra = {"args": [scale], "kwargs": {"shift": torch.zeros(3, dtype=torch.float64)}}
    found = explained(name, Two(), x, **extra).map
    plain = explained(name, net(), x).map
    power = 2 if name == "captum:lrp" else 1  # Captum has no rule for a product that is no layer's
    torch.testing.assert_close(found, scale[:, None, None] ** power * plain, rtol=1e-3, atol=0.02)


@needs_captum
def test_several_questions_and_methods_beside_ours():
    methods = ["captum:deep_lift", "integrated_gradients", "captum:lrp"]
    model, x = linear(), images()
    grid = seewhy.compare(model, x, targets=[0, seewhy.Logit(1) - seewhy.Logit(2)], methods=methods)
    for n in range(2):
        for m in (1, 2):
            torch.testing.assert_close(grid[3 * n].map, grid[3 * n + m].map, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(grid[0].map, grid[3].map)


@needs_captum
def test_relevance_of_a_difference_is_the_difference_of_relevances():
    one, two = (explained("captum:lrp", target=n).map for n in (1, 2))
    both = explained("captum:lrp", target=seewhy.Logit(1) - 2 * seewhy.Logit(2)).map
    torch.testing.assert_close(both, one - 2 * two, rtol=1e-6, atol=1e-6)


@needs_captum
def test_where_gradients_are_off_and_in_inference_mode():
    model = net()
    expected = explained("captum:deep_lift", model).map
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(explained("captum:deep_lift", model).map, expected)


@pytest.mark.parametrize("name", NAMES)
def test_rows_say_what_a_reader_needs(name):
    row = DELEGATES[name]
    assert row.name == name
    assert row.family == "captum"
    assert facts.needs(row.function) == ("inputs", "scorer")
    assert row.class_specific
    assert "forward" in row.cost
    assert 0 < len(row.weakness) <= 110


# The fact


def test_the_scorer_is_the_model_and_the_question():
    given = {}

    def spy(scorer, inputs):
        given["scorer"] = scorer
        return inputs[:, 0]

    model, x = net(), images()
    seewhy.explain(model, x, [1, 3], spy)
    scorer, rows = given["scorer"], torch.tensor([1, 0, 1])
    expected = model(2 * x[rows])[torch.arange(3), torch.tensor([3, 1, 3])]
    leaf = (2 * x[rows]).requires_grad_()
    torch.testing.assert_close(scorer(leaf, rows), expected)
    assert scorer(leaf, rows).requires_grad
    with torch.no_grad():
        assert not scorer(leaf, rows).requires_grad
    apart = scorer.apart()
    torch.testing.assert_close(apart(leaf, rows), expected)
    assert {id(part) for part in apart.modules()}.isdisjoint(map(id, model.modules()))
    assert {id(part) for part in apart.parameters()}.isdisjoint(map(id, model.parameters()))
