"""Where cells look: exact on nets whose cell centers are known, the usual upsampling where nothing says otherwise."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import get_gradient_edge

from seewhy.model import alignment
from seewhy.model.alignment import Placement, analytic, measured, probe, tile
from seewhy.tensor import resize

DOUBLE = torch.float64


def recorded(net, size, *, channels=1, value=None):
    """The leaf, the output and its edge of one pass on noise."""
    leaf = torch.randn(1, channels, *size, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    leaf = (leaf if value is None else torch.full_like(leaf, value)).requires_grad_()
    output = net(leaf.clone())
    return leaf, output, get_gradient_edge(output)


def place(edge, shape, leaf, grid, *to_cells):
    """As a layer of this grid is laid: where arithmetic knows nothing, as tiles."""
    reckoned = analytic(edge, leaf, grid)
    return (
        alignment.place(edge, shape, leaf, grid, reckoned, *to_cells) if reckoned else tile(grid, tuple(leaf.shape[2:]))
    )


def seen_centers(leaf, output):
    """By brute force, axis by axis: the middle of the pixels that each cell's gradient reaches."""
    centers = []
    for axis in range(2, output.ndim):
        found = []
        for cell in range(output.shape[axis]):
            picked = output.sum((0, 1)).movedim(axis - 2, 0)[cell].sum()
            (gradient,) = torch.autograd.grad(picked, leaf, retain_graph=True)
            lit = gradient[0, 0].movedim(axis - 2, 0).flatten(1).abs().sum(1).nonzero().flatten()
            found.append((int(lit.min()), int(lit.max())))
        centers.append(found)
    return centers


def positive(*layers):
    """The layers with all weights one: no gradient cancels, so that every reachable pixel is seen."""
    net = nn.Sequential(*layers).double()
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    return net


def conv(kernel=3, stride=1, padding=0, dilation=1, bias=False):
    return nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=bias)


# ---- tiles


@pytest.mark.parametrize(
    ("grid", "size"),
    [((5,), (40,)), ((7, 7), (224, 224)), ((13, 9), (224, 65)), ((1, 4), (9, 30)), ((2, 3, 4), (9, 12, 8))],
)
def test_tiles_are_the_usual_linear_upsampling(grid, size):
    map = torch.randn(2, *grid, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    expected = F.interpolate(map[:, None], size, mode=mode, align_corners=False)[:, 0]
    placed = resize(map, tile(grid, size).matrices(size, grid, dtype=DOUBLE))
    torch.testing.assert_close(placed, expected, rtol=0, atol=1e-12)


def test_a_placement_puts_each_cell_exactly_where_it_looks():
    placement = Placement((3.0, 10.0), (8.0, 5.0), "analytic")
    map = torch.zeros(1, 4, 5, dtype=DOUBLE)
    map[0, 2, 1] = 1
    placed = resize(map, placement.matrices((32, 40), (4, 5), dtype=DOUBLE))[0]
    assert placed[3 + 2 * 8, 10 + 5] == 1
    assert placed[3 + 2 * 8 + 4, 10 + 5] == pytest.approx(0.5, abs=1e-12)
    assert placed.sum() == pytest.approx(8 * 5, abs=1e-9)


def test_the_shift_is_that_of_the_middle_of_the_grid():
    assert tile((7, 6), (224, 100)).shift((224, 100), (7, 6)) == pytest.approx((0, 0), abs=1e-12)
    assert Placement((0.0,), (32.0,), "analytic").shift((224,), (7,)) == (-15.5,)


# ---- receptive fields by arithmetic


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "pooling"),
    list(product((1, 2, 3, 5), (1, 2, 3), (0, 1), (1, 2), (None, (2, 2, 0), (3, 2, 1)))),
)
def test_arithmetic_equals_the_pixels_that_a_gradient_reaches(kernel, stride, padding, dilation, pooling):
    padding = min(padding, kernel // 2)
    layers = [conv(kernel, stride, padding, dilation), nn.ReLU(), conv(3, 2, 0)]
    leaf, output, edge = recorded(
        positive(*layers, *([nn.AvgPool2d(*pooling)] if pooling else [])), (61, 61), value=1.0
    )
    found = analytic(edge, leaf, output.shape[2:])
    for axis, cells in enumerate(seen_centers(leaf, output)):
        widest = max(high - low for low, high in cells)
        whole = [(cell, ends) for cell, ends in enumerate(cells) if ends[1] - ends[0] == widest]
        for cell, (low, high) in whole:
            assert found.offset[axis] + found.stride[axis] * cell == (low + high) / 2


class Lopsided(nn.Module):
    """TensorFlow's padding, a skip path, a squeeze-and-excitation gate, a concatenation and a focus slice."""

    def __init__(self):
        super().__init__()
        self.stem, self.skip, self.gate = conv(3, 2), conv(1, 2), conv(1)
        self.left, self.right = conv(3, padding=1), conv(5, padding=2)

    def forward(self, x):
        x = x[..., 1::2, :]
        x = self.stem(F.pad(x, (1, 0, 0, 1))) + self.skip(x)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        return torch.cat([self.left(x), self.right(x)], 1).relu()


def test_arithmetic_follows_padding_slices_joins_and_ignores_gates():
    leaf, output, edge = recorded(positive(Lopsided()), (64, 40))
    # rows: slice j is row 2 j + 1, cell i of the stem reads slices 2 i .. 2 i + 2; columns: 2 i - 1 .. 2 i + 1
    found = analytic(edge, leaf, output.shape[2:])
    assert found == Placement((3.0, 0.0), (4.0, 2.0), "analytic")


def test_arithmetic_takes_frozen_and_learning_weights_alike():
    net = positive(conv(3, 2, 1), nn.BatchNorm2d(1), conv(3, 2, 1)).eval()
    open_, frozen = recorded(net, (33, 33)), recorded(net.requires_grad_(False), (33, 33))
    assert (
        analytic(open_[2], open_[0], (9, 9))
        == analytic(frozen[2], frozen[0], (9, 9))
        == Placement((0.0, 0.0), (4.0, 4.0), "analytic")
    )


@pytest.mark.parametrize(("word", "pixels"), [("valid", 0), ("same", (2, 2))])
def test_padding_may_be_a_word(word, pixels):
    placements = []
    for padding in (word, pixels):
        net = nn.Sequential(conv(3, 1, 1), nn.Conv2d(1, 2, (5, 3), padding=padding, dilation=(1, 2))).double()
        leaf, output, edge = recorded(net, (24, 30))
        placements.append(analytic(edge, leaf, output.shape[2:]))
    assert placements[0] == placements[1] is not None


@pytest.mark.parametrize("pool", [nn.MaxPool1d, nn.AvgPool1d])
def test_arithmetic_in_one_dimension(pool):
    net = nn.Sequential(nn.Conv1d(1, 2, 5, 2), nn.BatchNorm1d(2), nn.ReLU(), pool(2)).double().eval()
    leaf, output, edge = recorded(net, (50,))
    assert analytic(edge, leaf, output.shape[2:]) == Placement((3.0,), (4.0,), "analytic")


def test_arithmetic_in_three_dimensions():
    net = nn.Sequential(nn.Conv3d(1, 2, 3, (1, 2, 2), 1), nn.MaxPool3d((1, 2, 2))).double()
    leaf, output, edge = recorded(net, (6, 16, 20))
    assert analytic(edge, leaf, output.shape[2:]) == Placement((0.0, 1.0, 1.0), (1.0, 4.0, 4.0), "analytic")


PATHS = {
    "pooling that strides by its kernel": (lambda x: F.avg_pool2d(x, 4), (1.5, 1.5), (4.0, 4.0)),
    "the last rows": (lambda x: x[:, :, -12::3], (4.0, 0.0), (3.0, 1.0)),
    "cropped by negative padding": (lambda x: F.pad(x, (-3, -1, 0, 2)), (0.0, 3.0), (1.0, 1.0)),
    "reflected": (lambda x: F.pad(x, (1, 2, 3, 4), mode="reflect"), (-3.0, -1.0), (1.0, 1.0)),
    "channels shuffled": (
        lambda x: x.unflatten(1, (4, 4)).transpose(-4, -3).flatten(1, 2).permute(0, 1, -2, -1),
        (0.0, 0.0),
        (1.0, 1.0),
    ),
    "weights from the picture": (lambda x: F.conv2d(x, x[..., 2:5, 2:5], stride=2), (1.0, 1.0), (2.0, 2.0)),
}


@pytest.mark.parametrize("name", PATHS)
def test_arithmetic_knows(name):
    path, offset, stride = PATHS[name]
    leaf, output, edge = recorded(path, (16, 16), channels=16)
    assert analytic(edge, leaf, output.shape[2:]) == Placement(offset, stride, "analytic")


def attend(x):
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).unflatten(2, x.shape[2:])


UNKNOWN = {
    "attention": attend,
    "transposed": lambda x: x.transpose(-2, -1),
    "permuted": lambda x: x.permute(0, 1, -1, -2),
    "channels last": lambda x: x.permute(0, 3, 1, 2),
    "transposed convolution": lambda x: F.conv_transpose2d(x, torch.ones(16, 2, 2, 2, dtype=DOUBLE), stride=2),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x, 3),
    "rolled": lambda x: x.roll(3, 2),
    "flipped": lambda x: x.flip(3),
    "upsampled": lambda x: F.interpolate(x, scale_factor=2.0),
    "strides that differ": lambda x: x[..., ::2, :] + x[..., :8, :],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_arithmetic_gives_up_where_places_are_mixed(name):
    leaf, output, edge = recorded(UNKNOWN[name], (16, 16), channels=16)
    assert analytic(edge, leaf, output.shape[2:]) is None
    assert place(edge, output.shape, leaf, output.shape[2:]) == tile(output.shape[2:], (16, 16))


def test_arithmetic_gives_up_where_the_tensor_is_laid_out_in_another_way():
    leaf, _, edge = recorded(lambda x: F.avg_pool2d(x, 2), (16, 16), channels=8)
    assert analytic(edge, leaf, (8, 8)) == Placement((0.5, 0.5), (2.0, 2.0), "analytic")
    assert analytic(edge, leaf, (4, 8)) is None


def test_arithmetic_gives_up_where_the_grid_is_not_of_the_inputs_rank():
    leaf = torch.randn(1, 1, 64, requires_grad=True)
    output = F.conv2d(leaf[..., None], torch.ones(1, 1, 2, 1), stride=2)
    assert analytic(get_gradient_edge(output), leaf, output.shape[2:]) is None


# ---- measured


def delta(row, column, stride, kernel=7):
    """A convolution that copies the pixel `row, column` of its window, each of three channels its own."""
    layer = nn.Conv2d(3, 3, kernel, stride, groups=3, bias=False).double()
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[:, :, row, column] = 1
    return layer


@pytest.mark.parametrize("size", [(47, 47), (55, 63), (51, 68)])  # odd and even grids
@pytest.mark.parametrize("stride", [4, 5])
@pytest.mark.parametrize(("row", "column"), [(0, 6), (3, 3), (5, 1)])
def test_the_measurement_is_exact_where_a_cell_copies_one_pixel(size, stride, row, column):
    leaf, output, edge = recorded(delta(row, column, stride), size, channels=3)
    grid = output.shape[2:]
    found = measured(edge, output.shape, leaf).shift(size, grid)
    expected = [
        at + stride * (cells - 1) / 2 - (pixels - 1) / 2
        for at, cells, pixels in zip((row, column), grid, size, strict=True)
    ]
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_measurement_keeps_the_distance_of_tiles():
    leaf, output, edge = recorded(delta(2, 2, 4), (47, 47), channels=3)
    found = measured(edge, output.shape, leaf)
    assert (found.kind, found.stride) == ("measured", (47 / 11, 47 / 11))


def test_the_measurement_agrees_with_arithmetic_on_smoothing_windows():
    leaf, output, edge = recorded(positive(conv(5, 2, 1), conv(3, 2, 0)), (64, 64))
    grid = output.shape[2:]
    expected = analytic(edge, leaf, grid).shift((64, 64), grid)
    assert measured(edge, output.shape, leaf).shift((64, 64), grid) == pytest.approx(expected, abs=1e-9)


def test_the_measurement_reads_channels_last_and_tokens():
    net = delta(6, 0, 4)
    leaf, output, edge = recorded(net, (47, 39), channels=3)
    grid = output.shape[2:]
    expected = measured(edge, output.shape, leaf)
    last = net(leaf.clone()).permute(0, 2, 3, 1)
    found = measured(get_gradient_edge(last), last.shape, leaf, lambda raw: raw.movedim(-1, 1))
    assert found.shift((47, 39), grid) == pytest.approx(expected.shift((47, 39), grid))
    tokens = torch.cat([torch.zeros(1, 1, 3, dtype=DOUBLE), net(leaf.clone()).flatten(2).transpose(1, 2)], 1)

    def to_cells(raw):
        return raw[:, 1:].transpose(1, 2).unflatten(2, grid)

    found = measured(get_gradient_edge(tokens), tokens.shape, leaf, to_cells)
    assert found.shift((47, 39), grid) == pytest.approx(expected.shift((47, 39), grid))


def test_channels_that_cancel_are_still_seen():
    leaf, output, edge = recorded(lambda x: F.avg_pool2d(torch.cat([x, -x], 1), 4), (44, 44), channels=3)
    assert measured(edge, output.shape, leaf).kind == "measured"


@pytest.mark.parametrize("factor", [0.0, math.nan])
def test_no_gradient_or_none_that_is_finite_leaves_tiles(factor):
    leaf, output, edge = recorded(lambda x: F.avg_pool2d(x, 4) * factor, (32, 32))
    assert measured(edge, output.shape, leaf) == tile((8, 8), (32, 32))


def test_half_precision_layers_can_be_measured():
    leaf = torch.randn(1, 3, 47, 47, requires_grad=True)
    output = delta(6, 6, 4).to(torch.bfloat16)(leaf.to(torch.bfloat16))
    found = measured(get_gradient_edge(output), output.shape, leaf)
    assert found.shift((47, 47), (11, 11)) == pytest.approx((3, 3), abs=1e-6)


# ---- the rule


def backward_passes(leaf):
    passes = []
    leaf.register_hook(passes.append)
    return passes


def test_a_symmetric_net_costs_no_backward_pass():
    leaf, output, edge = recorded(nn.Sequential(conv(3, 1, 1), nn.MaxPool2d(4), conv(3, 1, 1)).double(), (32, 32))
    passes = backward_passes(leaf)
    assert place(edge, output.shape, leaf, (8, 8)) == tile((8, 8), (32, 32))
    assert not passes


def test_a_lopsided_net_is_measured_once():
    leaf, output, edge = recorded(positive(conv(3, 2, 1), conv(3, 2, 1), conv(3, 2, 1)), (64, 64))
    passes = backward_passes(leaf)
    found = place(edge, output.shape, leaf, (8, 8))
    assert found.kind == "measured"
    assert found.shift((64, 64), (8, 8)) == pytest.approx((-3.5, -3.5), abs=0.3)
    assert len(passes) == 1


def test_a_net_that_has_learnt_to_make_up_for_its_padding_keeps_tiles():
    # windows of 7 pixels, 4 apart, from pixel 0 on: their centers are 1.5 off the tiles', the pixels copied only 0.5
    layer = delta(2, 2, 4)
    leaf, output, edge = recorded(lambda x: layer(F.pad(x, (0, 3, 0, 3))), (48, 48), channels=3)
    assert analytic(edge, leaf, (12, 12)).shift((48, 48), (12, 12)) == (1.5, 1.5)
    assert measured(edge, output.shape, leaf).shift((48, 48), (12, 12)) == pytest.approx((0.5, 0.5), abs=1e-9)
    assert place(edge, output.shape, leaf, (12, 12)) == tile((12, 12), (48, 48))


def test_axes_that_arithmetic_tells_apart_are_treated_apart():
    net = delta(2, 6, 4)
    leaf, output, edge = recorded(lambda x: net(F.pad(x, (0, 3))), (47, 44), channels=3)
    assert measured(edge, output.shape, leaf).shift((47, 44), (11, 11)) == pytest.approx((-1, 4.5), abs=1e-9)
    found = place(edge, output.shape, leaf, (11, 11))
    assert found.shift((47, 44), (11, 11)) == pytest.approx((0, 4.5), abs=1e-9)  # nothing lopsided along the first


def test_cells_of_another_distance_are_not_moved_where_nothing_is_lopsided():
    # a margin of 6 that is never seen, on both sides; the pixel before each window's middle is copied
    net = delta(2, 2, 4)
    leaf, output, edge = recorded(lambda x: net(x[..., 6:-6, 6:-6]), (43, 43), channels=3)
    passes = backward_passes(leaf)
    found = place(edge, output.shape, leaf, (7, 7))
    assert (found.kind, found.stride, found.offset) == ("analytic", (4, 4), (9, 9))
    assert not passes


def test_cells_lie_as_far_apart_as_the_net_strides_where_they_do_not_tile_the_input():
    # each window's third pixel is copied; the net never sees a margin of 6, nor the last 3 pixels
    net = delta(2, 2, 4)
    leaf, output, edge = recorded(lambda x: net(x[..., 6:-6, 6:-6]), (46, 46), channels=3)
    found = place(edge, output.shape, leaf, (7, 7))
    assert found.kind == "measured"
    assert found.stride == (4, 4)
    assert found.offset == pytest.approx((8, 8), abs=1e-9)


def test_cells_along_one_axis_are_measured_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 4, 3, 4, 1), nn.Softplus(), nn.Conv1d(4, 4, 3, 4, 1)).double()
    leaf, output, edge = recorded(net, (64,), channels=3)
    found = place(edge, output.shape, leaf, (4,))
    assert found.kind == "measured"
    assert found.offset == pytest.approx((0,), abs=3)  # its tile is at 7.5


def test_axes_that_arithmetic_cannot_tell_apart_share_their_shift():
    net = delta(6, 4, 4)
    leaf, output, edge = recorded(lambda x: net(F.pad(x, (0, 3, 0, 3))), (44, 44), channels=3)
    assert measured(edge, output.shape, leaf).shift((44, 44), (11, 11)) == pytest.approx((4.5, 2.5), abs=1e-9)
    assert place(edge, output.shape, leaf, (11, 11)).shift((44, 44), (11, 11)) == pytest.approx((3.5, 3.5), abs=1e-9)


# ---- the probe


def test_the_probe_depends_on_the_range_of_the_pictures_alone():
    one, other = torch.rand(4, 3, 9, 9), torch.rand(2, 3, 9, 9) * 0.3
    assert torch.equal(probe(one), probe(other))
    assert torch.equal(probe(one * 255), probe(one) * 255)
    assert float(probe(one).min()) >= 0
    assert float(probe(one).std()) == pytest.approx(1 / math.sqrt(12), rel=0.1)
    assert float(probe(one - 0.5).std()) == pytest.approx(1, rel=0.1)


def test_the_probe_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    probe(torch.zeros(1, 3, 4, 4))
    assert torch.equal(torch.get_rng_state(), before)


# ---- real nets


def test_real_mobilenet_looks_up_and_left_of_its_tiles(shared):
    models = pytest.importorskip("torchvision.models")
    load = pytest.importorskip("safetensors.torch").load_file
    net = models.mobilenet_v2()
    net.load_state_dict(load(shared / "weights" / "mobilenet_v2_imagenet.safetensors"))
    net = net.eval().requires_grad_(False)
    leaf = probe(torch.full((1, 3, 224, 224), -1.0)).requires_grad_()
    features = net.features(leaf)
    found = place(get_gradient_edge(features), features.shape, leaf, (7, 7))
    assert found.kind == "measured"
    # a sweep of the shift on photos with boxes has its best AUROC at -24, within .01 of it from -32 to -16
    assert all(-30 < shift < -15 for shift in found.shift((224, 224), (7, 7)))


def test_real_tokens_look_at_their_patch(shared):
    timm = pytest.importorskip("timm.models.vision_transformer")
    load = pytest.importorskip("safetensors.torch").load_file
    net = timm.VisionTransformer(
        img_size=28, patch_size=4, in_chans=1, num_classes=10, embed_dim=64, depth=4, num_heads=4, mlp_ratio=2.0
    )
    net.load_state_dict(load(shared / "weights" / "vit_tiny_mnist.safetensors"))
    leaf = probe(torch.full((1, 1, 28, 28), -1.0)).requires_grad_()
    tokens = net.eval().forward_features(leaf)

    def to_cells(raw):
        return raw[:, 1:].transpose(1, 2).unflatten(2, (7, 7))

    edge = get_gradient_edge(tokens)
    assert place(edge, tokens.shape, leaf, (7, 7), to_cells) == tile((7, 7), (28, 28))
    drift = measured(edge, tokens.shape, leaf, to_cells).shift((28, 28), (7, 7))
    assert max(map(abs, drift)) < 1  # a quarter of a patch; over 16 draws of noise it was .7 px at most
