"""One colour for each class: the same in every picture, whatever else is in it."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence

Colour = tuple[int, int, int]
"""RGB in 0..255."""

_GOLDEN = 0.61803398875
_TONES = ((0.80, 0.95), (0.62, 1.0), (0.90, 0.78))
"""(saturation, value) taken in turn, so that neighbours in hue still differ."""


def class_colours(names: Sequence[str]) -> dict[str, Colour]:
    """A colour for each class of a data set, by its place in the list; consecutive ones lie far apart in hue."""
    return {name: _colour(0.56 + at * _GOLDEN, at) for at, name in enumerate(names)}


def colour_of(name: str) -> Colour:
    """A colour made from the name alone, for whoever does not know the list of classes."""
    number = zlib.crc32(name.encode())
    return _colour((number & 0xFFFF) / 0x10000, number >> 16)


def readable_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out more from `colour` (WCAG's relative luminance)."""
    red, green, blue = (_linear(part / 255) for part in colour)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (16, 16, 20) if luminance > 0.179 else (255, 255, 255)


def hex_of(colour: Colour) -> str:
    """`#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _colour(hue: float, tone: int) -> Colour:
    saturation, value = _TONES[tone % len(_TONES)]
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
