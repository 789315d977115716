"""Guided filter (He, Sun, Tang 2010): a pasted mask takes over the edges that lie in the picture's own pixels."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import uniform_filter

RADIUS = 0.02
"""Of the filter, by the diagonal of the mask's window."""
EPSILON = 1e-3
"""Variance of the grey values, in 0..1, below which a place counts as even."""


def guided(window: np.ndarray, grey: np.ndarray, *, radius: float = RADIUS, epsilon: float = EPSILON) -> np.ndarray:
    """Probabilities that follow the picture: in each neighbourhood a straight line of its grey values, fitted to them.

    Where the picture is even, it is a blur. A window so small that the radius rounds to 0 stays as it is.

    Args:
        window: (h, w) float32 probabilities.
        grey: (h, w) uint8, the picture there.
        radius: by the window's diagonal.
        epsilon: of the fit.

    Returns:
        (h, w) float32 in 0..1.
    """
    reach = round(radius * math.hypot(*window.shape))
    if reach < 1 or not window.any():
        return window
    guide = grey.astype(np.float32) / 255
    side = 2 * reach + 1
    share = uniform_filter(np.ones_like(guide), side, mode="constant")  # of a neighbourhood that lies within the window

    def mean(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, side, mode="constant") / share

    of_guide, of_window = mean(guide), mean(window)
    variance = mean(guide * guide) - of_guide**2
    slope = (mean(guide * window) - of_guide * of_window) / (variance + epsilon)
    offset = of_window - slope * of_guide
    return np.clip(mean(slope) * guide + mean(offset), 0, 1)
