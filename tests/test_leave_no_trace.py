"""A model is the same before and after: every method, also when something raises, also from eight threads at once."""

import gc
import threading
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seewhy
from seewhy import ModelError


class Restless(nn.Module):
    """Moves everything a forward pass can: functional dropout and functional batch norm, in eval mode."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)), inplace=True)
        x = F.batch_norm(self.b(x), self.mean, self.var, training=True)
        x = F.dropout(F.relu(x), 0.2, training=True)
        self.passes = self.passes + 1  # a buffer that is exchanged, not written to
        return self.head(x.mean((2, 3)))


def restless():
    torch.manual_seed(3)
    model = Restless().train()
    model.norm.eval()  # a frozen stage in a training model
    model.b.weight.requires_grad_(False)
    model.a.weight.grad = torch.ones_like(model.a.weight)
    model.head.register_forward_hook(lambda m, i, o: None)
    return model


def fingerprint(model):
    modules = dict(model.named_modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": [(n, t.clone(), id(t)) for n, t in (*model.named_parameters(), *model.named_buffers())],
        "grads": [(n, None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()],
        "requires": [(n, p.requires_grad) for n, p in model.named_parameters()],
        "training": [(n, m.training) for n, m in modules.items()],
        "hooks": [(n, [list(getattr(m, kind)) for kind in hooks]) for n, m in modules.items()],
        "tree": [(n, id(m), sorted(vars(m))) for n, m in modules.items()],
        "random": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def images(count=2):
    return torch.randn(count, 3, 12, 10, generator=torch.Generator().manual_seed(5))


def asked(method):
    return {"layer": "b", "method": method} if method != "cam" else {"layer": "head", "method": method}


@pytest.mark.parametrize("method", [n for n, row in seewhy.METHODS.items() if n != "cam" and row.family != "attention"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.filterwarnings("ignore::seewhy.MapWarning")  # on random weights some maps are zero
def test_the_model_is_as_it_was(method, mode):
    model = restless()
    with mode():
        before = fingerprint(model)
        seewhy.explain(model, images(), target=1, method=method, layer=["a", "b"])
        assert same(before, fingerprint(model))


def test_the_fingerprint_sees_what_a_plain_forward_does():
    model = restless()
    before = fingerprint(model)
    model(images())
    after = fingerprint(model)
    assert not same(before["values"], after["values"])
    assert not same(before["random"], after["random"])


def test_the_model_is_as_it_was_when_the_target_raises():
    model = restless()

    def broken(output, rows):
        raise RuntimeError("in the middle")

    before = fingerprint(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        seewhy.explain(model, images(), target=broken, layer="b")
    assert same(before, fingerprint(model))


def test_the_model_is_as_it_was_when_the_forward_raises():
    model = restless()
    model.head.register_forward_hook(lambda m, i, o: 1 / 0)
    before = fingerprint(model)
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        seewhy.explain(model, images(), target=1, layer="b")
    assert same(before, fingerprint(model))


def test_nothing_is_held_after_the_call():
    model = restless()
    explanation = seewhy.explain(model, images(), target=1, layer="b")
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert explanation.map.grad_fn is None


def tensors_in_cycles(run):
    """The tensors that a call leaves to the garbage collector, instead of giving them back at its end."""
    gc.collect()
    gc.disable()
    try:
        run()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return [each for each in gc.garbage if isinstance(each, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("method", [n for n, row in seewhy.METHODS.items() if n != "cam" and row.family != "attention"])
@pytest.mark.filterwarnings("ignore::seewhy.MapWarning")
def test_no_tensor_is_left_to_the_garbage_collector(method):
    model = restless()
    explain = partial(seewhy.explain, model, images(), target=1, method=method, layer=["a", "b"])
    explain()  # finds the layers
    assert tensors_in_cycles(explain) == []


def test_tensors_in_cycles_are_seen():
    def cyclic():
        kept = {"tensor": torch.ones(3)}
        kept["itself"] = kept

    assert len(tensors_in_cycles(cyclic)) == 1


def test_eight_threads_get_the_answers_of_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
    model.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)])
    model.train()
    batches = [torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(n)) for n in range(8)]
    ask = lambda n: seewhy.explain(model, batches[n], target=n % 5, method="layer_cam", layer=str(3 + n % 2))  # noqa: E731
    alone = [ask(n).map for n in range(8)]
    found: dict[int, list[torch.Tensor]] = {n: [] for n in range(8)}
    before = fingerprint(model)
    threads = [threading.Thread(target=lambda n=n: found[n].extend(ask(n).map for _ in range(5))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(maps) == 5 and all(torch.equal(m, alone[n]) for m in maps) for n, maps in found.items())
    assert same(before, fingerprint(model))


def test_a_recomputing_model_in_training_mode_is_as_it_was():
    from torch.utils.checkpoint import checkpoint

    class Recomputing(Restless):
        def forward(self, x):
            tail = lambda y: F.relu(self.norm(F.relu(y)))  # noqa: E731
            return self.head(F.pad(checkpoint(tail, self.a(x), use_reentrant=False).mean((2, 3)), (0, 2)))

    torch.manual_seed(0)
    model = Recomputing().train()
    before = fingerprint(model)
    e = seewhy.explain(model, images(), 1, layer="a")
    assert same(before, fingerprint(model))
    torch.testing.assert_close(e.map, seewhy.explain(model.eval(), images(), 1, layer="a").map)


def test_two_models_in_two_threads_leave_the_process_as_it_was():
    torch.manual_seed(0)
    models = [restless(), restless()]
    for model in models:
        model.compile(backend="eager")
        model(images())
    expected = [seewhy.explain(model, images(), 1, layer="b").map for model in models]
    state = torch.get_rng_state()
    found: list[list[torch.Tensor]] = [[], []]
    threads = [
        threading.Thread(
            target=lambda n=n: found[n].extend(seewhy.explain(models[n], images(), 1, layer="b").map for _ in range(20))
        )
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(maps) for maps in found] == [20, 20]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(m, expected[n]) for n in range(2) for m in found[n])
    assert torch._dynamo.eval_frame._stance.stance == "default"


class Gated(nn.Module):
    """A frozen trunk inside no_grad with a head outside, as people fine-tune."""

    def __init__(self, gate):
        super().__init__()
        self.gate = gate
        self.trunk = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1), nn.GELU())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        with torch.set_grad_enabled(not self.gate):
            features = self.trunk(x)
            features = features * 2
        return self.head(features.square().mean((2, 3)))


@pytest.mark.parametrize("layer", [None, "trunk.1", ["trunk.1", "trunk.3"]])
@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_no_grad_block_inside_the_model_hides_nothing(layer, method, differentiable):
    torch.manual_seed(0)
    gated, images = Gated(True), torch.randn(2, 3, 12, 12)
    plain = Gated(False)
    plain.load_state_dict(gated.state_dict())
    there = seewhy.explain(gated, images, 1, method, layer, differentiable=differentiable)
    here = seewhy.explain(plain, images, 1, method, layer, differentiable=differentiable)
    assert there.layers == here.layers
    assert here.map.abs().max() > 0
    torch.testing.assert_close(there.map, here.map)
    assert torch.is_grad_enabled()


def test_a_model_that_writes_into_its_input_does_not_write_into_the_callers():
    class Editing(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            x.sub_(0.5).div_(0.25)
            return self.head(self.body(x).square().mean((2, 3)))

    torch.manual_seed(0)
    model, images = Editing(), torch.rand(2, 3, 12, 12)
    before = images.clone()
    first = seewhy.explain(model, images, 1)
    assert torch.equal(images, before)
    assert torch.equal(seewhy.explain(model, images, 1).map, first.map)

    def by_half(inputs, scores_at):
        halved = inputs * 1.0
        one, two = (scores_at(halved, torch.arange(2)) for _ in range(2))
        return (one - two)[:, None, None].expand(-1, 12, 12) + torch.eye(12)

    assert float(seewhy.explain(model, images, 1, by_half).map[:, 0, -1].abs().max()) == 0
