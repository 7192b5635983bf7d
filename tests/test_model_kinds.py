"""Kinds of models, each on the real thing: what works is exact, what does not is told in one sentence.

The rows of docs/models.md; those that stand elsewhere are linked there.
"""

import warnings

import pytest
import torch
from torch import nn
from torch.autograd.graph import Node
from torch.nn import functional as F

import seewhy
from seewhy.model.forms import channels_axis
from seewhy.types import LayerError, MapWarning, ModelError

ao = torch.ao.quantization


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def grad_cam(activations, score):
    """By its formula, of activations (b c *grid) that the score was made of."""
    (gradient,) = torch.autograd.grad(score.sum(), activations)
    weights = gradient.flatten(2).mean(2)
    return torch.einsum("bc,bc...->b...", weights, activations).relu().detach()


def close(found, expected):
    assert expected.any()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class Net(nn.Module):
    """Whatever a function makes of these modules."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


@pytest.fixture(scope="module", autouse=True)
def _nodes_of_quantised_layers():
    """Torch forgets to register what its C++ puts on the graph, which type checks then take for something else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = ao.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)), {nn.Linear})
        Node.register(type(layer(torch.zeros(1, 2, requires_grad=True)).grad_fn))


def small(dtype=torch.float64):
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).to(dtype).eval()


# axes of the input


AXES = {
    "pictures": (small(), (2, 3, 32, 24), 1),
    "channels last": (small(), (2, 32, 24, 3), 3),
    "a picture three pixels wide": (small(), (2, 3, 32, 3), 1),
    "a volume": (nn.Conv3d(1, 2, 3), (2, 1, 9, 9, 9), 1),
    "a volume with the channels last": (nn.Conv3d(1, 2, 3), (2, 9, 9, 9, 1), 4),
    "frames behind the channels": (nn.Conv3d(3, 2, 3), (2, 3, 8, 9, 9), 1),
    "frames ahead of the channels": (nn.Conv3d(3, 2, 3), (2, 8, 3, 9, 9), 2),
    "three frames of three channels": (nn.Conv3d(3, 2, 3), (2, 3, 3, 9, 9), 1),
    "three frames of three channels, one by one": (nn.Conv2d(3, 2, 3), (2, 3, 3, 9, 9), 2),
    "a signal": (nn.Conv1d(2, 2, 3), (2, 90, 2), 1),
}


@pytest.mark.parametrize("what", list(AXES))
def test_where_the_channels_are(what):
    model, shape, axis = AXES[what]
    assert channels_axis(model, shape) == axis


@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "saliency", "occlusion", "guided_backprop"])
def test_a_model_that_takes_its_channels_last(method):
    model, x = small(), drawn(2, 3, 32, 24)
    last = Net(lambda m, x: m.net(x.permute(0, 3, 1, 2)), net=model).eval()
    found = seewhy.explain(last, x.permute(0, 2, 3, 1), [1, 2], method)
    close(found.map, seewhy.explain(model, x, [1, 2], method).map)
    assert found.pictures[0].image.size == (24, 32)
    assert "images: read as (b h w c), as the model takes them; maps are without the channels" in found.notes


def test_images_with_channels_last_given_to_a_model_that_takes_them_first():
    with pytest.raises(ModelError, match=r"its channels seem to be last: images.permute\(0, 3, 1, 2\)"):
        seewhy.explain(small(), drawn(2, 32, 24, 3), 1)


# video


def test_a_video_has_a_map_for_each_frame():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv3d(3, 6, 3, (1, 2, 2), 1), nn.ReLU(), nn.Conv3d(6, 8, 3, 2, 1), nn.ReLU())
    model = Net(lambda m, x: m.fc(m.features(x).mean((2, 3, 4))), features=features, fc=nn.Linear(8, 4)).double().eval()
    x = drawn(2, 3, 8, 32, 24)
    e = seewhy.explain(model, x, 1)
    a = model.features(x).detach().requires_grad_()
    close(e.raw["features"], grad_cam(a, model.fc(a.mean((2, 3, 4)))[:, 1]))
    assert e.map.shape == (2, 8, 32, 24)


class Frames(nn.Module):
    """Each frame by a convolutional network, what comes after by a recurrent one: videos (b t c h w)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cnn = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.rnn, self.fc = nn.LSTM(8, 10, batch_first=True), nn.Linear(10, 3)

    def tail(self, features, batch):
        return self.fc(self.rnn(features.mean((2, 3)).unflatten(0, (batch, -1)))[0][:, -1])

    def forward(self, x):
        return self.tail(self.cnn(x.flatten(0, 1)), len(x))


def test_a_network_of_single_frames_below_a_recurrent_one():
    model, x = Frames().double().eval(), drawn(2, 5, 3, 32, 24)
    e = seewhy.explain(model, x, 1, align="tile")
    frames = model.cnn(x.flatten(0, 1)).detach().requires_grad_()
    videos = frames.unflatten(0, (2, 5)).transpose(1, 2)
    (gradient,) = torch.autograd.grad(model.tail(frames, 2)[:, 1].sum(), frames)
    close(e.raw["cnn"], seewhy.grad_cam(videos.detach(), gradient.unflatten(0, (2, 5)).transpose(1, 2)))
    assert e.map.shape == (2, 5, 32, 24)


def test_cells_of_frames_are_exchanged_exactly():
    model, x = Frames().double().eval(), drawn(2, 5, 3, 32, 24)
    e = seewhy.explain(model, x, 1, "ablation_cam")
    with torch.no_grad():
        frames = model.cnn(x.flatten(0, 1))
        clean = model.tail(frames, 2)[:, 1]
        drops = []
        for channel in range(8):
            without = frames.clone()
            without[:, channel] = 0
            drops.append((clean - model.tail(without, 2)[:, 1]) / clean)
        videos = frames.unflatten(0, (2, 5)).transpose(1, 2)
        expected = torch.einsum("cb,bc...->b...", torch.stack(drops), videos).relu()
    direction = torch.nn.functional.cosine_similarity(e.raw["cnn"].flatten(1), expected.flatten(1))
    torch.testing.assert_close(direction, torch.ones_like(direction))


def video_model(name, **options):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        image_size=32,
        num_frames=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
        **options,
    )
    return getattr(transformers, f"{name}ForVideoClassification")(config).double().eval()


def test_transformers_of_videos_have_a_map_for_each_frame():
    model, x = video_model("VideoMAE", patch_size=8, tubelet_size=2), drawn(2, 8, 3, 32, 32)
    e = seewhy.explain(model, x, 1)
    (last,) = e.raw
    block, kept = model.get_submodule(last), []
    handle = block.register_forward_hook(lambda module, given, output: kept.append(output))
    scores = model(x).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), kept[0])
    cells = [each.detach().transpose(1, 2).unflatten(2, (4, 4, 4)) for each in (kept[0], gradient)]
    close(e.raw[last], seewhy.grad_cam(*cells))
    assert e.map.shape == (2, 8, 32, 32)
    for method in ("saliency", "attention_rollout"):
        assert seewhy.explain(model, x, 1, method).map.shape == (2, 8, 32, 32)


def test_vivit_has_a_class_token_and_timesformer_another_order_of_tokens():
    x = drawn(1, 8, 3, 32, 32)
    vivit = seewhy.explain(video_model("Vivit", tubelet_size=[2, 8, 8]), x, 1)
    assert next(iter(vivit.raw.values())).shape == (1, 4, 4, 4)
    timesformer = seewhy.explain(video_model("Timesformer", patch_size=8), x, 1)
    assert timesformer.layers == ("timesformer.embeddings.pos_drop",)  # the last where frames are apart
    assert timesformer.raw["timesformer.embeddings.pos_drop"].shape == (1, 8, 4, 4)
    assert any("hold no grid that could be read" in note for note in timesformer.notes)


# models that no gradient or hook gets through


def without_inside(kind):
    model, x = small(torch.float32), drawn(2, 3, 32, 32, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notices of what comes after these
        if kind == "scripted":
            return torch.jit.script(model)
        if kind == "traced":
            return torch.jit.trace(model, x)
        if kind == "dynamically quantised":
            return ao.quantize_dynamic(model, {nn.Linear})
        if kind == "statically quantised":
            whole = nn.Sequential(ao.QuantStub(), model, ao.DeQuantStub()).eval()
            whole.qconfig = ao.get_default_qconfig("x86")
            prepared = ao.prepare(whole)
            prepared(x)
            return ao.convert(prepared)
        return Net(lambda m, x: torch.from_numpy(m.net(x).detach().numpy()), net=model).eval()


CLOSED = ["scripted", "traced", "dynamically quantised", "statically quantised", "numpy inside"]


@pytest.mark.parametrize("kind", CLOSED)
def test_methods_that_only_run_the_model_work_where_nothing_can_be_seen(kind):
    model, x = without_inside(kind), drawn(2, 3, 32, 32, dtype=torch.float32)
    found = seewhy.explain(model, x, 1, "occlusion", rectify=False, options={"patch": 16, "stride": 16}).map
    with torch.no_grad():
        for row in (0, 1):
            changed = x.clone()
            changed[:, :, 16 * row : 16 * row + 16, :16] = 0
            drop = (model(x) - model(changed))[:, 1]
            off = 2e-3 if kind == "dynamically quantised" else 1e-6  # its steps are those of the batch that runs
            torch.testing.assert_close(found[:, 16 * row + 3, 3], drop.float(), rtol=1e-4, atol=off)
    assert seewhy.explain(model, x, 1, "rise", options={"masks": 8}).map.std() > 0


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_pixel_gradients_pass_through_scripted_models(kind):
    x = drawn(2, 3, 32, 32, dtype=torch.float32)
    found = seewhy.explain(without_inside(kind), x, 1, "saliency")
    torch.testing.assert_close(found.map, seewhy.explain(small(torch.float32), x, 1, "saliency").map)


RUN = "a method that only runs the model: 'rise' or 'occlusion'"
REFUSED = {
    "scripted": "the model holds a RecursiveScriptModule, whose layers cannot be observed; pass the module that it was "
    f"scripted or traced from, or take 'saliency', or {RUN}",
    "traced": "the model holds a TopLevelTracedModule, whose layers cannot be observed; pass the module that it was "
    f"scripted or traced from, or take 'saliency', or {RUN}",
    "dynamically quantised": "the score has no gradient at any layer, as the model holds a quantised Linear; explain "
    f"the model that it was quantised from, or take {RUN}",
    "statically quantised": "the score tensor of shape (1, 4) does not depend on the image, so no layer explains it; "
    f"pass a model whose forward pass is differentiable, without detach, inference_mode or numpy inside, or take {RUN}",
}
REFUSED["numpy inside"] = REFUSED["statically quantised"]


@pytest.mark.filterwarnings("ignore:quantized.*autograd kernel was not registered")
@pytest.mark.parametrize("kind", CLOSED)
def test_other_methods_tell_the_way_out(kind):
    with pytest.raises((LayerError, ModelError)) as error:
        seewhy.explain(without_inside(kind), drawn(2, 3, 32, 32, dtype=torch.float32), 1)
    assert str(error.value) == REFUSED[kind]


@pytest.mark.filterwarnings("ignore:quantized.*autograd kernel was not registered")
@pytest.mark.parametrize("kind", CLOSED[2:])
def test_pixel_methods_tell_the_way_out_too(kind):
    with pytest.raises(LayerError) as error:
        seewhy.explain(without_inside(kind), drawn(2, 3, 32, 32, dtype=torch.float32), 1, "saliency")
    assert str(error.value) == (
        "no gradient of the score reaches the images: something on the way has none, such as detach, numpy or a "
        f"quantised layer; take {RUN}"
    )


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_a_scripted_model_in_training_mode_is_left_as_it_was(kind):
    x = drawn(2, 3, 32, 32, dtype=torch.float32)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(3600, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(inner) if kind == "scripted" else torch.jit.trace(inner, x, check_trace=False)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seewhy.explain(model, x, 1, "saliency")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(each.training for each in model.modules())


def test_a_graph_of_fx_is_as_the_module_that_it_was_made_from():
    model, x = small(), drawn(2, 3, 32, 24)
    close(seewhy.explain(torch.fx.symbolic_trace(model), x, 1).map, seewhy.explain(model, x, 1).map)


@pytest.mark.filterwarnings("ignore")  # torch's own, of what comes after it
@pytest.mark.parametrize("method", ["saliency", "occlusion"])
def test_an_exported_program_has_no_layers_but_may_be_run(method):
    model, x = small(), drawn(2, 3, 32, 24)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    close(seewhy.explain(program, x, 1, method).map, seewhy.explain(model, x, 1, method).map)
    with pytest.raises(LayerError) as error:
        seewhy.explain(program, x, 1)
    assert str(error.value) == (
        "the model was made by torch.export, whose operations are no modules, so that no layer has a grid; pass the "
        "module that it was exported from, or take 'saliency', or a method that only runs the model: 'rise' or "
        "'occlusion'"
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["saliency", "occlusion"])
def test_a_program_of_a_fixed_batch_is_refused_with_the_way_out(method):
    x = drawn(2, 3, 32, 24)
    program = torch.export.export(small(), (x,)).module()
    with pytest.raises(ModelError) as error:
        seewhy.explain(program, x, 1, method)
    assert str(error.value).endswith(
        "; it was exported, maybe for batches of one size: export it with a dynamic one (torch.export.Dim), or pass "
        "the module that it was exported from"
    )


class FSDPModule:
    """Stands for torch's: what `fully_shard` makes every module's class a child of."""


def test_a_model_spread_over_processes_is_refused_with_the_way_out():
    class FSDPLinear(FSDPModule, nn.Linear):
        pass

    with pytest.raises(ModelError) as error:
        seewhy.explain(nn.Sequential(small(), FSDPLinear(4, 4)), drawn(1, 3, 32, 32), 1)
    assert str(error.value) == (
        "got a model wrapped by FSDP, whose parameters are spread over processes; gather its full state dict, load "
        "that into the plain model, and pass that"
    )


def test_the_real_classes_of_fsdp_are_called_so():
    from torch.distributed import fsdp

    assert {fsdp.FullyShardedDataParallel.__name__, fsdp.FSDPModule.__name__} == {
        "FullyShardedDataParallel",
        "FSDPModule",
    }


# a recurrent network above a convolutional one, as for reading text (CRNN)


def test_a_recurrent_layer_above_a_convolutional_network():
    torch.manual_seed(0)
    modules = {"features": nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU()), "fc": nn.Linear(20, 5)}
    modules["rnn"] = nn.LSTM(6, 10, bidirectional=True)

    def tail(m, features):
        return m.fc(m.rnn(features.amax(2).permute(2, 0, 1))[0]).transpose(0, 1)

    model, x = Net(lambda m, x: tail(m, m.features(x)), **modules).double().eval(), drawn(2, 1, 16, 48)
    e = seewhy.explain(model, x, lambda output: output[:, 7, 3], align="tile")  # the fourth symbol at the eighth place
    a = model.features(x).detach().requires_grad_()
    close(e.raw["features"], grad_cam(a, tail(model, a)[:, 7, 3]))


# no silent zero map: each known cause is named


def tokens(read):
    """Patches and a class token, mixed by attention; what `read` takes of the last block is scored."""

    def forward(m, x):
        patches = m.patch(x).flatten(2).transpose(1, 2)
        joined = torch.cat([m.token.weight[None].expand(len(x), -1, -1), patches], 1)
        for block in (m.first, m.last):
            joined = block(joined)
        return m.fc(read(joined))

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer
    modules = {name: layer(8, 2, 16, dropout=0.0, batch_first=True) for name in ("first", "last")}
    return Net(forward, patch=nn.Conv2d(3, 8, 8, 8), token=nn.Embedding(1, 8), fc=nn.Linear(8, 4), **modules).eval()


def test_the_class_token_alone_is_read_after_the_last_block():
    model, x = tokens(lambda joined: joined[:, 0]), drawn(1, 3, 32, 32, dtype=torch.float32)
    e = seewhy.explain(model, x, 1, rectify=False)
    assert e.map.any()
    assert any("after it, last, last.norm1 have no gradient on their cells" in note for note in e.notes)
    with pytest.warns(MapWarning) as caught:
        named = seewhy.explain(model, x, 1, layer="last")
    assert not named.map.any()
    assert str(caught[0].message) in named.notes


def test_a_head_that_is_cut_off_is_an_error():
    net = small()
    cut = Net(lambda m, x: m.net[1:](m.net[0](x).detach()), net=net).eval()
    with pytest.raises(LayerError, match=r"the score tensor of shape \(1, 4\) does not depend on the image"):
        seewhy.explain(cut, drawn(1, 3, 32, 32), 1)
    around = Net(lambda m, x: m.net[1:](m.net[0](x).detach()) + x.mean((2, 3)) @ x.new_ones(3, 4), net=net).eval()
    with pytest.raises(LayerError, match="carries nothing from the image to the score"):
        seewhy.explain(around, drawn(1, 3, 32, 32), 1, layer="net.0")


def test_a_rectifier_that_is_dead_for_this_image_is_told():
    net = small()
    nn.init.constant_(net[0][2].bias, -1e3)  # behind it, everything is zero
    with pytest.warns(MapWarning) as caught:
        named = seewhy.explain(net, drawn(1, 3, 32, 32), 1)
    assert not named.map.any()
    assert str(caught[0].message).startswith("image 0: ")
    assert str(caught[0].message) in named.notes


def test_a_softmax_that_is_sure_is_told():
    net = small()
    nn.init.constant_(net[-1].bias, 0.0)
    with torch.no_grad():
        net[-1].bias[1] = 12.0
    e = seewhy.explain(nn.Sequential(net, nn.Softmax(1)), drawn(1, 3, 32, 32), seewhy.Probability(1))
    assert any("the model is nearly sure, so the gradient of a probability nearly vanishes" in note for note in e.notes)
    with torch.no_grad():
        net[-1].bias[1] = 1e3
    with pytest.raises(LayerError, match="as the sigmoid or softmax that the model ends in is sure of noise even"):
        seewhy.explain(nn.Sequential(net, nn.Softmax(1)), drawn(1, 3, 32, 32), seewhy.Probability(1))


def test_a_layer_after_the_pooling_is_refused():
    for layer in ("1", "2", "3"):
        with pytest.raises(LayerError, match=r"has no grid|no spatial|one cell"):
            seewhy.explain(small(), drawn(1, 3, 32, 32), 1, layer=layer)


def test_a_head_that_is_all_zero_is_told():
    net = small()
    nn.init.zeros_(net[-1].weight)
    with pytest.raises(LayerError, match="is the head of the model all zero, as some libraries initialise it"):
        seewhy.explain(net, drawn(1, 3, 32, 32), 1)


def test_an_image_of_zeros_is_told():
    net = small()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
    with pytest.warns(MapWarning, match="image 0"):
        e = seewhy.explain(net, F.pad(drawn(1, 3, 0, 0), (0, 32, 0, 32)), 1)
    assert any(note.startswith("image 0") for note in e.notes)
