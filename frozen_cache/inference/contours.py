"""A mask's outline as one polygon, as YOLO's label files want it."""

from __future__ import annotations

import numpy as np
from contourpy import contour_generator


def outline(mask: np.ndarray) -> np.ndarray:
    """(P, 2) float x, y in pixels, one closed polygon around all of a mask (H, W) bool; P is 0 for an empty one.

    Parts and holes hang together by lines of no width, there and back: filled by either rule, the polygon is the mask,
    its corners cut by half a pixel.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return np.zeros((0, 2))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rings = contour_generator(z=np.pad(part, 1).astype(np.float64)).lines(0.5)
    # The padding moved the pixels by one, and their centres lie at halves.
    shift = np.array([columns[0] - 0.5, rows[0] - 0.5])
    closed = [np.asarray(ring) + shift for ring in rings]
    start = closed[0][:1]
    return np.concatenate([closed[0], *(part for ring in closed[1:] for part in (ring, start))])
