"""Pictures: their colors, that cold pixels stay, and that nothing is lost at a border."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from seewhy.render import text as text_file
from seewhy.render.color import COLORMAPS, colorize
from seewhy.render.figure import Panel, colorbar, figure
from seewhy.render.overlay import _background, draw_boxes, edges, overlay
from seewhy.render.text import lines_of, paragraph
from seewhy.types import MethodError, ShapeError

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))
PIXELS = np.asarray(PHOTO).astype(float)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def luminance(colors: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB colors."""
    share = colors / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_colormaps_are_smooth_tables_that_nobody_can_overwrite():
    for name, table in COLORMAPS.items():
        assert table.shape == (256, 3), name
        assert np.abs(np.diff(table.astype(int), axis=0)).max() <= 12, name
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0


def test_colors_are_those_of_the_papers():
    np.testing.assert_allclose(COLORMAPS["jet"][[0, 127, 255]], [[0, 0, 128], [125, 255, 130], [128, 0, 0]], atol=1)
    assert COLORMAPS["inferno"][[0, 255]].tolist() == [[0, 0, 4], [252, 255, 164]]
    # the polynomial that Google published beside its table of turbo, whose ends are off by up to 32
    red = [0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943]
    green = [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604]
    blue = [0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973]
    places = np.linspace(0, 1, 256)
    expected = np.polynomial.polynomial.polyval(places, np.array([red, green, blue]).T).T.clip(0, 1) * 255
    error = np.abs(COLORMAPS["turbo"] - expected)
    assert error.max() < 35
    assert error.mean() < 7


def test_inferno_grows_lighter_all_along_and_the_signs_are_neutral_in_the_middle():
    assert (np.diff(luminance(COLORMAPS["inferno"])) >= 0).all()
    signs = COLORMAPS["coolwarm"].astype(int)
    assert np.ptp(signs[127:129], axis=1).max() <= 3
    assert (signs[:100, 2] > signs[:100, 0] + 30).all()
    assert (signs[156:, 0] > signs[156:, 2] + 30).all()


def test_colorize_takes_the_nearest_color():
    values = torch.linspace(0, 1, 256)[None]
    np.testing.assert_array_equal(colorize(values, "inferno")[0], COLORMAPS["inferno"])
    np.testing.assert_array_equal(colorize(torch.tensor([[0.0, 1.0]]).bfloat16(), "jet")[0], COLORMAPS["jet"][[0, 255]])


def test_zero_heat_leaves_the_photo_and_full_heat_blends_by_the_formula():
    heat = torch.zeros(20, 30)
    heat[3, 4], heat[10, 20] = 1.0, 0.5
    found = np.asarray(overlay(PHOTO, heat, opacity=0.6)).astype(float)
    cold = (heat == 0).numpy()
    np.testing.assert_array_equal(found[cold], PIXELS[cold])
    for (row, column), share in (((3, 4), 0.6), ((10, 20), 0.3)):
        color = colorize(heat)[row, column]
        np.testing.assert_allclose(found[row, column], (1 - share) * PIXELS[row, column] + share * color, atol=0.51)


def test_signed_heat_is_blue_and_red_and_zero_is_neutral():
    heat = torch.zeros(20, 30)
    heat[0, 0], heat[0, 1] = -1.0, 1.0
    found = np.asarray(overlay(PHOTO, heat, opacity=1.0))
    np.testing.assert_array_equal(found[0, :2], COLORMAPS["coolwarm"][[0, 255]])
    np.testing.assert_array_equal(found[1:], np.asarray(PHOTO)[1:])
    positive = np.asarray(overlay(PHOTO, heat.abs(), opacity=1.0, colormap="coolwarm"))
    np.testing.assert_array_equal(positive[0, :2], COLORMAPS["coolwarm"][[255, 255]])


def test_backgrounds_are_the_photo_in_grey_or_its_edges():
    none = torch.zeros(20, 30)
    grey = np.asarray(PHOTO.convert("L"))[..., None].repeat(3, -1)
    np.testing.assert_array_equal(np.asarray(overlay(PHOTO, none, background="grey")), grey)
    np.testing.assert_array_equal(np.asarray(overlay(PHOTO, none, background="edges")), np.asarray(edges(PHOTO)))


def test_overlay_changes_neither_photo_nor_heat():
    photo, heat = PHOTO.copy(), torch.rand(20, 30, requires_grad=True)
    before = heat.detach().clone()
    overlay(photo, heat, background="edges")
    np.testing.assert_array_equal(np.asarray(photo), np.asarray(PHOTO))
    assert torch.equal(heat, before)


def test_edges_are_dark_at_a_step_and_white_on_flat_ground():
    step = np.zeros((40, 40, 3), np.uint8)
    step[:, 20:] = 200
    found = np.asarray(edges(Image.fromarray(step)))[..., 0]
    assert (found[:, 19:21] < 60).all()
    assert (found[:, :15] == 255).all()
    assert (found[:, 25:] == 255).all()
    np.testing.assert_array_equal(np.asarray(edges(Image.fromarray(step.swapaxes(0, 1).copy())))[..., 0], found.T)
    assert (np.asarray(edges(Image.new("RGB", (9, 9), (77, 77, 77)))) == 255).all()


def test_edges_are_the_sobel_magnitude():
    smooth = np.asarray(PHOTO.convert("L").filter(ImageFilter.GaussianBlur(0.7))).astype(float)
    padded, across = np.pad(smooth, 1, mode="edge"), np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    strength = np.array(
        [
            [
                np.hypot(*((padded[y : y + 3, x : x + 3] * kernel).sum() for kernel in (across, across.T)))
                for x in range(30)
            ]
            for y in range(20)
        ]
    )
    expected = 255 * (1 - (strength / np.percentile(strength, 98)).clip(0, 1))
    np.testing.assert_allclose(np.asarray(edges(PHOTO))[..., 0], expected, atol=0.51)


def test_boxes_are_drawn_just_inside_their_edges_on_a_copy():
    black = Image.new("RGB", (30, 20), (9, 9, 9))
    found = np.asarray(draw_boxes(black, [(5, 4, 25, 16)]))
    changed = np.argwhere((found != 9).any(-1))
    assert (changed.min(0).tolist(), (changed.max(0) + 1).tolist()) == ([4, 5], [16, 25])
    assert found[4, 5].tolist() == [0, 0, 0]  # the rim
    assert found[5, 6].tolist() == [255, 255, 255]
    assert (found[6:14, 7:23] == 9).all()
    assert (np.asarray(black) == 9).all()


def test_boxes_beyond_the_picture_and_of_one_pixel_do_not_crash():
    found = np.asarray(draw_boxes(PHOTO, [(-9, -9, 99, 99), (3, 3, 4, 4), (5.4, 5.4, 5.5, 5.5)]))
    assert found[3, 3].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(found[8:], PIXELS[8:])


def test_text_is_wrapped_and_no_letter_is_lost():
    face = text_file._font(15, None)
    words = "Grad-CAM of features.denseblock4.denselayer16.conv2 and more"
    for width in (40, 90, 200, 1000):
        lines = lines_of(words, width, face)
        assert "".join(lines).replace(" ", "") == words.replace(" ", "")
        assert all(face.getlength(line) <= width for line in lines)
    assert lines_of("one\ntwo", 500, face) == ["one", "two"]
    assert lines_of("wide", 1, face) == ["w", "i", "d", "e"]


@pytest.mark.parametrize("words", ["gjpqy|ÅÇ", "W" * 12, "an Egyptian cat (87 %) · layer4.2", "日本 кот\ud800\x07\t😀"])
def test_no_ink_is_cut_off_at_the_border_of_a_paragraph(words):
    def ink(text, size):
        return (255 - np.asarray(paragraph(text, size, width=3000, ink=BLACK)).astype(int)).sum()

    for size in (11, 15, 19):
        wide = words * 5  # a wider line: the words get room at all four sides
        assert ink(words, size) > 0
        assert ink(f"\n{words}\n\n{wide}", size) == ink(words, size) + ink(wide, size)


@pytest.mark.parametrize("size", [11, 15, 19, 60])
def test_lines_do_not_run_into_each_other(size):
    two = np.asarray(paragraph("gjpy|\n|ÅÇgj", size, width=900, ink=BLACK)).min((1, 2)) < 255
    assert np.diff(two.astype(int), prepend=0).tolist().count(1) == 2


def test_letters_without_a_font_lose_their_accents(monkeypatch):
    monkeypatch.setattr(text_file, "_FONTS", (None, "no such font.ttf"))
    ours, plain = (paragraph(words, 15, width=300, ink=BLACK) for words in ("Café – Ägypten", "Cafe - Agypten"))
    assert ours.tobytes() == plain.tobytes()


def ink_box(picture: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    places = np.argwhere((np.asarray(picture) == color).all(-1))
    (top, left), (bottom, right) = places.min(0), places.max(0) + 1
    return int(left), int(top), int(right), int(bottom)


def test_panels_get_one_height_and_keep_their_aspect():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    sizes = [(400, 200), (4000, 3000), (28, 28)]
    picture = figure([Panel(Image.new("RGB", s, c), ["a title"]) for s, c in zip(sizes, colors, strict=True)])
    boxes = [ink_box(picture, color) for color in colors]
    assert len({(top, bottom) for _, top, _, bottom in boxes}) == 1
    for (left, top, right, bottom), (width, height) in zip(boxes, sizes, strict=True):
        assert bottom - top == 320
        assert (right - left) / (bottom - top) == pytest.approx(width / height, abs=0.01)


@pytest.mark.parametrize("size", [(3000, 30), (30, 3000)])
def test_extreme_shapes_stay_whole(size):
    picture = figure([Panel(Image.new("RGB", size, (255, 0, 0)), ["a title"]), Panel(PHOTO, ["other"])])
    left, top, right, bottom = ink_box(picture, (255, 0, 0))
    assert (right - left, bottom - top) == ((800, 8) if size[0] > size[1] else (3, 320))
    assert picture.width < 1400


def test_tiny_pictures_are_enlarged_without_blur():
    board = Image.fromarray(np.indices((8, 8)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    left, top, right, bottom = 14, 14, 334, 334
    found = np.asarray(figure([Panel(board)]))[top:bottom, left:right]
    np.testing.assert_array_equal(found, np.kron(np.asarray(board), np.ones((40, 40, 1))))


def test_long_titles_are_wrapped_above_their_panel():
    red, long = Image.new("RGB", (320, 320), (255, 0, 0)), "a very long title " * 12
    picture = figure([Panel(red, [long, "second"]), Panel(red, ["short"])], title="Why did you say that?")
    pixels = np.asarray(picture).astype(int)
    left, top, _, bottom = ink_box(picture, (255, 0, 0))
    assert bottom - top == 320
    dark = np.argwhere(pixels.sum(-1) < 300)
    assert dark[:, 1].min() >= 14
    assert dark[:, 1].max() < picture.width - 14
    first = dark[(dark[:, 1] < left + 320) & (dark[:, 0] > 45)]
    assert first[:, 0].max() - first[:, 0].min() > 60  # several lines


def test_rows_and_columns_are_filled_in_order():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
    panels = [Panel(Image.new("RGB", (50, 50), color)) for color in colors]
    corners = {n: [ink_box(figure(panels, columns=n), color)[:2] for color in colors] for n in (1, 2, 5, 9)}
    assert [y for _, y in corners[1]] == [14 + 334 * i for i in range(5)]
    assert corners[2] == [(14 + 334 * (i % 2), 14 + 334 * (i // 2)) for i in range(5)]
    assert corners[5] == corners[9] == [(14 + 334 * i, 14) for i in range(5)]
    assert [y for _, y in (ink_box(figure(panels), color)[:2] for color in colors)] == [14, 14, 14, 348, 348]


def test_the_colorbar_shows_the_whole_colormap_its_ends_and_its_unit():
    bar = np.asarray(colorbar(256, colormap="inferno", label="share of the maximum"))
    np.testing.assert_array_equal(bar[0], COLORMAPS["inferno"])
    ticks = np.argwhere(bar[16:30].min(-1) < 128)
    assert ticks[:, 1].min() < 12
    assert ticks[:, 1].max() > 244
    assert bar.shape[0] > colorbar(256, colormap="inferno").height
    signs = np.asarray(colorbar(256, colormap="coolwarm"))[16:].min(-1)
    assert (signs[:, 118:138] < 128).any()  # the zero in the middle
    shown = figure([Panel(PHOTO)], bars={"turbo": "heat", "coolwarm": "for and against"})
    ends = [np.argwhere((np.asarray(shown) == COLORMAPS[name][0]).all(-1))[0, 0] for name in ("turbo", "coolwarm")]
    assert ends[0] + 30 < ends[1]  # below each other


@pytest.mark.parametrize(
    ("heat", "text"),
    [
        (
            torch.zeros(30, 20),
            r"got heat of \(30, 20\) for a photo of \(20, 30\); they lie pixel on pixel; bring the map",
        ),
        (
            torch.full((20, 30), 3.5),
            r"got heat in 3\.5\.\.3\.5; a picture shows -1\.\.1; divide the map by its largest",
        ),
        (torch.full((20, 30), float("nan")), r"got heat in nan\.\.nan; a picture shows -1\.\.1"),
    ],
)
def test_heat_that_cannot_be_shown_is_refused(heat, text):
    with pytest.raises(ShapeError, match=text):
        overlay(PHOTO, heat)


def test_other_errors_say_the_rule_and_the_way_out():
    none = torch.zeros(20, 30)
    with pytest.raises(MethodError, match="no colormap 'viridis'; there are turbo, inferno, jet, coolwarm; name one"):
        overlay(PHOTO, none, colormap="viridis")
    with pytest.raises(MethodError, match=r"got opacity=60; it is a share, 0\.\.1; 0\.6 is the default"):
        overlay(PHOTO, none, opacity=60)
    with pytest.raises(ShapeError, match=r"got heat in -1\.\.1; a picture shows 0\.\.1"):
        colorize(torch.tensor([[-1.0, 1.0]]))
    with pytest.raises(ShapeError, match=r"got heat of \(0, 4\); a picture has pixels"):
        colorize(torch.zeros(0, 4))
    with pytest.raises(ShapeError, match="got 0 panels in None columns; a figure has at least one of each; add one"):
        figure([])
    with pytest.raises(ShapeError, match="got 1 panels in 0 columns"):
        figure([Panel(PHOTO)], columns=0)
    with pytest.raises(MethodError, match="no background 'white'; there are photo, edges and grey; name one of these"):
        inspect.unwrap(_background)(PHOTO, "white")  # unwrapped: past the tests' own type checker
