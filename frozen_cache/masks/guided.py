"""Guided filter over colours (He, Sun 2015): a pasted mask takes over the edges of the picture's own pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

RADIUS = 0.02
"""Of the filter, by the diagonal of the mask's window."""
EPSILON = 1e-3
"""Variance of the colours, in 0..1, below which a place counts as even."""
FIRST, SECOND = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
"""Of each pair of colours: the upper triangle of their 3 x 3 covariance, row by row."""
BLOCK = 32
"""Rows and columns that are averaged at once: fewer are more products, more are larger ones, of zeros mostly."""


def guided(window: np.ndarray, guide: np.ndarray, *, radius: float = RADIUS, epsilon: float = EPSILON) -> np.ndarray:
    """Probabilities that follow the picture: in each neighbourhood a linear function of its colours, fitted to them.

    Where the picture is even, it is a blur. A window so small that the radius rounds to 0 stays as it is. From a radius
    of 8 pixels on, the fits are of every n-th pixel in both directions, n being a quarter of the radius as in the
    paper, and what they found is interpolated: each pixel's own colours make the edges all the same.

    Args:
        window: (h, w) float32 probabilities.
        guide: (3, h, w) uint8, red, green and blue of the picture there.
        radius: by the window's diagonal.
        epsilon: of the fit.

    Returns:
        (h, w) float32 in 0..1.
    """
    reach = round(radius * math.hypot(*window.shape))
    if reach < 1 or not window.any():
        return window
    step = max(1, reach // 4)
    first = (step - 1) // 2
    values = window[first::step, first::step]
    colours = guide[:, first::step, first::step].astype(np.float32) / 255
    rows, columns = (_means(length, (2 * reach + 1) / step) for length in values.shape)
    found = _planes(values, colours, rows, columns, epsilon)
    found[:3] /= 255
    if step > 1:
        rows = _between(window.shape[0], first, step, len(rows)) @ rows
        columns = _between(window.shape[1], first, step, len(columns)) @ columns
    found = _resampled(found, rows, columns)  # the mean of the planes around each pixel
    found[:3] *= guide
    return np.clip(found.sum(0), 0, 1)


def _planes(
    values: np.ndarray, colours: np.ndarray, rows: np.ndarray, columns: np.ndarray, epsilon: float
) -> np.ndarray:
    """(4, h, w): slopes by red, green and blue, and the offset, fitted to (h, w) values around each pixel."""
    products = colours[FIRST] * colours[SECOND]
    means = _resampled(np.concatenate([colours, values[None], products, colours * values]), rows, columns)
    of_colours, of_values = means[:3], means[3]
    rr, rg, rb, gg, gb, bb = means[4:10] - of_colours[FIRST] * of_colours[SECOND]
    rr, gg, bb = rr + epsilon, gg + epsilon, bb + epsilon
    r, g, b = means[10:] - of_colours * of_values
    # The covariance's inverse times (r, g, b), by its adjugate.
    r_r, r_g, r_b = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    g_g, g_b, b_b = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    slopes = np.stack([r_r * r + r_g * g + r_b * b, r_g * r + g_g * g + g_b * b, r_b * r + g_b * g + b_b * b])
    slopes /= rr * r_r + rg * r_g + rb * r_b
    return np.concatenate([slopes, (of_values - (slopes * of_colours).sum(0))[None]])


def _means(length: int, side: float) -> np.ndarray:
    """(length, length) float32: over `side` places around each one, the outermost in part, as far as there are any."""
    at = np.arange(length)
    near = np.clip((side + 1) / 2 - np.abs(at[:, None] - at), 0, 1).astype(np.float32)
    return near / near.sum(1, keepdims=True)


def _between(length: int, first: int, step: int, count: int) -> np.ndarray:
    """(length, count) float32: linear between the places first, first + step ...; beyond them the nearest one's."""
    at = np.clip((np.arange(length, dtype=np.float32) - first) / step, 0, count - 1)
    return np.clip(1 - np.abs(at[:, None] - np.arange(count, dtype=np.float32)), 0, None)


def _resampled(maps: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """rows @ map @ columns.T of each (h, w) map, of matrices that are bands along the diagonal."""
    across = np.empty((*maps.shape[:2], len(columns)), np.float32)
    for some, touched, part in _blocks(columns):
        np.matmul(maps[:, :, touched], part.T, out=across[:, :, some])
    found = np.empty((len(maps), len(rows), len(columns)), np.float32)
    for some, touched, part in _blocks(rows):
        np.matmul(part, across[:, touched], out=found[:, some])
    return found


def _blocks(band: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Some rows of a band matrix at a time, the columns that are not zero in them, and what is there."""
    for start in range(0, len(band), BLOCK):
        some = slice(start, min(start + BLOCK, len(band)))
        part = band[some]
        touched = slice(int((part[0] > 0).argmax()), part.shape[1] - int((part[-1, ::-1] > 0).argmax()))
        yield some, touched, part[:, touched]
