"""Regression: the number itself, higher, lower, or nearer to a value; checked by hand in float64."""

import pytest
import torch
from torch import nn

import seewhy
from seewhy import TargetError, Value
from seewhy.targets.value import Number

NAMES = ("age", "height", "weight")


class Regressor(nn.Module):
    """A feature map, its mean and a line, with `numbers` outputs; none for a vector of one number for each image."""

    def __init__(self, numbers=3, end=None):
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.line, self.numbers, self.end = nn.Linear(8, numbers or 1), numbers, end

    def forward(self, x):
        y = self.line(self.features(x).mean((2, 3)).tanh())
        y = y if self.end is None else self.end(y)
        return y if self.numbers else y[:, 0]


def regressor(**given):
    return Regressor(**given).double().eval()


def images(count=2):
    return torch.randn(count, 1, 16, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


SIGNED = {"method": "hires_cam", "rectify": False}


@pytest.mark.parametrize("numbers", [None, 1, 3])
def test_higher_and_lower_are_the_gradient_and_its_negative(numbers):
    model, x = regressor(numbers=numbers), images()
    features = model.features(x).detach().requires_grad_()
    y = model.line(features.mean((2, 3)).tanh())[:, 0]
    (gradients,) = torch.autograd.grad(y.sum(), features)
    expected = (gradients * features.detach()).sum(1)
    higher, lower = (seewhy.explain(model, x, target, **SIGNED) for target in (Value(), -Value()))
    torch.testing.assert_close(higher.raw["features"], expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(lower.raw["features"], -expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(higher.scores, y.detach())
    assert float(expected.abs().max()) > 0


def test_towards_a_value_is_up_below_it_and_down_above_it():
    model, x = regressor(), images()
    with torch.no_grad():
        y = model(x)[:, 1]
    own = seewhy.explain(model, x, Value("height", towards=[float(y[0]) + 2, float(y[1]) - 3]), labels=NAMES, **SIGNED)
    up, down = (seewhy.explain(model, x, sign * Value(1), **SIGNED).map for sign in (1, -1))
    torch.testing.assert_close(own.map, torch.stack([up[0], down[1]]))
    torch.testing.assert_close(own.scores, torch.tensor([-2.0, -3.0], dtype=torch.float64))
    assert own.target[0] == f"height towards {float(y[0]) + 2:g}"


@pytest.mark.parametrize(
    "method", ["score_cam", "occlusion", "ablation_cam", "rise", "grad_cam", "integrated_gradients"]
)
def test_changed_copies_are_asked_the_same(method):
    model, x = regressor(), images()
    signed = {name: {"rectify": False} for name in ("score_cam", "ablation_cam", "grad_cam")}
    further = {"rise": {"masks": 12}, "occlusion": {"patch": 8, "stride": 4}}
    how = {"method": method, "options": (further | signed).get(method)}
    if method == "occlusion":
        how["rectify"] = False  # what it gives for the second image is below zero
    own = seewhy.explain(model, x, Value([2, 0], towards=[0.1, 5.0]), **how)

    def by_hand(output, rows):
        return -(output[torch.arange(len(rows)), torch.tensor([2, 0])[rows]] - torch.tensor([0.1, 5.0])[rows]).abs()

    hand = seewhy.explain(model, x, by_hand, **how)
    torch.testing.assert_close(own.map, hand.map, rtol=1e-6, atol=1e-9)  # 0.1 has other digits in single precision
    assert float(own.map.abs().max()) > 0


@pytest.mark.parametrize("towards", [None, (0.3, -0.2)])
@pytest.mark.parametrize("shape", [(3, 4), (3,)])
def test_what_is_told_of_the_gradient_is_autograd_s(shape, towards):
    y = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    number, rows = Number((0, 0) if len(shape) == 1 else (1, 3), towards), torch.tensor([1, 0, 1])
    (expected,) = torch.autograd.grad(number(y, rows).sum(), y)
    assert number.gradient(y, rows)[0] == ()
    torch.testing.assert_close(number.gradient(y, rows)[1], expected)
    assert expected.abs().sum() == 3


def test_a_bounded_number_is_read_as_it_is_not_as_a_probability():
    model, x = regressor(numbers=1, end=nn.Sigmoid()), images()
    e = seewhy.explain(model, x, Value())
    with torch.no_grad():
        torch.testing.assert_close(e.scores, model(x)[:, 0])
    assert not any("probabilities" in note for note in e.notes)


def test_numbers_are_named_and_add():
    model, x = regressor(), images()
    both = seewhy.explain(model, x, Value("age") - 0.5 * Value("weight"), labels=NAMES, **SIGNED)
    with torch.no_grad():
        y = model(x)
    torch.testing.assert_close(both.scores, y[:, 0] - 0.5 * y[:, 2])
    assert both.target[0] == "age - 0.5 weight"
    assert seewhy.explain(model, x, Value(2)).target == ("value 2", "value 2")


def test_levels_of_cumulative_logits():
    """As docs/questions/regression.md says: a level is one of the numbers, the expected level their sigmoids' sum."""
    model, x = regressor(), images()
    with torch.no_grad():
        y = model(x)
    torch.testing.assert_close(seewhy.explain(model, x, Value(1)).scores, y[:, 1])
    expected = seewhy.explain(model, x, lambda output: output.sigmoid().sum(1))
    torch.testing.assert_close(expected.scores, y.sigmoid().sum(1))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Value(3), r"value 3 is out of range; the model puts out 3 numbers for each image: indices 0 to 2"),
        (Value("wage"), r"no label 'wage'; closest 'age' \(0\); give a label or an index from 0 to 2"),
        (Value([0, 1, 2]), r"got 3 indices for 2 images; give one for all, or exactly one for each"),
        (Value(towards=[1.0, 2.0, 3.0]), r"got 3 values to go towards for 2 images"),
    ],
)
def test_numbers_that_are_not_there(target, message):
    with pytest.raises(TargetError, match=message):
        seewhy.explain(regressor(), images(), target, labels=NAMES)


def test_a_name_where_the_model_has_none():
    with pytest.raises(TargetError, match=r"got the label 'age', but this model comes without labels; pass labels="):
        seewhy.explain(regressor(), images(), Value("age"))


def test_a_value_that_is_reached():
    model, x = regressor(), images()
    with torch.no_grad():
        y = float(model(x)[1, 0])
    with pytest.raises(TargetError, match=r"image 1 is at .* already, where nothing brings it nearer; ask Value\(\)"):
        seewhy.explain(model, x, Value(towards=y))
    own = seewhy.explain(model, x, [Value(towards=y), Value()])  # asked of the other image only
    assert own.scores[0] < 0


def test_a_number_of_a_segmentation():
    dense = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    with pytest.raises(TargetError, match=r"a number was asked for, but the scores have the shape .* ask Region\(\)"):
        seewhy.explain(dense, images(), Value())


@pytest.mark.parametrize("towards", [float("nan"), float("inf"), True])
def test_a_value_that_is_no_number(towards):
    with pytest.raises(TargetError, match=r"got (nan|inf|True) to go towards; give a finite number, in the unit of"):
        Value(towards=towards)
