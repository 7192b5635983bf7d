"""One forward, any number of layers: what is captured, its gradients, and the tricky ways models are written in."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seewhy.model.batch import Batch
from seewhy.model.capture import Capture, capture
from seewhy.model.spot import Spot, rerouted
from seewhy.types import LayerError, ModelError


class Net(nn.Module):
    """conv - ReLU - conv - ReLU - mean - linear, with the rectifiers spelled as the test wants."""

    def __init__(self, rectify=F.relu):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5, 6)
        self.rectify = rectify

    def features(self, x):
        return self.rectify(self.b(self.rectify(self.a(x))))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def images(count=2):
    return torch.randn(count, 3, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def net(rectify=F.relu, **kwargs):
    torch.manual_seed(0)
    return Net(rectify, **kwargs).double().eval()


def gradient(shown: Capture, layers, column=2):
    seed = torch.zeros_like(shown.output)
    seed[:, column] = 1
    return shown.gradients([(shown.output, seed[None])], layers)


def slow_gradient(model, x, layer, column=2):
    """The gradient by a graph of the whole model and a retained output."""
    kept = {}

    def hook(_m, _i, out):
        out.requires_grad_() if not out.requires_grad else None
        kept["clean"] = out
        return out.clone()

    handle = model.get_submodule(layer).register_forward_hook(hook)
    with torch.enable_grad():
        y = model(x)[:, column].sum()
        result = torch.autograd.grad(y, kept["clean"])[0]
    handle.remove()
    return kept["clean"].detach(), result


@pytest.mark.parametrize("rectify", [F.relu, lambda x: x.relu_(), lambda x: F.relu(x, inplace=True), torch.relu])
def test_several_layers_each_get_the_gradient_they_have_alone(rectify):
    model, x = net(rectify), images()
    spots = {"a": Spot("a"), "b": Spot("b")}
    together = capture(model, Batch(x), spots)
    found = gradient(together, ["a", "b"])
    for layer in spots:
        alone = capture(model, Batch(x), {layer: spots[layer]})
        expected_output, expected = slow_gradient(model, x, layer)
        torch.testing.assert_close(together.activations[layer].detach(), expected_output, rtol=0, atol=0)
        torch.testing.assert_close(found[layer][0], expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient(alone, [layer])[layer][0], expected, rtol=1e-12, atol=0)
    assert expected.abs().sum() > 0


def test_the_convolutions_output_is_kept_although_an_inplace_relu_follows():
    shown = capture(net(lambda x: x.relu_()), Batch(images()), {"b": Spot("b")})
    assert (shown.activations["b"] < 0).any()


def test_the_graph_starts_at_the_first_layer_and_parameters_get_no_gradient():
    model = net()
    shown = capture(model, Batch(images()), {"b": Spot("b")})
    assert shown.activations["b"].grad_fn is None
    gradient(shown, ["b"])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batched_backward_equals_one_after_the_other():
    shown = capture(net(), Batch(images()), {"a": Spot("a")})
    seeds = torch.eye(6, dtype=torch.float64)[:, None].expand(6, 2, 6).contiguous()
    together = shown.gradients([(shown.output, seeds)], ["a"])["a"]
    for column in range(6):
        torch.testing.assert_close(together[column], gradient(shown, ["a"], column)["a"][0], rtol=1e-13, atol=1e-15)


def test_an_operation_without_batched_backward_is_asked_one_by_one():
    class Stubborn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    model = net(lambda x: Stubborn.apply(F.relu(x)))
    shown = capture(model, Batch(images()), {"a": Spot("a")})
    seeds = torch.eye(6, dtype=torch.float64)[:, None].expand(6, 2, 6).contiguous()
    together = shown.gradients([(shown.output, seeds)], ["a"])["a"]
    torch.testing.assert_close(together[3], slow_gradient(model, images(), "a", 3)[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off_and_leaves_them_off(context):
    model = net()
    with context():
        shown = capture(model, Batch(images()), {"b": Spot("b")})
        found = gradient(shown, ["b"])["b"][0]
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(found, slow_gradient(model, images(), "b")[1], rtol=1e-12, atol=0)


def test_frozen_parameters_do_not_matter():
    model = net().requires_grad_(False)
    found = gradient(capture(model, Batch(images()), {"b": Spot("b")}), ["b"])["b"][0]
    torch.testing.assert_close(found, slow_gradient(model, images(), "b")[1], rtol=1e-12, atol=0)
    assert not any(parameter.requires_grad for parameter in model.parameters())


class Shared(nn.Module):
    """One ReLU6 module, called twice, as in many published networks."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.act, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.ReLU6(), nn.Linear(5, 6)

    def forward(self, x):
        return self.head(self.act(self.b(self.act(self.a(x)))).mean((2, 3)))


def test_calls_of_one_module_are_told_apart():
    torch.manual_seed(0)
    model = Shared().double().eval()
    shown = capture(model, Batch(images()), {"act": Spot("act"), "act@2": Spot("act", 2)})
    assert [shown.activations[name].shape[1] for name in ("act", "act@2")] == [4, 5]
    torch.testing.assert_close(shown.activations["act@2"].mean((2, 3)), shown.activations["act@2"].flatten(2).mean(-1))
    found = gradient(shown, ["act", "act@2"])
    expected = model.head.weight[2].detach() / shown.activations["act@2"][0, 0].numel()
    torch.testing.assert_close(found["act@2"][0][0, :, 0, 0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("inplace", [True, False])
def test_a_bare_functional_rectifier_can_be_captured(inplace):
    model = net(lambda x: F.relu(x, inplace=inplace))
    shown = capture(model, Batch(images()), {"b + relu": Spot("b", rectifier="relu")})
    kept = shown.activations["b + relu"]
    assert (kept >= 0).all()
    assert (kept == 0).any()
    torch.testing.assert_close(model.head(kept.mean((2, 3))), shown.output, rtol=1e-12, atol=0)
    assert gradient(shown, ["b + relu"])["b + relu"].abs().sum() > 0


class Outputs(nn.Module):
    """A layer that returns a tuple or a mapping."""

    def __init__(self, wrap):
        super().__init__()
        self.inner, self.head, self.wrap = nn.Conv2d(3, 5, 3), nn.Linear(5, 6), wrap

        class Stage(nn.Module):
            def forward(stage, x):
                return wrap(self.inner(x))

        self.stage = Stage()

    def forward(self, x):
        out = self.stage(x)
        x = out["x"] if isinstance(out, dict) else out[1]
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(("wrap", "index"), [(lambda x: (None, x), (1,)), (lambda x: {"x": x}, ("x",))])
def test_layers_that_return_tuples_and_mappings(wrap, index):
    torch.manual_seed(0)
    model = Outputs(wrap).double().eval()
    shown = capture(model, Batch(images()), {"stage": Spot("stage", index=index), "inner": Spot("inner")})
    found = gradient(shown, ["stage", "inner"])
    torch.testing.assert_close(found["stage"], found["inner"])
    assert found["stage"].abs().sum() > 0


def test_compiled_code_that_is_already_warm_is_bypassed():
    model = net()
    expected = slow_gradient(model, images(), "b")[1]
    model.compile(backend="eager")
    model(images())
    found = gradient(capture(model, Batch(images()), {"b": Spot("b")}), ["b"])["b"][0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


class Checkpointed(Net):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        tail = lambda y: F.relu(self.b(F.relu(y)))  # noqa: E731
        return self.head(checkpoint(tail, self.a(x), use_reentrant=self.reentrant).mean((2, 3)))


@pytest.mark.parametrize("layer", ["a", "b"])
def test_checkpointing_without_reentry_works(layer):
    torch.manual_seed(0)
    model = Checkpointed(False).double().eval()
    plain = net()
    plain.load_state_dict(model.state_dict())
    found = gradient(capture(model, Batch(images()), {layer: Spot(layer)}), [layer])[layer][0]
    torch.testing.assert_close(found, slow_gradient(plain, images(), layer)[1], rtol=1e-12, atol=0)


def test_checkpointing_with_reentry_is_refused_with_the_way_out():
    torch.manual_seed(0)
    shown = capture(Checkpointed(True).double().eval(), Batch(images()), {"a": Spot("a")})
    with pytest.raises(ModelError, match="use_reentrant=False"):
        gradient(shown, ["a"])


def test_a_layer_without_influence_is_an_error():
    class Side(Net):
        def forward(self, x):
            self.b(self.a(x))
            return self.head(x.mean((2, 3)).repeat(1, 2)[:, :5])

    torch.manual_seed(0)
    shown = capture(Side().double().eval(), Batch(images()), {"b": Spot("b")})
    with pytest.raises(LayerError, match="the score does not depend on layer 'b'"):
        gradient(shown, ["b"])


def test_a_tensor_is_exchanged_wherever_the_output_holds_it_and_containers_are_copied():
    class Several(nn.Module):
        def forward(self, x):
            self.own = (x.relu(), [x, {"again": x, "count": 3}])
            return self.own

    model, x = Several(), images()
    with rerouted(model, {"": Spot("", index=(1, 0))}, lambda _name, tensor: tensor + 1):
        first, (second, rest) = model(x)
    assert torch.equal(first, x.relu())
    assert torch.equal(second, x + 1)
    assert rest["again"] is second
    assert rest["count"] == 3
    assert model.own[1][0] is x
    assert model.own[1][1]["again"] is x


def test_spots_that_are_not_reached():
    with pytest.raises(LayerError, match="asks for call 2, but 'a' ran 1 times"):
        capture(net(), Batch(images()), {"a@2": Spot("a", 2)})
    model = net()
    model.idle = nn.Conv2d(3, 3, 1)
    with pytest.raises(LayerError, match="'idle' did not run"):
        capture(model, Batch(images()), {"idle": Spot("idle")})


def test_differentiable_capture_reaches_inputs_and_parameters():
    model, x = net(lambda y: F.softplus(y)), images().requires_grad_()
    shown = capture(model, Batch(x), {"a": Spot("a")}, differentiable=True)
    found = gradient(shown, ["a"])["a"]
    (second,) = torch.autograd.grad(found.square().sum(), x)
    assert second.abs().sum() > 0
