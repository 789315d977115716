"""Labels on a picture: small rounded chips, inside the picture, beside each other as far as there is room."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from frozen_cache.printable import printable
from frozen_cache.report.colours import Colour, readable_on

Box = tuple[float, ...]
"""x0, y0, x1, y1 in pixels."""

FINE = 4
"""Chips are drawn so many times larger and reduced: smooth corners and letters."""
LONGEST = 200
"""Letters of a label that are looked at; more have no room in any picture."""
SMALLEST, LARGEST = 9, 44
"""Height of the letters in pixels."""


def draw_chips(image: Image.Image, chips: list[tuple[Box, str, Colour]], *, letters: float = 0.026) -> Image.Image:
    """Draw (box that is labelled, text, colour) on `image` and return it. The first ones choose their place first; a
    chip that would cover another is left out. `letters`: their height in parts of the image's side."""
    height = min(LARGEST, max(SMALLEST, round(letters * (image.width * image.height) ** 0.5)))
    taken: list[Box] = []
    drawn: list[tuple[Image.Image, tuple[int, int]]] = []
    for box, text, colour in chips:
        chip = _chip(text, colour, height, image.width)
        if chip is None or chip.height > image.height:
            continue
        place = chip_place(box, chip.size, image.size, taken)
        if place is None:
            continue
        taken.append((*place, place[0] + chip.width, place[1] + chip.height))
        drawn.append((chip, place))
    for chip, place in reversed(drawn):
        image.paste(chip, place, chip)
    return image


def chip_place(box: Box, size: tuple[int, int], picture: tuple[int, int], taken: list[Box]) -> tuple[int, int] | None:
    """x, y of a chip's corner: above the box, within its top, below it, or beside it, the first that is free; None
    where all would lie on another chip.

    Args:
        box: what is labelled.
        size: (width, height) of the chip, no larger than the picture.
        picture: (width, height).
        taken: where chips lie already.
    """
    x0, y0, x1, y1 = box
    wide, high = size
    wishes = [(x0, y0 - high), (x0, y0), (x1 - wide, y0 - high), (x0, y1), (x0, y1 - high), (x1, y0), (x0, y0 + high)]
    places = [(round(min(max(x, 0), picture[0] - wide)), round(min(max(y, 0), picture[1] - high))) for x, y in wishes]
    # A wish for above the picture is not met by what clamping makes of it while another wish fits as it is.
    fitting = [place for place, (_, y) in zip(places, wishes, strict=True) if 0 <= round(y) <= picture[1] - high]
    for place in fitting or places:
        mine = (*place, place[0] + wide, place[1] + high)
        if not any(_overlap(mine, other) for other in taken):
            return place
    return None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _chip(text: str, colour: Colour, height: int, room: int) -> Image.Image | None:
    """The chip, at most `room` pixels wide: its text cut short if need be, None where no letter fits."""
    text = printable(" ".join(text.split()))[:LONGEST]  # a line end is an error of the font's layout
    font = _font(height * FINE)
    side = round(0.42 * height) * FINE
    shown, cut = text, len(text)
    while (wide := round(font.getlength(shown)) + 2 * side) > room * FINE:
        cut -= 1
        if cut < 1:
            return None
        shown = text[:cut].rstrip() + "…"
    size = (-(-wide // FINE) * FINE, round(1.5 * height) * FINE)
    chip = Image.new("RGBA", size, (*colour, 0))
    draw = ImageDraw.Draw(chip)
    draw.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=0.3 * height * FINE, fill=(*colour, 255))
    draw.text((size[0] / 2, size[1] / 2), shown, font=font, anchor="mm", fill=(*readable_on(colour), 255))
    return chip.resize((size[0] // FINE, size[1] // FINE), Image.Resampling.BOX)


@cache
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", pixels)
