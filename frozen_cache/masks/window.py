"""The pixels that a box touches, and bilinear resampling along one axis as a matrix.

Boxes are upright, so resampling a mask factors into one small matrix per axis: pasting and cropping become two matrix
products over the box's own window, never over the image.
"""

from __future__ import annotations

import math

import numpy as np


def pixel_span(low: float, high: float, length: int) -> tuple[int, int]:
    """First and one past the last pixel that an interval touches, one pixel spare on each side, held to the image."""
    start = min(max(math.floor(low) - 1, 0), length)
    return start, max(min(math.ceil(high) + 1, length), start)


def paste_weights(start: int, stop: int, low: float, high: float, side: int) -> np.ndarray:
    """(stop - start, R) float32: what each pixel of a span takes from each of R mask cells stretched over low..high.

    Pixel and cell centres at half-integers, bilinear, zero outside the mask (detectron2's `paste_masks_in_image`).
    """
    centres = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
    extent = np.float32(high) - np.float32(low)
    if not extent > 0:
        return np.zeros((stop - start, side), dtype=np.float32)
    at = (centres - np.float32(low)) / extent * np.float32(side) - np.float32(0.5)
    return np.clip(1 - np.abs(at[:, None] - np.arange(side, dtype=np.float32)), 0, None)


def crop_weights(low: float, high: float, side: int, length: int) -> tuple[np.ndarray, int]:
    """What each of R bins of low..high takes from the pixels of an axis: RoIAlign, aligned, adaptive sampling.

    Each bin is the mean of ceil(bin size) bilinear samples; samples more than a pixel outside count as zero.

    Args:
        low: start of the box, in pixels.
        high: its end.
        side: R.
        length: pixels of the whole axis.

    Returns:
        (R, n) float32, and the first of the n pixels it speaks of.
    """
    size = (np.float32(high) - np.float32(low)) / np.float32(side)
    samples = max(math.ceil(size), 0)
    if samples == 0 or length == 0:
        return np.zeros((side, 0), dtype=np.float32), 0
    step = (np.arange(samples, dtype=np.float32) + np.float32(0.5)) * (size / np.float32(samples))
    at = np.float32(low) - np.float32(0.5) + np.arange(side, dtype=np.float32)[:, None] * size + step
    counts = ((at >= -1) & (at <= length)).astype(np.float32) / np.float32(samples)
    at = np.clip(at, 0, length - 1)
    before = at.astype(np.int64)
    share = at - before.astype(np.float32)
    first = int(before.min())
    weights = np.zeros((side, int(before.max()) + 2 - first), dtype=np.float32)
    rows = np.broadcast_to(np.arange(side)[:, None], at.shape)
    np.add.at(weights, (rows, before - first), (1 - share) * counts)
    np.add.at(weights, (rows, before + 1 - first), share * counts)
    return weights[:, : length - first], first
