"""Cells that do not look where they stand are laid where they do, or told; all else is left alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import seewhy
from seewhy.model.alignment import tile
from seewhy.model.batch import Batch
from seewhy.model.order import look
from seewhy.model.trace import Trace
from seewhy.types import MapWarning

ROWS = torch.arange(64).reshape(8, 8)
EVEN = torch.arange(8) % 2 == 0


def by_rows(change):
    """The places in an order that is made of the rows of an 8x8 grid."""
    places = change(ROWS.clone()).flatten()
    return lambda a: a.flatten(2)[..., places].unflatten(2, (8, 8))


def some_rows(which, change):
    return by_rows(lambda rows: torch.where(which[:, None], change(rows), rows))


class Reordered(nn.Module):
    """A picture that is prepared, cut into patches, put into another order, and mixed within each."""

    def __init__(self, order=lambda a: a, rank=2, prepared=lambda images: images):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.patches, self.order, self.mix = nn.Sequential(conv(3, 8, 8, 8), nn.ReLU()), order, conv(8, 8, 1)
        self.prepared = prepared

    def forward(self, images):
        return self.mix(self.order(self.patches(self.prepared(images)))).relu().flatten(2).mean(2)


ORDERS = {
    "flipped": lambda a: a.flip(-1),
    "upside down": lambda a: a.flip(-2),
    "transposed": lambda a: a.transpose(2, 3),
    "rotated": lambda a: a.rot90(1, (2, 3)),
    "rolled": lambda a: a.roll(3, 3),
    "rolled right by one": lambda a: a.roll(1, 3),
    "rolled left by one": lambda a: a.roll(-1, 3),
    "rolled down by one": lambda a: a.roll(1, 2),
    "rolled up by one": lambda a: a.roll(-1, 2),
    "reversed": lambda a: a.flatten(2).flip(-1).unflatten(2, (8, 8)),
    "shuffled": by_rows(lambda rows: rows.flatten()[torch.randperm(64, generator=torch.Generator().manual_seed(1))]),
    "snake": some_rows(~EVEN, lambda rows: rows.flip(1)),
    "upper half mirrored": some_rows(torch.arange(8) < 4, lambda rows: rows.flip(1)),
    "lower half mirrored": some_rows(torch.arange(8) > 3, lambda rows: rows.flip(1)),
    "odd rows rolled": some_rows(~EVEN, lambda rows: rows.roll(4, 1)),
    "even rows first": by_rows(lambda rows: torch.cat([rows[0::2], rows[1::2]])),
    "windows": by_rows(lambda rows: rows.reshape(2, 4, 2, 4).transpose(1, 2)),
    "blocks of four": by_rows(lambda rows: rows.reshape(4, 2, 4, 2).transpose(1, 2)),
}


def found(model, images):
    torch.manual_seed(0)
    trace = Trace.of(model.eval(), Batch(images), lambda scores: scores)
    edge, shape = trace.edge("mix")
    return look(edge, shape, trace.image, lambda raw: raw)


@pytest.mark.parametrize("order", ORDERS)
def test_cells_in_another_order_are_told(order):
    placement, doubt = found(Reordered(ORDERS[order]), torch.rand(1, 3, 64, 64))
    assert doubt.startswith("its cells read other places")
    assert placement == tile((8, 8), (64, 64))


def test_how_far_away_cells_look_is_told_in_pixels():
    assert found(Reordered(ORDERS["flipped"]), torch.rand(1, 3, 64, 64))[1].endswith("up to 56 pixels away")


@pytest.mark.parametrize(("rank", "shape"), [(1, (64,)), (3, (32, 32, 32))])
def test_on_any_number_of_axes(rank, shape):
    torch.manual_seed(0)
    images = torch.rand(1, 3, *shape)
    grid = tuple(length // 8 for length in shape)
    for axis in range(2, 2 + rank):
        assert found(Reordered(lambda a, axis=axis: a.flip(axis), rank), images)[1]
    assert found(Reordered(rank=rank), images) == (tile(grid, shape), "")


def test_axes_that_change_places_in_three_dimensions_are_told():
    for axes in ((2, 3), (2, 4), (3, 4)):
        model = Reordered(lambda a, axes=axes: a.transpose(*axes), 3)
        assert found(model, torch.rand(1, 3, 32, 32, 32))[1]


@pytest.mark.parametrize(
    "order",
    [lambda a: a, lambda a: a + a.mean((2, 3), keepdim=True), lambda a: 0 * a],
    ids=["as they are", "with all of the picture", "nothing"],
)
def test_cells_at_their_place_are_left_alone(order):
    assert found(Reordered(order), torch.rand(1, 3, 64, 64)) == (tile((8, 8), (64, 64)), "")


def test_attention_that_is_all_over_the_picture_tells_nothing():
    def mixed(a):
        tokens = a.flatten(2)
        return torch.softmax(0.01 * tokens.mT @ tokens, -1).matmul(tokens.mT).mT.unflatten(2, (8, 8))

    assert found(Reordered(mixed), torch.rand(1, 3, 64, 64)) == (tile((8, 8), (64, 64)), "")


def pasted(side, top=0.0):
    """Fitted into a black square by a copy, as detectors do; `top` is the share of the rest that is above."""

    def prepared(images):
        scale = side / max(images.shape[2:])
        small = F.interpolate(images, [round(length * scale) for length in images.shape[2:]], mode="bilinear")
        first = round(top * (side - small.shape[2]))
        square = images.new_zeros(*images.shape[:2], side, side)
        square[:, :, first : first + small.shape[2], : small.shape[3]] = small
        return square

    return prepared


def cropped(first, last, side):
    return lambda images: F.interpolate(images[..., first:last], (side, side), mode="bilinear")


# the first pixel of a picture's axis that the model gets, and how many it gets
PREPARED = {
    "crop of the middle": (cropped(128, 384, 128), (256, 512), (0, 256), (128, 256)),
    "crop of the left": (cropped(0, 384, 128), (256, 512), (0, 256), (0, 384)),
    "letterbox": (pasted(128, 0.5), (96, 128), (-16, 128), (0, 128)),
    "below": (pasted(128), (96, 128), (0, 128), (0, 128)),
    "a bit below": (pasted(160), (152, 160), (0, 160), (0, 160)),
}


@pytest.mark.parametrize("case", PREPARED)
def test_cells_of_a_picture_cropped_or_pasted_inside_the_model_are_laid_where_they_look(case):
    prepared, size, *spans = PREPARED[case]
    placement, doubt = found(Reordered(prepared=prepared), torch.randn(1, 3, *size))
    assert (placement.kind, doubt) == ("measured", "")
    cells = {"a bit below": 20}.get(case, 16)
    for (first, length), offset, stride in zip(spans, placement.offset, placement.stride, strict=True):
        step = length / cells
        for cell in range(cells):
            where = first + (cell + 0.5) * step - 0.5
            assert abs(offset + stride * cell - where) < step / 2


def test_where_too_few_cells_see_the_picture_they_are_told():
    placement, doubt = found(Reordered(prepared=pasted(128)), torch.randn(1, 3, 64, 128))
    assert placement.kind == "tile"
    assert doubt.startswith("its cells read other places")


def test_cells_that_read_nothing_where_others_do_are_told():
    middle = F.pad(torch.ones(40, 40), (12, 12, 12, 12))
    _, doubt = found(Reordered(prepared=lambda images: images * middle), torch.randn(1, 3, 64, 64))
    assert doubt == "2 of 5 cells asked read nothing of the image"


def test_a_map_of_such_a_layer_warns_and_says_why():
    torch.manual_seed(0)
    model = Reordered(ORDERS["flipped"])
    images = torch.rand(1, 3, 64, 64)
    with pytest.warns(MapWarning, match="layer mix: its cells read other places of the image than those where they"):
        e = seewhy.explain(model, images, layer="mix", rectify=False)
    assert any(note.startswith("layer mix: its cells read other places") for note in e.notes)
    ahead = seewhy.explain(model, images, layer="patches", rectify=False)
    assert not any("other places" in note for note in ahead.notes)


def test_a_map_of_a_crop_lies_over_it_and_says_so():
    torch.manual_seed(0)
    model = Reordered(prepared=cropped(128, 384, 128)).eval()
    images = torch.zeros(1, 3, 256, 512)
    images[..., 96:112, 336:352] = torch.randn(3, 16, 16)
    e = seewhy.explain(model, images, 1, "hires_cam", layer="mix", rectify=False)
    row, column = divmod(int((e.map - e.map.median())[0].abs().argmax()), 512)
    assert (96 <= row < 112, 336 <= column < 352) == (True, True)
    assert any("pixels apart instead of 16, 32" in note and "laid accordingly" in note for note in e.notes)
