"""Layouts against index arithmetic written out, and what may and may not be inferred from shapes and clues."""

import pytest
import torch

from seewhy.model.tokens import Clues, Layout, fits, infer, possible, stated
from seewhy.types import LayerError


def numbered(*shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


LAYOUTS = {
    "bchw": (Layout("bc*", (2, 3)), numbered(2, 5, 2, 3)),
    "bhwc": (Layout("b*c", (2, 3)), numbered(2, 2, 3, 5)),
    "bdhwc": (Layout("b*c", (2, 3, 4)), numbered(2, 2, 3, 4, 5)),
    "blc": (Layout("b*c", (7,)), numbered(2, 7, 5)),
    "prefix": (Layout("bnc", (2, 3), range(1, 7)), numbered(2, 7, 5)),
    "both ends": (Layout("bnc", (2, 3), range(2, 8)), numbered(2, 11, 5)),
    "middle": (Layout("bnc", (2, 3), (0, 1, 2, 4, 5, 6)), numbered(2, 7, 5)),
    "bcn": (Layout("bcn", (2, 3), range(1, 7)), numbered(2, 5, 7)),
}


def cell(layout, raw, channel, place):
    """One channel of one cell, looked up by the meaning of the axes."""
    if layout.kind == "bc*":
        return raw[(slice(None), channel, *place)]
    if layout.kind == "b*c":
        return raw[(slice(None), *place, channel)]
    token = layout.positions[place[0] * layout.grid[1] + place[1]]
    return raw[:, token, channel] if layout.kind == "bnc" else raw[:, channel, token]


@pytest.mark.parametrize("name", LAYOUTS)
def test_cells_are_where_the_axes_say(name):
    layout, raw = LAYOUTS[name]
    cells = layout.to_cells(raw)
    assert cells.shape == (2, 5, *layout.grid)
    for channel in range(5):
        for place in (
            torch.cartesian_prod(*(torch.arange(n) for n in layout.grid)).reshape(-1, len(layout.grid)).tolist()
        ):
            expected = cell(layout, raw, channel, tuple(place))
            assert torch.equal(cells[(slice(None), channel, *place)], expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_there_and_back_is_the_identity(name):
    layout, raw = LAYOUTS[name]
    assert torch.equal(layout.from_cells(layout.to_cells(raw), raw), raw)


@pytest.mark.parametrize("name", LAYOUTS)
def test_new_cells_leave_other_tokens_alone_and_mutate_nothing(name):
    layout, raw = LAYOUTS[name]
    kept = raw.clone()
    replaced = layout.from_cells(layout.to_cells(raw) + 1000, raw)
    assert torch.equal(raw, kept)
    assert torch.equal(layout.to_cells(replaced), layout.to_cells(raw) + 1000)
    changed = (replaced != raw).sum().item()
    assert changed == layout.to_cells(raw).numel()
    assert torch.equal(replaced[replaced == raw], raw[replaced == raw])


@pytest.mark.parametrize("name", LAYOUTS)
def test_axes_ahead_of_the_batch_pass_through(name):
    layout, raw = LAYOUTS[name]
    several = torch.stack([raw, 2 * raw, 3 * raw])
    expected = torch.stack([layout.to_cells(question) for question in several])
    assert torch.equal(layout.to_cells(several), expected)
    assert torch.equal(layout.from_cells(expected, several), several)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_gradient_of_the_cells_is_that_of_the_raw_tensor_in_their_place(name):
    layout, raw = LAYOUTS[name]
    raw = raw.clone().requires_grad_()
    cotangent = torch.randn(layout.to_cells(raw).shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((layout.to_cells(raw) * cotangent).sum(), raw)
    assert torch.equal(layout.to_cells(gradient), cotangent)
    assert gradient.count_nonzero() == cotangent.numel()  # none for the other tokens


def test_no_copy_is_made_of_what_stands_in_a_row():
    for name, (layout, raw) in LAYOUTS.items():
        shared = layout.to_cells(raw).untyped_storage().data_ptr() == raw.untyped_storage().data_ptr()
        assert shared == (name != "middle"), name


@pytest.mark.parametrize(
    ("grid", "size", "fit"),
    [
        ((7, 7), (224, 224), True),
        ((7, 10), (224, 320), True),
        ((10, 7), (224, 320), False),
        ((8, 8), (299, 299), True),
        ((9, 10), (299, 320), True),  # 299 / 32 = 9.3, each axis rounds by itself
        ((7, 7), (224, 320), False),
        ((49, 1), (224, 224), False),
        ((4, 3, 3), (8, 96, 96), False),
    ],
)
def test_a_grid_fits_if_one_stride_explains_all_axes(grid, size, fit):
    assert fits(grid, size) is fit


def test_channels_are_told_from_places_by_the_aspect_of_the_image():
    assert possible((1, 512, 7, 10), (224, 320), Clues(1)) == [Layout("bc*", (7, 10))]
    assert possible((1, 7, 10, 512), (224, 320), Clues(1)) == [Layout("b*c", (7, 10))]
    assert possible((1, 10, 7, 512), (224, 320), Clues(1)) == []


def test_proof_of_the_channel_axis_decides_where_shapes_do_not():
    shape, size = (1, 8, 8, 8), (64, 64)
    assert len(possible(shape, size, Clues(1))) == 2
    assert infer(shape, size, Clues(1, channels=1)) == Layout("bc*", (8, 8))
    assert infer(shape, size, Clues(1, channels=3)) == Layout("b*c", (8, 8))
    assert possible(shape, size, Clues(1, channels=2)) == []


def test_an_exact_grid_is_preferred_to_one_that_is_a_cell_off():
    assert infer((1, 7, 7, 8), (224, 224), Clues(1)) == Layout("b*c", (7, 7))


def test_uneven_strides_are_believed_of_a_tensor_that_was_never_reshaped():
    shape, size = (1, 64, 1, 25), (32, 100)  # a text reader: height is pooled away, width is not
    assert possible(shape, size, Clues(1, channels=1)) == []
    assert possible(shape, size, Clues(1, channels=1, unshaped=True)) == [Layout("bc*", (1, 25))]


def test_windows_folded_into_the_batch_are_refused():
    assert possible((64, 49, 96), (224, 224), Clues(1, grids=((7, 7),))) == []
    assert possible((64, 7, 7, 96), (224, 224), Clues(1)) == []


def test_tokens_take_the_nearest_grid_that_was_seen():
    clues = Clues(1, channels=2, grids=((7, 7), (14, 14)))
    assert possible((1, 196, 64), (224, 224), clues) == [Layout("bnc", (14, 14), range(196))]
    assert possible((1, 100, 64), (224, 224), clues) == []  # queries: no grid of so many was seen, 10x10 is not made up


def test_tokens_without_any_grid_before_them_take_the_aspect_of_the_image():
    assert possible((1, 280, 64), (224, 320), Clues(1, channels=2)) == [Layout("bnc", (14, 20), range(280))]
    assert possible((1, 281, 64), (224, 320), Clues(1, channels=2)) == []


def test_other_tokens_are_left_out():
    clues = Clues(1, channels=2, grids=((14, 14),), patches={1: range(1, 197)})
    assert possible((1, 297, 64), (224, 224), clues) == [Layout("bnc", (14, 14), range(1, 197))]


def test_other_tokens_keep_their_places_where_all_tokens_have_met():
    clues = Clues(1, channels=2, grids=((7, 7),), patches={1: range(50)}, others=(1, 0))
    assert possible((1, 50, 64), (224, 224), clues) == [Layout("bnc", (7, 7), range(1, 50))]


def test_sequences_need_proof_of_which_axis_is_which():
    assert infer((1, 16, 50), (200,), Clues(1, channels=1)) == Layout("bc*", (50,))
    assert infer((1, 50, 16), (200,), Clues(1, channels=2)) == Layout("b*c", (50,))
    clues = Clues(1, channels=2, patches={1: range(1, 51)})
    assert infer((1, 51, 16), (200,), clues) == Layout("bnc", (50,), range(1, 51))


def test_an_ambiguous_shape_is_refused_with_the_choices():
    with pytest.raises(LayerError) as error:
        infer((1, 8, 8, 8), (64, 64), Clues(1))
    assert str(error.value) == (
        "got a layer output of shape (1, 8, 8, 8), which can be read in several ways; pass "
        'layout="b c h w" (grid 8x8) or layout="b h w c" (grid 8x8)'
    )


def test_a_shape_without_a_grid_is_refused_with_the_way_out():
    with pytest.raises(LayerError) as error:
        infer((1, 1000), (64, 64), Clues(1))
    assert str(error.value) == (
        "got a layer output of shape (1, 1000), which has no grid of an image of 64x64; name a layer with one cell "
        'for each place of the image, or state its axes with layout=, as in layout="b h w c"'
    )


@pytest.mark.parametrize(
    ("pattern", "shape", "layout"),
    [
        ("b c h w", (1, 8, 8, 8), Layout("bc*", (8, 8))),
        ("bchw", (1, 8, 8, 8), Layout("bc*", (8, 8))),
        ("b h w c", (1, 8, 8, 8), Layout("b*c", (8, 8))),
        ("b n c", (1, 64, 5), Layout("bnc", (8, 8), range(64))),
        ("b c n", (1, 5, 64), Layout("bcn", (8, 8), range(64))),
        ("b 1+n c", (1, 65, 5), Layout("bnc", (8, 8), range(1, 65))),
        ("b 2 + n + 3 c", (1, 69, 5), Layout("bnc", (8, 8), range(2, 66))),
        ("b 16x4 c", (1, 64, 5), Layout("bnc", (16, 4), range(64))),
        ("b 1+16x4 c", (1, 65, 5), Layout("bnc", (16, 4), range(1, 65))),
        ("b c 16x4+2", (1, 5, 66), Layout("bcn", (16, 4), range(64))),
    ],
)
def test_a_stated_layout_is_taken(pattern, shape, layout):
    assert stated(pattern, shape, (64, 64), Clues(1)) == layout


def test_a_stated_sequence_of_a_line_is_its_own_grid():
    assert stated("b l c", (1, 20, 5), (80,), Clues(1)) == Layout("b*c", (20,))
    assert stated("b c l", (1, 5, 20), (80,), Clues(1)) == Layout("bc*", (20,))


@pytest.mark.parametrize("pattern", ["b h w", "h w b c", "b h w d", "b c c w", "b h c w"])
def test_a_stated_layout_that_does_not_fit_is_refused(pattern):
    with pytest.raises(LayerError, match=r"for an output of shape \(1, 8, 8, 8\); write one letter for each axis"):
        stated(pattern, (1, 8, 8, 8), (64, 64), Clues(1))


def test_stated_tokens_that_make_no_grid_are_refused():
    with pytest.raises(LayerError) as error:
        stated("b n c", (1, 65, 5), (64, 64), Clues(1))
    assert str(error.value) == (
        "65 patch tokens make no grid of an image of 64x64; state the others as well, as in "
        'layout="b 1+n c" for one class token ahead of the patches, or their grid, as in layout="b 16x4 c"'
    )
    with pytest.raises(LayerError, match="64 patch tokens make 16x5 of an image of 64x64; state the others"):
        stated("b 16x5 c", (1, 64, 5), (64, 64), Clues(1))
    with pytest.raises(LayerError, match=r"got .4n. as the tokens of a layout; write n, 1.n"):
        stated("b 4n c", (1, 64, 5), (64, 64), Clues(1))
