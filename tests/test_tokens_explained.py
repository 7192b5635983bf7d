"""Attention methods from model to map, on a small transformer whose every step is written out beside them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seewhy
from seewhy.methods import chefer, legrad
from seewhy.types import MethodError

METHODS = [name for name, row in seewhy.METHODS.items() if row.layers == "tokens"]


class Block(nn.Module):
    """Attention and an MLP, both residual; `eager` spells the attention out."""

    def __init__(self, width, heads, eager):
        super().__init__()
        self.heads, self.eager = heads, eager
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.mlp = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).movedim(2, 0).transpose(2, 3)
        if self.eager:
            mixed = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Transformer(nn.Module):
    """A class token ahead of the patches of an image, and a head that reads it."""

    def __init__(self, eager=False):
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 12, 4, 4), nn.Parameter(torch.randn(1, 1, 12))
        self.place = nn.Parameter(torch.randn(1, 13, 12))
        self.blocks = nn.Sequential(*(Block(12, 3, eager) for _ in range(3)))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.place
        return self.head(self.blocks(tokens)[:, 0])


def made(eager=False):
    torch.manual_seed(0)
    return Transformer(eager).double().eval(), torch.randn(2, 3, 12, 16, dtype=torch.float64)


def by_hand(model, images, target):
    """The attention of every block and its gradient, by running the blocks one after the other."""
    kept = []

    def softmax(x, dim=-1, **_):
        found = torch.softmax(x, dim)
        found.retain_grad()
        kept.append(found)
        return found

    eager = copy.deepcopy(model)
    for block in eager.blocks:
        block.eager = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", softmax)
        eager(images)[:, target].sum().backward()
    return [each.detach() for each in kept], [each.grad for each in kept]


def patches(numbers):
    return numbers[:, 1:].unflatten(1, (3, 4))


@pytest.mark.parametrize("eager", [False, True])
def test_the_relevance_is_that_of_the_attention_written_out(eager):
    model, images = made(eager)
    attentions, gradients = by_hand(model, images, 2)
    reading = torch.eye(13, dtype=torch.float64)[:1].expand(2, -1)
    found = seewhy.explain(model, images, 2, "chefer")
    torch.testing.assert_close(found.raw["blocks.2"], chefer(attentions, gradients, patches, reading))
    assert found.map.shape == (2, 12, 16)
    assert "layer blocks.2: the last of 3 blocks with attention" in found.notes


def test_each_block_answers_for_the_mean_of_its_own_tokens():
    model, images = made(eager=True)
    gradients = []
    for depth in range(3):
        cut = copy.deepcopy(model)
        cut.blocks = cut.blocks[: depth + 1]
        own = cut.blocks[-1].forward
        # the head reads the class token of the last block: here the mean of all tokens stands for it
        cut.blocks[-1].forward = lambda x, own=own: own(x).mean(1, keepdim=True)
        gradients.append(by_hand(cut, images, 1)[1][-1])
    found = seewhy.explain(model, images, 1, "legrad")
    torch.testing.assert_close(found.raw["blocks.2"], legrad(gradients, patches))


@pytest.mark.parametrize("method", METHODS)
def test_fused_or_eager_and_one_question_or_several_give_the_same_map(method):
    model, images = made()
    together = seewhy.compare(model, images, [1, 2], [method])
    for question, target in enumerate((1, 2)):
        alone = seewhy.explain(made(True)[0], images, target, method)
        assert alone.map.max() > 0
        torch.testing.assert_close(together[question].map, alone.map)
        single = seewhy.explain(model, images[1:], target, method)
        torch.testing.assert_close(single.map[0], alone.map[1])


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_as_it_was(method):
    model, images = made()
    before, out = copy.deepcopy(model.state_dict()), model(images)
    with torch.no_grad():
        seewhy.explain(model, images, 1, method)
    assert torch.equal(model(images), out)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(vars(module)["_forward_hooks"] or "forward" in vars(module) for module in model.modules())


def test_a_net_without_attention_is_told():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(MethodError) as told:
        seewhy.explain(model, torch.randn(1, 3, 8, 8), 1, "chefer")
    assert str(told.value).startswith("no softmax attention ran in this model, so there is none to follow; use grad_")
