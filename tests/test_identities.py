"""What mathematics says about the methods on networks whose answer is known: float64, plain autograd, several seeds."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from seewhy import methods
from seewhy.facts import needs
from seewhy.registry import METHODS
from seewhy.tensor import first_component, spatial_mean, spatial_sum, unit, weighted_sum

B, C, GRID = 3, 6, (4, 5)
Z = GRID[0] * GRID[1]
CLASSES = torch.tensor([2, 0, 3])
Tail = Callable[[Tensor], Tensor]

pytestmark = pytest.mark.parametrize("seed", range(5))


@pytest.fixture(autouse=True)
def seeded(seed: int):
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Facts(NamedTuple):
    """Activations, the score's gradients with respect to them, and the score of each image."""

    activations: Tensor
    gradients: Tensor
    scores: Tensor


def observe(tail: Tail, activations: Tensor, pick: Callable[[Tensor], Tensor] | None = None) -> Facts:
    """Facts of a network's tail; the score is the logit of each image's class unless `pick` says otherwise."""
    leaf = activations.clone().requires_grad_()
    output = tail(leaf)
    scores = pick(output) if pick else output[torch.arange(len(output)), CLASSES]
    return Facts(activations, torch.autograd.grad(scores.sum(), leaf)[0], scores.detach())


def rectified(c: int = C) -> Tensor:
    return torch.randn(B, c, *GRID).relu()


def pooled() -> tuple[nn.Linear, Facts]:
    """Global average pooling and one linear layer."""
    linear = nn.Linear(C, 4)
    return linear, observe(lambda a: linear(spatial_mean(a)), rectified())


def flattened(activations: Tensor) -> tuple[nn.Linear, Facts]:
    """One linear layer on the flattened activations: every place has weights of its own."""
    linear = nn.Linear(C * Z, 4)
    return linear, observe(lambda a: linear(a.flatten(1)), activations)


def close(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))


def far(actual: Tensor, wanted: Tensor, relative: float = 0.01) -> bool:
    return bool((actual - wanted).norm() > relative * wanted.norm())


def maps(facts: Facts, *names: str) -> dict[str, Tensor]:
    """Maps of the gradient methods, with their defaults."""
    asked = ("activations", "gradients")
    every = [name for name, row in METHODS.items() if needs(row.function) == asked and not row.batchwise]
    return {name: METHODS[name].function(facts.activations, facts.gradients) for name in names or every}


# 1, 2: global average pooling and one linear layer


def test_on_a_pooled_head_the_signed_maps_are_cam_over_the_number_of_places() -> None:
    linear, (A, g, y) = pooled()
    cam = methods.cam(A, linear.weight[CLASSES].detach())
    for map in (methods.grad_cam(A, g, rectify=False), methods.hires_cam(A, g), methods.xgrad_cam(A, g)):
        close(Z * map, cam)
        close(map.flatten(1).sum(1) + linear.bias[CLASSES].detach(), y)
    assert (cam < 0).any()
    close(Z * methods.grad_cam(A, g), cam.relu())
    close(cam.flatten(1).mean(1) + linear.bias[CLASSES].detach(), y)


def test_on_a_pooled_head_layer_cam_is_cam_of_the_positive_weights() -> None:
    linear, (A, g, _) = pooled()
    weights = linear.weight[CLASSES].detach()
    close(Z * methods.layer_cam(A, g), methods.cam(A, weights.relu()))
    assert far(Z * methods.layer_cam(A, g), methods.cam(A, weights, rectify=True))
    close(methods.layer_cam(A, g), methods.grad_cam_elementwise(A, g))


def test_on_a_pooled_head_grad_cam_pp_has_its_closed_weights() -> None:
    linear, (A, g, _) = pooled()
    slope = linear.weight[CLASSES].detach() / Z
    paper = Z * slope.relu() / (2 + slope.relu() * spatial_sum(A))
    close(methods.grad_cam_pp(A, g), weighted_sum(paper, A))
    close(methods.grad_cam_pp(A, g, alpha_normalize=True), weighted_sum(spatial_mean(g).relu(), A))


# Grad-CAM++'s derivation


def test_grad_cam_pp_is_the_closed_form_of_the_derivatives_of_exp_y() -> None:
    A = torch.rand(1, 2, 2, 2)
    head = nn.Sequential(nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 1))
    leaf = A.clone().requires_grad_()
    first = torch.autograd.grad(head(leaf).exp().sum(), leaf, create_graph=True)[0]
    alphas = torch.zeros(8)
    for place in range(8):
        second = torch.autograd.grad(first.flatten()[place], leaf, create_graph=True)[0].flatten()[place]
        third = torch.autograd.grad(second, leaf, retain_graph=True)[0].flatten()[place]
        total = A[0, place // 4].sum()
        alphas[place] = (second / (2 * second + total * third)).detach() if first.flatten()[place] > 0 else 0
    weights = spatial_sum(alphas.reshape(A.shape) * first.detach().relu())
    facts = observe(head, A, lambda output: output[:, 0])
    close(methods.grad_cam_pp(A, facts.gradients) * facts.scores.exp(), weighted_sum(weights, A).relu())


# 3, 4, 5: completeness


def test_on_a_flattened_head_hires_cam_is_complete_and_each_value_is_the_drop_of_its_place() -> None:
    A = torch.randn(B, C, *GRID)
    linear, (_, g, y) = flattened(A)
    map = methods.hires_cam(A, g)
    close(map.flatten(1).sum(1) + linear.bias[CLASSES].detach(), y)
    for i, j in [(0, 0), (1, 3), (3, 4)]:
        without = A.clone()
        without[:, :, i, j] = 0
        close(map[:, i, j], y - linear(without.flatten(1))[torch.arange(B), CLASSES].detach())


def test_on_a_flattened_head_grad_cam_is_not_complete() -> None:
    linear, (A, g, y) = flattened(rectified())
    for map in (methods.grad_cam(A, g, rectify=False), methods.grad_cam(A, g), methods.grad_cam_pp(A, g)):
        assert far(map.flatten(1).sum(1) + linear.bias[CLASSES].detach(), y, 0.1)


def test_on_a_flattened_head_xgrad_cam_conserves_the_score_and_feels_each_channel() -> None:
    linear, (A, g, y) = flattened(rectified())
    close(methods.xgrad_cam(A, g).flatten(1).sum(1) + linear.bias[CLASSES].detach(), y)
    for k in range(C):
        only = torch.zeros_like(A)
        only[:, k] = A[:, k]
        dropped = linear((A - only).flatten(1))[torch.arange(B), CLASSES].detach()
        close(methods.xgrad_cam(only, g).flatten(1).sum(1), y - dropped)


def test_on_a_rectified_head_hires_cam_and_the_active_biases_sum_to_the_score() -> None:
    A = torch.randn(B, C, *GRID)
    hidden, last = nn.Linear(C * Z, 7), nn.Linear(7, 4)
    _, g, y = observe(lambda a: last(hidden(a.flatten(1)).relu()), A)
    active = (hidden(A.flatten(1)) > 0).to(A)
    biases = ((last.weight[CLASSES] * active) @ hidden.bias + last.bias[CLASSES]).detach()
    close(methods.hires_cam(A, g).flatten(1).sum(1) + biases, y)
    assert far(y - biases, y)


def test_in_a_bias_free_network_hires_cam_is_complete_at_every_layer() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, stride=2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 5 * 5, 9, bias=False),
        nn.ReLU(),
        nn.Linear(9, 4, bias=False),
    )
    x = torch.randn(B, 3, 22, 22)
    for depth in range(6):
        A = layers[:depth](x).detach() if depth else x
        _, g, y = observe(layers[depth:], A)
        close(methods.hires_cam(A, g).flatten(1).sum(1), y)


# 8: probabilities


def test_of_two_classes_the_probability_has_the_map_of_the_difference_of_logits() -> None:
    linear = nn.Linear(C * Z, 2)

    def tail(a: Tensor) -> Tensor:
        return linear(a.flatten(1))

    A = rectified()
    odds = observe(tail, A, lambda output: output[:, 1] - output[:, 0])
    likely = observe(tail, A, lambda output: output.softmax(1)[:, 1])
    p = odds.scores.sigmoid()
    close(likely.gradients, (p * (1 - p)).reshape(-1, 1, 1, 1) * odds.gradients)
    for name, map in maps(likely).items():
        if name != "grad_cam_pp":
            close(unit(map), unit(maps(odds, name)[name]))


def test_a_saturated_probability_leaves_hardly_any_gradient() -> None:
    linear = nn.Linear(C * Z, 2)
    nn.init.constant_(linear.bias[1:], 40.0)
    facts = observe(lambda a: linear(a.flatten(1)), rectified(), lambda output: output.softmax(1)[:, 1])
    assert facts.gradients.abs().max() < 1e-14 * linear.weight.abs().max()


# 9: the same function, written otherwise


def test_rescaled_channels_change_eigen_cam_alone() -> None:
    hidden, last = nn.Linear(C * Z, 7), nn.Linear(7, 4)
    A, scale = rectified(), torch.empty(1, C, 1, 1).uniform_(0.2, 5)

    def tail(a: Tensor) -> Tensor:
        return last(hidden(a.flatten(1)).relu())

    before, after = observe(tail, A), observe(lambda a: tail(a / scale), A * scale)
    close(after.scores, before.scores)
    rescaled = maps(after)
    for name, map in maps(before).items():
        close(rescaled[name], map)
    # Eigen-Grad-CAM sees only g * A, in which the scale cancels: Eigen-CAM is the one that changes
    assert far(unit(methods.eigen_cam(after.activations)), unit(methods.eigen_cam(before.activations)))


def test_a_scaled_score_scales_every_map_but_that_of_grad_cam_pp() -> None:
    _, (A, g, _) = flattened(rectified())
    doubled = maps(Facts(A, 2 * g, torch.zeros(B)))
    for name, map in maps(Facts(A, g, torch.zeros(B))).items():
        if name == "grad_cam_pp":
            assert far(unit(doubled[name]), unit(map), 1e-3)
        else:
            close(doubled[name], 2 * map)
    normalized = [methods.grad_cam_pp(A, s * g, alpha_normalize=True) for s in (1, 2)]
    assert far(unit(normalized[1]), unit(normalized[0]), 1e-3)


# 10: principal components


def test_eigen_cam_of_rectified_activations_has_one_sign_and_the_norm_sigma_1() -> None:
    A = rectified()
    map = methods.eigen_cam(A)
    assert map.min() > -1e-12
    close(map.flatten(1).norm(dim=1), torch.linalg.matrix_norm(A.flatten(2), 2))
    close(methods.eigen_cam(-A), map)


def test_centered_eigen_cam_sums_to_zero_and_goes_with_the_mean_activation() -> None:
    A = rectified()
    map = methods.eigen_cam(A, center=True)
    close(map.flatten(1).sum(1) + map.flatten(1).norm(dim=1), map.flatten(1).norm(dim=1))
    mean = A.mean(1) - A.flatten(1).mean(1).reshape(-1, 1, 1)
    assert ((map * mean).flatten(1).sum(1) > 0).all()
    close(methods.eigen_cam(A + torch.randn(B, C, 1, 1).abs(), center=True), map)
    assert far(methods.eigen_cam(A + 1), methods.eigen_cam(A))


def test_a_bright_blob_stays_bright_in_both_eigen_maps() -> None:
    A = 0.05 * torch.rand(B, C, *GRID)
    A[:, :, 1:3, 2:4] += 1 + torch.rand(B, C, 1, 1)
    for center in (False, True):
        map = methods.eigen_cam(A, center=center)
        assert map[:, 1:3, 2:4].min() > map[:, 0].max()


def test_the_first_component_of_one_pattern_is_that_pattern() -> None:
    pattern, strengths = torch.rand(B, *GRID), torch.rand(B, C) + 0.1
    A = torch.einsum("bc,bhw->bchw", strengths, pattern)
    close(first_component(A, False), pattern * strengths.norm(dim=1).reshape(-1, 1, 1))


# 11: the wall


def test_behind_a_wall_hires_cam_and_layer_cam_see_nothing_and_the_averaging_methods_do() -> None:
    linear = nn.Linear(C * Z, 4)
    below = torch.zeros(GRID, dtype=torch.bool)
    below[2:] = True
    with torch.no_grad():
        linear.weight.reshape(4, C, *GRID)[:, :, below] = 0
    facts = observe(lambda a: linear(a.flatten(1)), rectified())
    changed = facts.activations.clone()
    changed[:, :, below] = 9
    close(linear(changed.flatten(1)).detach(), linear(facts.activations.flatten(1)).detach())
    for name, map in maps(facts).items():
        share = map.relu()[:, below].sum() / map.relu().sum()
        if name in ("grad_cam", "grad_cam_pp", "xgrad_cam"):
            assert share > 0.2, name
        elif name == "eigen_grad_cam":
            assert share < 1e-14
        else:
            assert (map[:, below] == 0).all(), name


# 14: symmetry


def test_in_a_network_that_does_not_know_left_from_right_a_mirrored_image_gives_the_mirrored_map() -> None:
    conv, linear = nn.Conv2d(3, C, 3, padding=1), nn.Linear(C, 4)
    with torch.no_grad():
        conv.weight += conv.weight.flip(-1)
    x = torch.randn(B, 3, 7, 7)

    def explained(images: Tensor, name: str) -> Tensor:
        A = conv(images).relu().detach()
        return maps(observe(lambda a: linear(a.square().flatten(2).mean(-1)), A), name)[name]

    for name in maps(pooled()[1]):
        close(explained(x.flip(-1), name), explained(x, name).flip(-1))
