"""Our own presets: the combination by hand, what they fall back to, and which layers they take by themselves."""

import math

import pytest
import torch
from torch import nn

import seewhy
from seewhy.methods import grad_cam, layer_cam, sharp
from seewhy.tensor import unit


def facts(grids=((8, 6), (4, 3)), seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    activations = [draw(2, 3, *grid).relu() for grid in grids]
    gradients = [draw(2, 3, *grid) + 0.3 for grid in grids]
    ways = [draw(8 * 6, math.prod(grid)).abs() for grid in grids]
    upsample = [lambda map, way=way: (map.flatten(1) @ way.mT).reshape(-1, 8, 6) for way in ways]
    return activations, gradients, upsample


def test_sharp_is_the_geometric_mean_pixel_by_pixel():
    activations, gradients, upsample = facts()
    found = sharp(activations, gradients, upsample)
    fine = upsample[0](layer_cam(activations[0], gradients[0]))
    last = upsample[1](grad_cam(activations[1], gradients[1]))
    for image in range(2):
        for row in range(8):
            for column in range(6):
                a = float(fine[image, row, column] / fine[image].max())
                b = float(last[image, row, column] / last[image].max())
                assert float(found[image, row, column]) == pytest.approx(math.sqrt(a * b), rel=1e-10)
    assert found.max() > 0.2


def test_sharp_of_one_layer_is_grad_cam():
    activations, gradients, upsample = (part[1:] for part in facts())
    expected = unit(upsample[0](grad_cam(activations[0], gradients[0])))
    torch.testing.assert_close(sharp(activations, gradients, upsample), expected)


def net(stride):
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU6()),
        *(nn.Conv2d(8, 8, 3, stride, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    ).eval()


@pytest.mark.filterwarnings("ignore::seewhy.MapWarning")  # on random weights some maps are zero
def test_sharp_looks_at_two_layers_where_the_last_grid_is_coarse_and_at_one_where_it_is_fine():
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    coarse, fine = seewhy.explain(net(2), images, 1, "sharp"), seewhy.explain(net(1), images, 1, "sharp")
    assert coarse.layers == ("4", "6")
    assert fine.layers == ("6",)
    assert coarse.units == fine.units == "relative"
    assert any("the deepest rectified tensor of 16x16, twice the last grid" in note for note in coarse.notes)
    assert seewhy.explain(net(2), images, 1, "sharp", layer=["1", "6"]).layers == ("1", "6")


# Ensembles around any method


def test_an_ensemble_is_the_mean_of_the_maps_of_the_changed_images_brought_back():
    torch.manual_seed(0)
    model, images = net(1), torch.randn(2, 3, 32, 32)
    found = seewhy.explain(model, images, 1, "hires_cam", rectify=False, ensemble=seewhy.Flips())
    plain = seewhy.explain(model, images, 1, "hires_cam", rectify=False).map
    flipped = seewhy.explain(model, images.flip(-1), 1, "hires_cam", rectify=False).map.flip(-1)
    torch.testing.assert_close(found.map, (plain + flipped) / 2)
    assert tuple(found.raw) == ("image",)
    assert found.layers == ("6",)
    assert "mean of the maps under Flips(axes=(-1,))" in found.notes
    alone = seewhy.explain(model, images, 1, "hires_cam", rectify=False, ensemble=[seewhy.Flips()], combine="variance")
    torch.testing.assert_close(alone.map, ((plain - flipped) / 2).square())


def test_an_ensemble_of_sizes_finds_the_same_layers_at_each():
    torch.manual_seed(0)
    model, images = net(2), torch.randn(1, 3, 32, 32)
    layers = ["4", "6"]
    found = seewhy.explain(model, images, 1, "layer_cam", layer=layers, ensemble=seewhy.Scales((1.0, 2.0)))
    larger = nn.functional.interpolate(images, scale_factor=2, mode="bilinear")
    at_two = seewhy.explain(model, larger, 1, "layer_cam", layer=layers).map[:, None]
    back = nn.functional.interpolate(at_two, scale_factor=0.5, mode="bilinear", antialias=True)[:, 0]
    expected = (seewhy.explain(model, images, 1, "layer_cam", layer=layers).map + back) / 2
    torch.testing.assert_close(found.map, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::seewhy.MapWarning")  # on random weights some maps are zero
def test_best_is_sharp_over_flips_and_two_sizes():
    torch.manual_seed(2)
    model, images = net(2), torch.randn(2, 3, 32, 32)
    layers, changes = ["4", "6"], [seewhy.Flips((-1,)), seewhy.Scales((1.0, 2.0))]
    found = seewhy.explain(model, images, 1, "best")
    assert found.layers == ("4", "6")
    torch.testing.assert_close(found.map, seewhy.explain(model, images, 1, "sharp", layer=layers, ensemble=changes).map)
    assert not torch.allclose(found.map, seewhy.explain(model, images, 1, "sharp").map)
    several = seewhy.compare(model, images, [1, 2], ["best", "sharp", "eigen_cam"])
    torch.testing.assert_close(several[0].map, found.map)
    torch.testing.assert_close(several[4].map, seewhy.explain(model, images, 2, "sharp").map)


def test_classes_stay_those_of_the_clean_images():
    torch.manual_seed(0)
    model, images = net(1), torch.randn(3, 3, 32, 32)
    noisy = seewhy.explain(model, images, ensemble=seewhy.Noise(4, 3.0))
    assert noisy.class_indices == tuple(model(images).argmax(1).tolist())
    named = seewhy.explain(model, images, list(noisy.class_indices), ensemble=seewhy.Noise(4, 3.0))
    torch.testing.assert_close(noisy.map, named.map)
