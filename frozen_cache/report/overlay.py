"""Instances drawn on a picture: tinted masks with antialiased outlines, thin boxes, labels that stay in the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from frozen_cache.report.chips import draw_chips
from frozen_cache.report.colours import Colour, colour_of

FILL = 0.42
"""How much of a mask's inside is its colour."""


def draw_instances(
    image: Image.Image,
    *,
    masks: np.ndarray,
    boxes: np.ndarray | None = None,
    names: Sequence[str],
    scores: Sequence[float] | None = None,
    colours: Mapping[str, Colour] | None = None,
    letters: float = 0.026,
) -> Image.Image:
    """A copy of `image` with N instances on it; small ones lie over large ones, labels over everything.

    Args:
        image: RGB, H x W pixels.
        masks: (N, H, W) bool.
        boxes: (N, 4) xyxy in pixels; None draws no boxes and puts the labels at the masks.
        names: N class names; an empty one gives no label.
        scores: N values in 0..1, shown behind the names; the best are labelled first where room is short.
        colours: by name, as `class_colours` gives them; a name that is not in it gets a colour of its own.
        letters: height of the labels' letters in parts of the image's side.
    """
    masks = np.asarray(masks, dtype=bool)
    picked = [(colours or {}).get(name) or colour_of(name) for name in names]
    line = line_width(image.size)
    canvas = np.array(image.convert("RGB"), dtype=np.float32)
    extents = [_extent(mask) for mask in masks]
    for at in sorted(range(len(masks)), key=lambda index: -int(masks[index].sum())):
        if (extent := extents[at]) is not None:
            _tint(canvas, masks[at], extent, picked[at], line)
    drawn = Image.fromarray((canvas + 0.5).clip(0, 255).astype(np.uint8))
    if boxes is not None:
        for box, colour in zip(np.asarray(boxes, dtype=np.float64).tolist(), picked, strict=True):
            _frame(drawn, box, colour, line * 0.6)
    anchors = extents if boxes is None else [tuple(box) for box in np.asarray(boxes, dtype=np.float64).tolist()]
    order = range(len(masks)) if scores is None else sorted(range(len(masks)), key=lambda index: -scores[index])
    chips = [
        (anchor, names[at] if scores is None else f"{names[at]} {scores[at]:.2f}", picked[at])
        for at in order
        if names[at] and (anchor := anchors[at]) is not None
    ]
    return draw_chips(drawn, chips, letters=letters)


def line_width(size: tuple[int, int]) -> float:
    """Width of an outline in pixels that looks alike in pictures of any (width, height)."""
    return max(1.4, 0.0032 * math.hypot(*size))


def _extent(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _tint(
    canvas: np.ndarray, mask: np.ndarray, extent: tuple[float, float, float, float], colour: Colour, line: float
) -> None:
    """Blend one mask into `canvas` ((H, W, 3) float32), only in the mask's own window.

    The blurred mask crosses 1/2 at the edge, so its distance from 1/2 is a distance from the edge: that makes both the
    soft rim and the outline.
    """
    pad = math.ceil(2 * line) + 1
    height, width = mask.shape
    left, top = max(0, int(extent[0]) - pad), max(0, int(extent[1]) - pad)
    right, bottom = min(width, int(extent[2]) + pad), min(height, int(extent[3]) + pad)
    # Room on every side, or the rim along the picture's border would be missing.
    window = np.pad(mask[top:bottom, left:right].astype(np.uint8) * 255, pad, mode="edge")
    soft = Image.fromarray(window).filter(ImageFilter.GaussianBlur(line * 0.75))
    level = np.asarray(soft, dtype=np.float32)[pad:-pad, pad:-pad, None] / 255
    inside = np.clip((level - 0.5) * 2.5 + 0.5, 0, 1)
    rim = np.clip(2.2 - np.abs(level - 0.5) * 6.5, 0, 1)
    paint = np.array(colour, dtype=np.float32)
    part = canvas[top:bottom, left:right]
    part += FILL * inside * (paint - part)
    part += rim * (paint - part)


def _frame(image: Image.Image, box: list[float], colour: Colour, width: float) -> None:
    """A thin, half transparent box, kept inside the picture."""
    x0, y0, x1, y1 = box
    x0, x1 = (min(max(value, 0), image.width - 1) for value in (x0, x1))
    y0, y1 = (min(max(value, 0), image.height - 1) for value in (y0, y1))
    if x1 <= x0 or y1 <= y0:
        return
    window = (math.floor(x0), math.floor(y0), math.ceil(x1) + 1, math.ceil(y1) + 1)
    alpha = Image.new("L", (window[2] - window[0], window[3] - window[1]), 0)
    outline = (x0 - window[0], y0 - window[1], x1 - window[0], y1 - window[1])
    ImageDraw.Draw(alpha).rectangle(outline, outline=170, width=max(1, round(width)))
    image.paste(colour, window[:2], alpha)
