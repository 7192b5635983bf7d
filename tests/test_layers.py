"""The automatic layer on hand-made nets, one for each rule, and on real architectures with random weights."""

import gc
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seewhy.model.batch import Batch
from seewhy.model.capture import capture
from seewhy.model.graph import shape_of
from seewhy.model.layers import candidates, choose, resolve
from seewhy.model.memory import Memory
from seewhy.model.tokens import Layout
from seewhy.model.trace import Trace
from seewhy.types import LayerError, ModelError


def traced(model, *shape, select=lambda output: output, **kwargs):
    torch.manual_seed(1)
    return Trace.of(model.eval(), Batch(torch.randn(shape or (1, 3, 32, 32)), kwargs=kwargs), select)


def chosen(model, *shape, **kwargs):
    return choose(traced(model, *shape, **kwargs))


class Net(nn.Module):
    """Modules by name, and a forward that is a function of them and the image."""

    def __init__(self, forward, **modules):
        super().__init__()
        torch.manual_seed(0)
        for name, module in modules.items():
            self.add_module(name, module)
        self.steps = forward

    def forward(self, x):
        return self.steps(self, x)


def conv(inside, outside, kernel=3, stride=1):
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2)


def head(inside=4):
    return nn.Linear(inside, 5)


def pooled(x):
    return x.mean((2, 3))


# the rule for convolutional nets


@pytest.mark.parametrize("inplace", [False, True])
def test_the_rectified_map_ahead_of_the_pooling_is_taken(inplace):
    model = nn.Sequential(
        *(conv(3, 4), nn.ReLU(inplace), nn.MaxPool2d(2), conv(4, 4), nn.ReLU(inplace), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 5)),
    )
    choice = chosen(model)
    assert (choice.name, choice.grid, choice.layout.kind, choice.notes) == ("4", (16, 16), "bc*", ())
    assert choice.reason == "the last 16x16 tensor that all paths from image to score cross; 5 pools it"


def test_cells_replicated_by_the_pooling_are_not_mistaken_for_a_finer_grid():
    model = nn.Sequential(conv(3, 4, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(196, 5))
    choice = chosen(model)
    assert (choice.name, choice.grid) == ("1", (4, 4))


def test_normalisation_and_dropout_count_as_the_same_map():
    model = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.AvgPool2d(4), nn.Flatten(), head(256)
    )
    assert chosen(model).name == "2"


def test_a_residual_block_is_taken_as_a_whole():
    block = Net(lambda m, x: F.relu(x + m.branch(x)), branch=conv(4, 4))
    model = Net(lambda m, x: m.fc(pooled(m.block(m.stem(x)))), stem=conv(3, 4, stride=4), block=block, fc=head())
    assert chosen(model).name == "block"


def test_the_outermost_module_owns_a_tensor_and_no_identity_behind_it_does():
    stage = nn.Sequential(nn.Sequential(conv(3, 4), nn.ReLU()))
    model = Net(lambda m, x: m.fc(pooled(m.later(m.stage(x)))), stage=stage, later=nn.Identity(), fc=head())
    assert chosen(model).name == "stage"


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.relu, "features + relu"),
        (lambda x: F.relu(x, inplace=True), "features + relu"),
        (torch.relu, "features + relu"),
        (torch.Tensor.relu_, "features + relu"),
        (F.relu6, "features + relu6"),
        (F.silu, "features + silu"),
        (F.gelu, "features + gelu"),
        (F.selu, "features + selu"),
        (F.hardswish, "features + hardswish"),
        (lambda x: F.leaky_relu(x, 0.1), "features + leaky_relu"),
    ],
)
def test_a_rectifier_by_function_has_a_name_that_a_capture_understands(function, name):
    model = Net(lambda m, x: m.fc(pooled(function(m.features(x)))), features=conv(3, 4), fc=head()).eval()
    choice = chosen(model)
    assert choice.name == name
    x = torch.randn(1, 3, 32, 32)
    kept = capture(model, Batch(x), {name: choice.spot}).activations[name]
    assert torch.equal(kept, function(model.features(x)))


def test_a_shared_module_is_named_with_its_call():
    model = Net(
        lambda m, x: m.fc(pooled(m.relu(m.two(m.relu(m.one(x)))))),
        one=conv(3, 4),
        two=conv(4, 4),
        relu=nn.ReLU(),
        fc=head(),
    )
    choice = chosen(model)
    assert (choice.name, choice.spot.module, choice.spot.call) == ("relu@2", "relu", 2)


def test_frozen_and_trainable_models_get_the_same_layer():
    def model():
        return nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), head(1024))

    with torch.no_grad():
        assert chosen(model()) == chosen(model().requires_grad_(False))
    assert chosen(model()).name == "3"


def test_of_a_model_without_grids_there_is_nothing_to_list():
    assert candidates(traced(nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Linear(8, 5)))) == []


def test_a_layer_without_weights_before_it_is_only_the_image():
    model = nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(768, 5))
    with pytest.raises(LayerError) as error:
        chosen(model)
    assert str(error.value) == (
        "no layer has a spatial grid of more than one cell for images of 32x32, so there is nothing to lay over them; "
        "use larger images, a pixel method, or name a layer and its axes with layer= and layout="
    )


def test_a_tensor_cut_in_two_is_on_no_path_alone():
    def forward(m, x):
        one, two = m.whole(x).chunk(2, 1)
        return m.fc(pooled(one * two.sigmoid()))

    model = Net(forward, whole=conv(3, 8), fc=head())
    trace = traced(model)
    assert trace.owners[trace.cuts[-2]].name == "whole"
    split = [node for node in trace.nodes if "Split" in node.name()]
    assert len(split) == 1
    assert split[0] not in {node for node, _ in trace.cuts}


def test_two_branches_fall_back_and_say_so():
    def forward(m, x):
        return m.fc(pooled(m.fine(x)) + pooled(m.coarse(x)))

    model = Net(forward, fine=conv(3, 4), coarse=conv(3, 4, stride=4), fc=head())
    choice = chosen(model)
    assert (choice.name, choice.grid) == ("coarse", (8, 8))
    assert choice.notes == (
        "no layer with a grid lies on every path to the score; coarse was the last to run of those with a gradient, "
        "and shows its own branch only; name one with layer= for another map, such as fine (32x32)",
    )


def test_a_layer_beside_the_path_is_passed_over():
    def forward(m, x):
        features = m.features(x)
        m.auxiliary(features)
        return m.fc(pooled(features))

    model = Net(forward, features=conv(3, 4), auxiliary=conv(4, 4), fc=head())
    assert chosen(model).name == "features"


def test_a_score_that_ignores_all_layers_is_refused():
    model = nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(4), nn.Flatten(), head(64))
    nn.init.zeros_(model[-1].weight)
    with pytest.raises(LayerError, match=r"^the score has no gradient at any of the 2 layers with a grid; is the head"):
        chosen(model)


def test_a_score_without_a_graph_is_refused():
    model = Net(lambda m, x: m.fc(pooled(m.features(x))).detach(), features=conv(3, 4), fc=head())
    with pytest.raises(LayerError, match=r"^the score tensor of shape \(1, 5\) does not depend on the image"):
        chosen(model)


# axes


def test_ambiguous_axes_are_settled_by_the_operations_around():
    def last(m, x):
        return m.fc(m.norm(m.patch(x).permute(0, 2, 3, 1)).mean((1, 2)))

    model = Net(last, patch=nn.Conv2d(3, 8, 4, 4), norm=nn.LayerNorm(8), fc=head(8))
    choice = chosen(model)
    assert (choice.shape, choice.name, choice.layout) == ((1, 8, 8, 8), "norm", Layout("b*c", (8, 8)))

    def first(m, x):
        return m.fc(pooled(m.norm(m.patch(x)).relu()))

    model = Net(first, patch=nn.Conv2d(3, 8, 4, 4), norm=nn.BatchNorm2d(8), fc=head(8))
    assert chosen(model).layout == Layout("bc*", (8, 8))


def test_a_norm_between_two_permutations_leaves_channels_first():
    class ChannelNorm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    model = Net(
        lambda m, x: m.fc(pooled(m.norm(m.patch(x)))), patch=nn.Conv2d(3, 8, 4, 4), norm=ChannelNorm(8), fc=head(8)
    )
    choice = chosen(model)
    assert (choice.name, choice.layout) == ("norm", Layout("bc*", (8, 8)))


def test_axes_that_nothing_settles_are_refused_with_the_choices():
    class Fold(nn.Module):
        def forward(self, x):
            return (x.reshape(1, 8, 8, 8) ** 2).sin()

    model = Net(lambda m, x: m.fold(m.mix(x.flatten(1))).sum((2, 3)), mix=nn.Linear(3072, 512), fold=Fold())
    with pytest.raises(LayerError) as error:
        chosen(model)
    assert str(error.value) == (
        "layer 'fold' of shape (1, 8, 8, 8) would be taken, but can be read in several ways; pass layer='fold' and "
        'layout="b c h w" (grid 8x8) or layout="b h w c" (grid 8x8)'
    )
    assert resolve(traced(model), "fold", "b h w c").layout == Layout("b*c", (8, 8))


@pytest.mark.parametrize(
    ("reader", "layout"),
    [
        (nn.Conv2d(8, 4, 1), Layout("bc*", (8, 8))),
        (nn.MaxPool2d(2), Layout("bc*", (8, 8))),
        (nn.LayerNorm(8), Layout("b*c", (8, 8))),
        (nn.Linear(8, 4), Layout("b*c", (8, 8))),
    ],
)
def test_who_reads_a_tensor_may_settle_its_axes(reader, layout):
    fold = Net(lambda m, x: x.reshape(1, 8, 8, 8).sin())
    model = Net(
        lambda m, x: m.reader(m.fold(m.mix(x.flatten(1)))).sum(), mix=nn.Linear(3072, 512), fold=fold, reader=reader
    )
    assert resolve(traced(model), "fold").layout == layout


def test_height_and_width_may_differ_and_strides_may_be_odd():
    model = nn.Sequential(conv(3, 4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head())
    assert chosen(model, 1, 3, 31, 50).grid == (11, 17)


def test_signals_and_volumes_have_grids_of_their_rank():
    signal = nn.Sequential(nn.Conv1d(2, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), head())
    assert chosen(signal, 1, 2, 40).layout == Layout("bc*", (20,))
    volume = nn.Sequential(nn.Conv3d(2, 4, 3, (1, 2, 2), 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), head())
    assert chosen(volume, 1, 2, 4, 8, 10).layout == Layout("bc*", (4, 4, 5))


def test_a_signal_read_by_attention_lies_channels_last():
    def forward(m, x):
        return m.fc(m.norm(m.patch(x).transpose(1, 2)).mean(1))

    model = Net(forward, patch=nn.Conv1d(2, 8, 4, 4), norm=nn.LayerNorm(8), fc=head(8))
    choice = chosen(model, 1, 2, 32)
    assert (choice.name, choice.layout) == ("norm", Layout("b*c", (8,)))


# tokens


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A small one; `join` puts other tokens to the patches, `read` takes from the sequence what the head sees."""

    def __init__(self, join, read, depth=2, width=8, patch=8):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.other = nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm, self.fc = nn.LayerNorm(width), head(width)
        self.join, self.read = join, read

    def forward(self, x):
        patches = self.patch(x).flatten(2).transpose(1, 2)
        x = self.join(patches, self.other.expand(len(patches), -1, -1))
        for block in self.blocks:
            x = block(x)
        return self.fc(self.read(self.norm(x)))


def with_registers(patches, other):
    """Joined twice, as DINOv2 does it: the class token first, the registers between it and the patches later."""
    x = torch.cat([other[:, :1], patches], 1) + 0.1
    return torch.cat((x[:, :1], other[:, 1:], x[:, 1:]), dim=1)


def in_place(patches, other):
    joined = torch.cat([other, patches], dim=-2)
    return joined.mul_(2)


JOINS = {
    "class token": (lambda p, o: torch.cat([o[:, :1], p], 1), range(1, 17)),
    "two": (lambda p, o: torch.cat((o[:, :1], o[:, 1:2], p), dim=1), range(2, 18)),
    "registers": (with_registers, range(5, 21)),
    "detection tokens": (lambda p, o: torch.cat((o[:, :1], p, o[:, 1:]), dim=1), range(1, 17)),
    "all behind": (lambda p, o: torch.cat((p, o), dim=1), range(16)),
    "middle": (lambda p, o: torch.cat((p[:, :8], o[:, :1], p[:, 8:]), dim=1), (*range(8), *range(9, 17))),
    "in place": (in_place, range(5, 21)),
    "by keyword": (lambda p, o: torch.concat(tensors=(o, p), dim=1), range(5, 21)),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", JOINS)
def test_patch_tokens_are_those_that_the_image_had_a_part_in(name, frozen):
    join, positions = JOINS[name]
    model = Transformer(join, lambda x: x.mean(1)).requires_grad_(not frozen)
    choice = chosen(model)
    assert (choice.name, choice.layout) == ("norm", Layout("bnc", (4, 4), positions))


def test_the_last_block_whose_patches_are_read_is_taken():
    model = Transformer(lambda p, o: torch.cat([o[:, :1], p], 1), lambda x: x[:, 0], depth=3)
    choice = chosen(model)
    assert (choice.name, choice.layout) == ("blocks.1", Layout("bnc", (4, 4), range(1, 17)))
    assert choice.reason == (
        "the last 4x4 tensor that all paths from image to score cross; after it, norm, blocks.2 have no gradient on "
        "their cells"
    )
    share = {layer.name: layer.gradient_share for layer in candidates(traced(model))}
    assert share["norm"] == share["blocks.2"] == 0
    assert 0 < share["blocks.1"] < 1
    assert share["patch"] == 1


def test_the_grid_of_tokens_is_the_nearest_seen_and_need_not_be_square():
    model = Transformer(lambda p, o: torch.cat([o, p], 1), lambda x: x.mean(1))
    assert chosen(model, 1, 3, 16, 64).layout == Layout("bnc", (2, 8), range(5, 21))
    assert chosen(model, 1, 3, 64, 16).layout == Layout("bnc", (8, 2), range(5, 21))


def test_queries_keys_and_values_are_no_feature_maps():
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.latent, self.kv = nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(8, 16)

        def forward(self, x):
            k, v = self.kv(x).chunk(2, -1)
            return F.scaled_dot_product_attention(self.latent.expand(len(x), -1, -1), k, v)[:, 0]

    model = Transformer(lambda p, o: p, nn.Identity())
    model.read = Pool()
    trace = traced(model)
    assert any(trace.owners[edge].name == "read.kv" for edge in trace.cuts if edge in trace.owners)
    assert choose(trace).name == "norm"


def test_a_linear_map_written_as_a_batched_product_is_no_attention():
    def forward(m, x):
        tokens = m.embed(m.patch(x).flatten(2).transpose(1, 2))
        return torch.bmm(tokens, m.fc.weight.T[None]).mean(1)

    model = Net(forward, patch=nn.Conv2d(3, 8, 8, 8), embed=nn.Linear(8, 8), fc=head(8))
    assert chosen(model).name == "embed"


def test_the_class_token_keeps_its_place_where_patches_are_pooled_later():
    class Pooling(nn.Module):
        def forward(self, x):
            patches = F.max_pool2d(x[:, 1:].transpose(1, 2).unflatten(2, (4, 4)), 2)
            return torch.cat([x[:, :1], patches.flatten(2).transpose(1, 2)], 1)

    model = Transformer(lambda p, o: torch.cat([o[:, :1], p], 1), lambda x: x.mean(1), depth=3)
    model.blocks[1] = Pooling()
    choice = chosen(model)
    assert (choice.name, choice.layout) == ("norm", Layout("bnc", (2, 2), range(1, 5)))


def test_tokens_put_into_another_order_are_not_read_as_rows():
    def by_windows(patches, _other):
        windows = patches.reshape(len(patches), 2, 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return windows.reshape(len(patches), 16, -1)

    def unrolled(patches, other):
        return by_windows(patches + 0.0, other)

    model = Transformer(unrolled, lambda x: x.mean(1))
    trace = traced(model)
    choice = choose(trace)
    assert choice.name == "patch"
    assert choice.notes[0].startswith("after patch, norm, blocks.1, blocks.0 hold no grid that could be read")
    with pytest.raises(LayerError, match=r"^layer 'norm': got a layer output of shape \(1, 16, 8\), which has no grid"):
        resolve(trace, "norm")
    assert resolve(trace, "norm", "b n c").grid == (4, 4)


def test_a_stated_row_of_tokens_whose_grid_no_tensor_shows_is_told():
    class Rows(nn.Module):
        """Patches of 4x16 pixels by reshaping, so that none but this code knows that they are 16 rows of 4."""

        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(3 * 4 * 16, 8), nn.Linear(8, 3)

        def forward(self, x):
            rows = x.reshape(len(x), 3, 16, 4, 4, 16).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 64, -1)
            return self.head(self.embed(rows).relu().mean(1))

    trace = traced(Rows(), 1, 3, 64, 64)
    (note,) = resolve(trace, "embed", "b n c").notes
    assert note.startswith("layer 'embed': 64 tokens are read as 8x8, by the image's proportions, as no tensor shows")
    right = resolve(trace, "embed", "b 16x4 c")
    assert (right.grid, right.notes) == ((16, 4), ())


def test_learned_queries_have_no_grid_though_their_number_would_make_one():
    def forward(m, x):
        memory = m.patch(x).flatten(2).transpose(1, 2)
        found = m.decode(F.scaled_dot_product_attention(m.queries.weight[None], memory, memory))
        return m.fc(found)

    modules = {
        "patch": nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU()),
        "queries": nn.Embedding(9, 8),
        "decode": nn.Linear(8, 8),
        "fc": head(8),
    }
    choice = chosen(Net(forward, **modules))
    assert (choice.name, choice.grid) == ("patch", (8, 8))
    assert choice.notes[0].startswith("after patch, fc, decode hold no grid that could be read (queries")


def test_unfolded_patches_have_the_grid_of_the_unfolding():
    def forward(m, x):
        return m.fc(m.norm(m.embed(F.unfold(m.stem(x), 4, stride=4).transpose(1, 2))).mean(1))

    model = Net(forward, stem=conv(3, 4, 3, 2), embed=nn.Linear(64, 8), norm=nn.LayerNorm(8), fc=head(8))
    choice = chosen(model, 1, 3, 32, 64)
    assert (choice.name, choice.layout) == ("norm", Layout("bnc", (4, 8), range(32)))


# dense outputs


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.top = nn.Sequential(conv(3, 4), nn.ReLU())
        self.bottom = nn.Sequential(conv(4, 8), nn.ReLU(), conv(8, 8), nn.ReLU())
        self.up, self.out = conv(12, 4), conv(4, 2, 1)

    def forward(self, x):
        fine = self.top(x)
        coarse = F.interpolate(self.bottom(F.max_pool2d(fine, 2)), scale_factor=2)
        return self.out(self.up(torch.cat([fine, coarse], 1)).relu())


def test_a_dense_output_takes_the_end_of_the_encoder():
    choice = chosen(UNet())
    assert (choice.name, choice.grid) == ("bottom", (16, 16))
    assert (
        choice.reason == "the output is dense, so the end of the encoder: the widest tensor of the coarsest grid, 16x16"
    )
    assert choice.notes == ("for a finer map name another layer with layer=, such as out (32x32)",)


def test_a_dense_output_of_the_coarsest_grid_has_no_finer_layer_to_name():
    model = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2))
    assert chosen(model).notes == ()


def narrow(*tail):
    """From 32x32 to 2x2, to one cell."""
    return nn.Sequential(conv(3, 4, stride=16), nn.ReLU(), conv(4, 4, stride=2), nn.ReLU(), *tail)


def test_a_named_layer_of_one_cell_is_refused():
    model = nn.Sequential(conv(3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head())
    with pytest.raises(
        LayerError, match=r"^layer '2' put out \(1, 4, 1, 1\), which is one cell for all of the image; "
    ):
        resolve(traced(model), "2")


def test_what_is_padded_is_no_grid():
    """Around one cell it has the shape of a grid, of which all cells but one are zeros."""
    model = narrow(nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head())
    assert (chosen(model).name, chosen(model).grid) == ("1", (2, 2))
    assert "4" not in [each.name for each in candidates(traced(model))]


@pytest.mark.parametrize("padded", [False, True])
def test_an_image_that_leaves_a_convolution_one_cell_is_told(padded):
    inner = [nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3)] if padded else [conv(4, 4)]
    model = narrow(*inner, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head())
    name = "5" if padded else "4"
    told = (
        f"for images of 32x32 layer {name} sees one cell and padding around it, and no layer from there on has a grid"
    )
    assert chosen(model).notes == (f"{told}; larger ones show what it sees",)
    assert chosen(model, 1, 3, 64, 64).notes == ()


def test_a_convolution_of_one_cell_behind_the_pooling_is_no_news():
    model = nn.Sequential(
        conv(3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), conv(4, 4, 1), nn.ReLU(), nn.Flatten(), head()
    )
    nn.init.constant_(model[3].bias, 2.0)  # no rectifier is dead
    assert chosen(model).notes == ()


@pytest.mark.parametrize("length", [1, 2, 16, 400])
def test_channels_of_a_pooled_signal_are_no_places(length):
    model = nn.Sequential(nn.Conv1d(2, 8, 7, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))
    if length > 2:
        assert (chosen(model, 1, 2, length).name, chosen(model, 1, 2, length).grid) == ("1", (length // 2,))
    else:
        with pytest.raises(LayerError, match="no layer has a spatial grid of more than one cell"):
            chosen(model, 1, 2, length)


def test_a_thin_pyramid_of_attention_is_no_encoder():
    def forward(m, x):
        deep = m.encoder(x)
        seen = m.look(F.max_pool2d(deep, 4))
        return m.head(deep * F.interpolate(seen, scale_factor=4))

    model = Net(forward, encoder=conv(3, 32, stride=2), look=conv(32, 1), head=nn.Conv2d(32, 2, 3, padding=1))
    choice = chosen(model)
    assert (choice.name, choice.grid) == ("encoder", (16, 16))


def test_the_head_of_a_dense_model_is_narrower_than_its_encoder():
    def forward(m, x):
        return F.interpolate(m.out(m.head(m.body(x)).relu()), size=x.shape[2:])

    body = nn.Sequential(conv(3, 16, stride=4), nn.ReLU())
    assert chosen(Net(forward, body=body, head=conv(16, 4), out=conv(4, 2, 1))).name == "body"


def test_a_pyramid_of_poolings_is_no_encoder():
    def forward(m, x):
        features = m.body(x)
        context = F.interpolate(m.context(m.pool(features)), size=features.shape[2:])
        return F.interpolate(m.out(torch.cat([features, context], 1)), size=x.shape[2:])

    modules = {"pool": nn.AdaptiveAvgPool2d(2), "context": nn.Sequential(conv(16, 4, 1), nn.ReLU())}
    body = nn.Sequential(conv(3, 16, stride=4), nn.ReLU())
    choice = chosen(Net(forward, body=body, out=conv(20, 2), **modules))
    assert (choice.name, choice.grid) == ("body", (8, 8))


def test_a_projection_behind_the_encoder_is_not_its_end_though_it_is_wider():
    def forward(m, x):
        return F.interpolate(m.out(F.interpolate(m.project(m.body(x)), scale_factor=2).relu()), size=x.shape[2:])

    body = nn.Sequential(conv(3, 8, stride=4), nn.ReLU())
    assert chosen(Net(forward, body=body, project=conv(8, 16, 1), out=conv(16, 2, 1))).name == "body"


def test_the_wide_inside_of_a_residual_block_is_not_the_end_of_an_encoder():
    block = Net(lambda m, x: x + m.narrow(m.act(m.wide(x))), wide=conv(8, 32), act=nn.ReLU(), narrow=conv(32, 8))
    body = nn.Sequential(conv(3, 8, stride=4), nn.ReLU())
    model = Net(
        lambda m, x: F.interpolate(m.out(m.block(m.body(x)).relu()), size=x.shape[2:]),
        body=body,
        block=block,
        out=conv(8, 2, 1),
    )
    assert chosen(model).name == "block + relu"


# names


NAMES = Net(
    lambda m, x: m.fc(pooled(m.relu(m.layer2(m.relu(m.layer1(x)))))),
    layer1=conv(3, 4),
    layer2=conv(4, 4),
    relu=nn.ReLU(),
    unused=conv(3, 4),
    fc=head(),
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "layer5",
            "no layer 'layer5'; the model has 5, closest 'layer2', 'layer1'; list them with "
            "seewhy.layers(model, images)",
        ),
        (
            "relu",
            "layer 'relu' asks for one call of a module that ran 2 times; say which: relu@1, relu@2",
        ),
        (
            "relu@3",
            "layer 'relu@3' asks for one call of a module that ran 2 times; say which: relu@1, relu@2",
        ),
        ("layer1@2", "layer 'layer1@2' asks for call 2 of a module that ran once; write 'layer1'"),
        (
            "unused",
            "layer 'unused' did not run in this forward pass; seewhy.layers(model, images) lists the layers that can "
            "be explained",
        ),
        (
            "layer1 + relu6",
            "no layer 'layer1 + relu6'; the model has 5, closest 'layer1', 'layer2'; list them with "
            "seewhy.layers(model, images)",
        ),
        (
            "fc",
            "layer 'fc': got a layer output of shape (1, 5), which has no grid of an image of 32x32; name a layer with "
            'one cell for each place of the image, or state its axes with layout=, as in layout="b h w c"',
        ),
    ],
)
def test_a_name_that_names_no_layer_is_refused(name, text):
    with pytest.raises(LayerError) as error:
        resolve(traced(NAMES), name)
    assert str(error.value) == text


def test_layers_are_found_by_name_by_call_and_by_the_module_itself():
    trace = traced(NAMES)
    assert resolve(trace, "relu@1").name == "relu@1"
    assert resolve(trace, "layer2@1").name == "layer2"
    assert resolve(trace, NAMES.layer2) == resolve(trace, "layer2")
    with pytest.raises(LayerError) as error:
        resolve(trace, nn.ReLU())
    assert str(error.value) == (
        "got a ReLU as layer, which is no part of the model; pass one of its 5 modules or a name, as in layer='layer4'"
    )


def test_a_layer_that_the_score_does_not_hang_on_is_refused():
    def forward(m, x):
        m.beside(x)
        return m.fc(pooled(m.features(x)))

    trace = traced(Net(forward, features=conv(3, 4), beside=conv(3, 4), fc=head()))
    with pytest.raises(LayerError) as error:
        resolve(trace, "beside")
    assert str(error.value) == (
        "layer 'beside' put out (1, 4, 32, 32), which carries nothing from the image to the score; "
        "seewhy.layers(model, images) lists the layers that can be explained"
    )


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: {"hidden": x}, lambda x: [{"hidden": x}]])
def test_a_tensor_within_an_output_is_found_with_the_path_to_it(wrap):
    def unwrap(output):
        if isinstance(output, torch.Tensor):
            return output
        return unwrap(output["hidden"] if isinstance(output, dict) else output[0])

    block = Net(lambda m, x: wrap(x + m.branch(x)), branch=conv(4, 4))
    model = Net(lambda m, x: m.fc(pooled(unwrap(m.block(m.stem(x))))), stem=conv(3, 4), block=block, fc=head())
    choice = chosen(model)
    assert choice.name == "block"
    x = torch.randn(1, 3, 32, 32)
    kept = capture(model.eval(), Batch(x), {"block": choice.spot}).activations["block"]
    assert torch.equal(kept, model.stem(x) + model.block.branch(model.stem(x)))


def test_of_several_tensors_in_an_output_the_first_with_a_grid_is_taken():
    block = Net(lambda m, x: (x.mean((2, 3)), m.branch(x), x), branch=conv(4, 4))

    def forward(m, x):
        one, two, _ = m.block(m.stem(x))
        return m.fc(one + pooled(two.relu()))

    trace = traced(Net(forward, stem=conv(3, 4), block=block, fc=head()))
    assert resolve(trace, "block").spot.index == (1,)
    assert trace.edge("block", (1,))[1] == (1, 4, 32, 32)
    assert trace.edge("block")[1] == (1, 4)


# the record


def test_gradients_are_those_of_the_recorded_projection():
    model = nn.Sequential(conv(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 5)).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    trace = Trace.of(model, Batch(x), lambda output: output)
    edge, shape = trace.edge("1")
    (gradient,) = trace.gradients([(edge.node, edge.output_nr)])
    features = model[1](model[0](x)).detach().requires_grad_()
    (expected,) = torch.autograd.grad((model[3](features.flatten(1)) * trace.projection).sum(), features)
    assert torch.equal(gradient, expected)
    assert shape == features.shape
    assert trace.image is not x
    assert torch.equal(trace.image, x)


def test_the_cuts_are_the_nodes_whose_removal_parts_score_and_image():
    torch.manual_seed(3)
    for _ in range(20):
        edges = (torch.rand(7, 7) < 0.35).triu(1)

        class Dag(nn.Module):
            def __init__(self, edges=edges):
                super().__init__()
                self.edges = edges
                self.steps = nn.ModuleList(conv(1, 1, 1) for _ in range(7))

            def forward(self, x):
                made = [self.steps[0](x)]
                for index in range(1, 7):
                    sources = self.edges[:, index].nonzero().flatten().tolist() or [index - 1]
                    made.append(self.steps[index](sum(made[source] for source in sources)))
                return made[-1].mean((2, 3))

        trace = traced(Dag(), 1, 1, 4, 4)
        expected = {node for node in trace.nodes[:-1] if not reachable(trace, without=node)}
        assert {node for node, _ in trace.cuts} == expected


def reachable(trace, without):
    """Whether a walk from the score that never enters a node gets to the image."""
    waiting, seen = [trace.score[0]], set()
    while waiting:
        node = waiting.pop()
        if node is None or node is without or node in seen:
            continue
        seen.add(node)
        waiting += [producer for producer, _ in node.next_functions]
    return trace.nodes[-1] in seen


def test_the_record_leaves_the_model_as_it_was():
    model = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4096, 5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    trace = Trace.of(model, Batch(torch.zeros(1, 3, 32, 32)), lambda output: output)
    choose(trace)
    assert model.training
    assert all(module.training for module in model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model)


def test_a_model_may_change_its_input_in_place_and_take_it_by_keyword():
    class Scaling(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.fc = conv(3, 4), head()

        def forward(self, scale=None, pixels=None):
            return self.fc(pooled(self.features(pixels.sub_(0.5).mul_(scale))))

    x = torch.rand(1, 3, 32, 32)
    kept = x.clone()
    trace = Trace.of(Scaling().eval(), Batch(x, (2,), name="pixels"), lambda output: output)
    assert choose(trace).name == "features"
    assert torch.equal(x, kept)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_is_seen_through_or_refused(reentrant):
    def forward(m, x):
        return m.fc(pooled(checkpoint(m.tail, m.features(x), use_reentrant=reentrant)))

    tail = nn.Sequential(conv(4, 4), nn.ReLU())
    trace = traced(Net(forward, features=conv(3, 4), tail=tail, fc=head()))
    if not reentrant:
        assert choose(trace).name == "tail"
        return
    with pytest.raises(ModelError) as error:
        candidates(trace)
    assert str(error.value) == (
        "the model recomputes activations by reentrant checkpointing, which hides them from the graph; switch gradient "
        "checkpointing off, or use its non-reentrant form (use_reentrant=False)"
    )


def test_what_checkpointing_runs_again_in_the_backward_pass_leaves_no_trace():
    def forward(m, x):
        return m.fc(pooled(checkpoint(m.tail, m.features(x), use_reentrant=False)))

    tail = nn.Sequential(conv(4, 4), nn.BatchNorm2d(4), nn.ReLU())
    model = Net(forward, features=conv(3, 4), tail=tail, fc=head()).train()
    trace = Trace.of(model, Batch(torch.randn(1, 3, 32, 32)), lambda output: output)
    assert [layer.name for layer in candidates(trace)] == ["features", "tail.0", "tail.1", "tail"]
    assert torch.equal(tail[1].running_mean, torch.zeros(4))
    assert tail[1].num_batches_tracked == 0


def test_batch_norm_that_moves_its_buffers_even_in_eval_mode_is_traced():
    norm = nn.BatchNorm2d(4)

    def forward(m, x):
        moved = F.batch_norm(m.features(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, training=True)
        return m.fc(pooled(m.tail(moved).relu()))

    model = Net(forward, features=conv(3, 4), norm=norm, tail=conv(4, 4), fc=head())
    assert [layer.name for layer in candidates(traced(model))] == ["features", "tail", "tail + relu"]
    assert torch.equal(norm.running_mean, torch.zeros(4))


def test_it_works_inside_no_grad_and_on_half_precision():
    model = nn.Sequential(conv(3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head())
    with torch.no_grad():
        trace = Trace.of(model.bfloat16().eval(), Batch(torch.ones(2, 3, 32, 32).bfloat16()), lambda output: output)
        assert choose(trace).name == "1"


def test_candidates_are_listed_as_they_ran_with_the_chosen_one_marked():
    found = candidates(traced(NAMES))
    assert [(layer.name, layer.grid, layer.on_every_path) for layer in found] == [
        ("layer1", (32, 32), True),
        ("relu@1", (32, 32), True),
        ("layer2", (32, 32), True),
        ("relu@2", (32, 32), True),
    ]
    assert [layer.name for layer in found if layer.chosen] == ["relu@2"]
    assert [layer.gradient_share for layer in found] == pytest.approx([1, 1, 1, 1])


def test_what_is_remembered_of_a_model_goes_with_it():
    memory = Memory[str]()
    one, other = nn.ReLU(), nn.ReLU()
    memory.put(one, "key", "value")
    memory.put(one, "other key", "other value")
    assert (memory.get(one, "key"), memory.get(one, "other key")) == ("value", "other value")
    assert memory.get(other, "key") is None
    memory.put(one, "key", "newer")
    assert memory.get(one, "key") == "newer"
    del one
    gc.collect()
    assert len(memory._values) == 0


# real architectures


def awakened(model):
    """Heads that a library initialises to zero get values, since behind a zero head no layer has a gradient."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def build(library, name):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "timm":
            return awakened(pytest.importorskip("timm").create_model(name, pretrained=False))
        if library == "efficientnet_lite_pytorch":
            return awakened(pytest.importorskip(library).EfficientNet.from_name(name))
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        if name.startswith("fcn"):
            options = {"weights_backbone": None}
        models = pytest.importorskip("torchvision").models
        return awakened(models.get_model(name, weights=None, **options))


ARCHITECTURES = [
    ("torchvision", "resnet18", (64, 96), "layer4", "bc*", (2, 3)),
    ("torchvision", "densenet121", (64, 64), "features + relu", "bc*", (2, 2)),
    ("torchvision", "squeezenet1_1", (64, 64), "classifier.2", "bc*", (3, 3)),
    ("torchvision", "mobilenet_v3_small", (64, 64), "features", "bc*", (2, 2)),
    ("torchvision", "googlenet", (64, 64), "inception5b", "bc*", (2, 2)),
    ("torchvision", "swin_t", (64, 64), "permute", "bc*", (2, 2)),
    ("efficientnet_lite_pytorch", "efficientnet-lite0", (96, 64), "_swish@2", "bc*", (3, 2)),
    ("timm", "efficientnet_b0", (64, 64), "bn2", "bc*", (2, 2)),
    ("timm", "mambaout_femto", (64, 64), "stages", "b*c", (2, 2)),
    ("timm", "vit_tiny_patch16_224", (224, 224), "blocks.10", "bnc", (14, 14)),
    ("timm", "deit_tiny_distilled_patch16_224", (224, 224), "blocks.10", "bnc", (14, 14)),
    ("timm", "levit_128s", (224, 224), "stages", "bnc", (4, 4)),
    ("timm", "efficientformer_l1", (224, 224), "norm", "bnc", (7, 7)),
]


@pytest.mark.parametrize(("library", "name", "size", "layer", "kind", "grid"), ARCHITECTURES)
def test_architectures(library, name, size, layer, kind, grid):
    choice = chosen(build(library, name), 1, 3, *size)
    assert (choice.name, choice.layout.kind, choice.grid) == (layer, kind, grid)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "name", "size", "layer", "grid"),
    [
        ("torchvision", "vgg16", (224, 224), "features.29", (14, 14)),
        ("torchvision", "vgg16", (128, 128), "features.29", (8, 8)),  # pooled to 4x4, then replicated to 7x7
        ("torchvision", "resnet50", (224, 224), "layer4", (7, 7)),
        ("torchvision", "vit_b_16", (224, 224), "encoder.layers.encoder_layer_10", (14, 14)),
        ("torchvision", "fcn_resnet50", (64, 64), "backbone.layer4", (8, 8)),
        ("timm", "swin_tiny_patch4_window7_224", (224, 224), "norm", (7, 7)),
        ("timm", "crossvit_tiny_240", (240, 240), "blocks.2.fusion.1.norm1", (20, 20)),
    ],
)
def test_larger_architectures(library, name, size, layer, grid):
    select = (lambda output: output["out"]) if name.startswith("fcn") else lambda output: output
    choice = chosen(build(library, name), 1, 3, *size, select=select)
    assert (choice.name, choice.grid) == (layer, grid)
    assert bool(choice.notes) == (name in ("crossvit_tiny_240", "fcn_resnet50"))


HF = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 64}


@pytest.mark.parametrize(
    ("kind", "head", "options", "block", "positions"),
    [
        ("ViT", "ForImageClassification", {}, "layers.1", range(1, 17)),
        ("Dinov2WithRegisters", "ForImageClassification", {}, "layernorm", range(5, 21)),
        ("Yolos", "ForObjectDetection", {"image_size": [64, 64]}, "encoder.layer.1", range(1, 17)),
    ],
)
def test_transformers(kind, head, options, block, positions):
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = getattr(hf, kind + head)(getattr(hf, kind + "Config")(**{**HF, **options}))
    choice = chosen(model, 1, 3, 64, 64, select=lambda output: output.logits)
    assert choice.name.endswith("." + block)
    assert choice.layout == Layout("bnc", (4, 4), positions)
    assert choice.shape[1] > 16


def test_shapes_are_on_the_record_for_every_edge():
    trace = traced(NAMES)
    for tensors in trace.outputs.values():
        for tensor in tensors:
            assert tensor.edge is not None
            assert shape_of(tensor.edge) == tensor.shape
