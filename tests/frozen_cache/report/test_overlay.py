"""Instances on pictures: colours where the masks are, nothing elsewhere, labels inside the picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from frozen_cache.report.chips import chip_place, draw_chips
from frozen_cache.report.colours import class_colours, colour_of, readable_on
from frozen_cache.report.overlay import FILL, draw_instances

GREY = 90
RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(width: int = 120, height: int = 100) -> Image.Image:
    return Image.new("RGB", (width, height), (GREY, GREY, GREY))


def rectangle(x0: int, y0: int, x1: int, y1: int, *, width: int = 120, height: int = 100) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def drawn(**options) -> np.ndarray:
    return np.asarray(draw_instances(picture(), **options)).astype(int)


def test_a_mask_tints_its_inside_outlines_its_edge_and_leaves_the_rest_alone():
    pixels = drawn(masks=rectangle(30, 50, 70, 90)[None], names=[""], colours={"": RED})
    inside = [round(GREY + FILL * (part - GREY)) for part in RED]
    assert np.abs(pixels[70, 50] - inside).max() <= 1
    assert (pixels[70, 29] - [GREY] * 3)[0] > 100 or (pixels[70, 30] - [GREY] * 3)[0] > 100
    far = np.ones((100, 120), dtype=bool)
    far[20:96, 24:76] = False
    assert (pixels[far] == GREY).all()


def test_rows_and_columns_are_not_exchanged():
    pixels = drawn(masks=rectangle(100, 5, 115, 20)[None], names=[""], colours={"": RED})
    assert abs(pixels[12, 107, 0] - (GREY + FILL * (255 - GREY))) <= 1
    assert (pixels[97:, :20] == GREY).all()


def test_an_outline_is_antialiased():
    y, x = np.mgrid[:100, :120]
    disc = (x - 60) ** 2 + (y - 55) ** 2 < 30**2
    pixels = drawn(masks=disc[None], names=[""], colours={"": RED})
    assert len(np.unique(pixels[..., 0])) > 10  # a hard edge has three: outline, tint, ground


def test_small_instances_lie_over_large_ones_in_either_order():
    masks = np.stack([rectangle(10, 30, 110, 95), rectangle(50, 55, 70, 75)])
    names, colours = ["big", "small"], {"big": RED, "small": BLUE}
    for order in ([0, 1], [1, 0]):
        pixels = drawn(masks=masks[order], names=[names[at] for at in order], colours=colours)
        assert pixels[65, 60, 2] > pixels[65, 60, 0]
        assert pixels[65, 30, 0] > pixels[65, 30, 2]


def test_the_picture_given_stays_as_it_is_and_nothing_found_changes_nothing():
    image = picture()
    draw_instances(image, masks=rectangle(1, 1, 9, 9)[None], names=["x"])
    assert (np.asarray(image) == GREY).all()
    assert (drawn(masks=np.zeros((0, 100, 120), bool), boxes=np.zeros((0, 4)), names=[], scores=[]) == GREY).all()


def test_an_empty_mask_and_boxes_that_leave_the_picture_are_no_trouble():
    masks = np.stack([np.zeros((100, 120), bool), rectangle(0, 0, 120, 100), np.zeros((100, 120), bool)])
    boxes = np.array([[-50, -50, 10, 10], [-5, -5, 500, 500], [300, 300, 400, 400]])
    assert drawn(masks=masks, boxes=boxes, names=["a", "b", "c"], scores=[0.9, 0.8, 0.7]).shape == (100, 120, 3)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((40, 50, 80, 90), (40, 40)),  # above the box
        ((40, 4, 80, 90), (40, 4)),  # no room above: within the box
        ((100, 50, 118, 90), (90, 40)),  # pushed in from the right
        ((-20, 50, 80, 90), (0, 40)),
        ((40, 50, 80, 300), (40, 40)),
        ((0, 120, 10, 130), (0, 90)),  # a box outside
    ],
)
def test_a_label_stays_in_the_picture(box, place):
    assert chip_place(box, (30, 10), (120, 100), []) == place


def test_a_label_avoids_other_labels_or_is_left_out():
    first = (40, 40, 70, 50)
    assert chip_place((40, 50, 80, 90), (30, 10), (120, 100), [first]) == (40, 50)
    assert chip_place((40, 50, 80, 90), (30, 10), (120, 100), [(0, 0, 120, 100)]) is None


def test_a_long_label_is_cut_to_the_picture_and_drawn_in_its_colour():
    image = draw_chips(picture(60, 40), [((5, 20, 30, 38), "a very long class name indeed 0.99", RED)])
    pixels = np.asarray(image).astype(int)
    red = (pixels == RED).all(-1)
    assert red.any()
    assert red[:, -12:].any() and red[:, :12].any()
    assert draw_chips(picture(4, 4), [((0, 0, 3, 3), "cat", RED)]).size == (4, 4)


@pytest.mark.parametrize("text", ["a\nb\x00c", "\x1b[31mred", "\u202eevil", "\ud800", "", "x" * 100_000])
def test_any_name_can_be_a_label(text):
    assert draw_chips(Image.new("RGB", (60, 40)), [((5, 30, 20, 39), text, (0, 0, 0))]).size == (60, 40)


def test_colours_are_stable_distinct_and_carry_readable_letters():
    names = [f"class {at}" for at in range(80)]
    colours = class_colours(names)
    assert len(set(colours.values())) == 80
    assert class_colours(names[:10]) == {name: colours[name] for name in names[:10]}
    assert colour_of("cat") == colour_of("cat") != colour_of("dog")
    assert readable_on((255, 230, 0)) == (16, 16, 20)
    assert readable_on((20, 20, 160)) == (255, 255, 255)


def test_letters_are_as_high_as_one_asks():
    heights = []
    for letters in (0.026, 0.042):
        mask = rectangle(100, 200, 300, 380, width=400, height=400)[None]
        ground = Image.new("RGB", (400, 400), (GREY, GREY, GREY))
        shown = np.asarray(draw_instances(ground, masks=mask, names=["cat"], colours={"cat": RED}, letters=letters))
        heights.append(int((shown[:196] == RED).all(axis=2).any(axis=1).sum()))
    assert heights == [15 - 4, 26 - 4]  # above the outline
