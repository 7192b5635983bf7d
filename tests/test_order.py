"""Cells that do not look where they stand are told; all else is left alone."""

import pytest
import torch
from torch import nn

import seewhy
from seewhy.model.batch import Batch
from seewhy.model.order import elsewhere
from seewhy.model.trace import Trace
from seewhy.types import MapWarning

BLOCKS = torch.arange(64).reshape(4, 2, 4, 2).permute(0, 2, 1, 3).flatten()


class Reordered(nn.Module):
    """Patches, put into another order, and mixed within each."""

    def __init__(self, order, rank=2):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.patches, self.order, self.mix = nn.Sequential(conv(3, 8, 8, 8), nn.ReLU()), order, conv(8, 8, 1)

    def forward(self, images):
        return self.mix(self.order(self.patches(images))).relu().flatten(2).mean(2)


def in_tokens(index):
    return lambda a: a.flatten(2)[..., index].unflatten(2, (8, 8))


ORDERS = {
    "flipped": lambda a: a.flip(-1),
    "upside down": lambda a: a.flip(-2),
    "transposed": lambda a: a.transpose(2, 3),
    "rolled": lambda a: a.roll(3, 3),
    "rotated": lambda a: a.rot90(1, (2, 3)),
    "reversed": lambda a: a.flatten(2).flip(-1).unflatten(2, (8, 8)),
    "in blocks": in_tokens(BLOCKS),
}


def found(model, images):
    torch.manual_seed(0)
    trace = Trace.of(model.eval(), Batch(images), lambda scores: scores)
    edge, shape = trace.edge("mix")
    return elsewhere(edge, shape, trace.image, lambda raw: raw)


@pytest.mark.parametrize("order", ORDERS)
def test_cells_in_another_order_are_told(order):
    assert found(Reordered(ORDERS[order]), torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(("rank", "shape"), [(1, (64,)), (3, (32, 32, 32))])
def test_on_any_number_of_axes(rank, shape):
    torch.manual_seed(0)
    images = torch.rand(1, 3, *shape)
    assert found(Reordered(lambda a: a.flip(2), rank), images)
    assert not found(Reordered(lambda a: a, rank), images)


@pytest.mark.parametrize(
    "order",
    [lambda a: a, lambda a: a.roll(1, 3), lambda a: a + a.mean((2, 3), keepdim=True), lambda a: 0 * a],
    ids=["as they are", "by one cell", "with all of the picture", "nothing"],
)
def test_cells_at_their_place_are_left_alone(order):
    assert not found(Reordered(order), torch.rand(1, 3, 64, 64))


def test_attention_that_is_all_over_the_picture_tells_nothing():
    def mixed(a):
        tokens = a.flatten(2)
        return torch.softmax(0.01 * tokens.mT @ tokens, -1).matmul(tokens.mT).mT.unflatten(2, (8, 8))

    assert not found(Reordered(mixed), torch.rand(1, 3, 64, 64))


def test_a_map_of_such_a_layer_warns_and_says_why():
    torch.manual_seed(0)
    model = Reordered(ORDERS["flipped"])
    images = torch.rand(1, 3, 64, 64)
    with pytest.warns(MapWarning, match="layer mix: its cells read other places of the image than those where they"):
        e = seewhy.explain(model, images, layer="mix", rectify=False)
    assert any(note.startswith("layer mix: its cells read other places") for note in e.notes)
    ahead = seewhy.explain(model, images, layer="patches", rectify=False)
    assert not any("other places" in note for note in ahead.notes)
