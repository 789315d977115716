"""Run lengths of compressed RLE strings, read without trusting them: pycocotools would write past its buffer."""

from __future__ import annotations

import numpy as np


def rle_run_lengths(counts: bytes) -> np.ndarray:
    """(R,) int64 run lengths (zeros, ones, zeros ...) of a COCO compressed RLE; ValueError where it is none."""
    return _run_lengths(counts, np.array([len(counts)]))[0] if counts else np.zeros(0, np.int64)


def check_run_lengths(runs: np.ndarray, height: int, width: int) -> None:
    """ValueError unless the runs are not negative and cover height x width pixels exactly."""
    runs = runs if len(runs) else np.zeros(1, np.int64)
    _check(runs, np.zeros(1, np.int64), np.array([height]), np.array([width]))


def check_masks(counts: bytes, lengths: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> None:
    """ValueError unless each of G compressed RLEs, one after the other, is the mask of an image of its size.

    Args:
        lengths: (G,) bytes of each; they sum to those of `counts`.
        heights: (G,) int64.
        widths: (G,) int64.
    """
    if (lengths < 1).any():
        raise ValueError("a mask has no RLE")
    if len(lengths):
        _check(*_run_lengths(counts, lengths), heights, widths)


def _run_lengths(counts: bytes, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R,) int64 run lengths of G strings of at least a byte, one after the other, and (G,) the first of each.

    Each number is in groups of 5 bits, low first, bit 6 says that more follow, the sign is extended; from the fourth
    number on it is the difference to the run two before.
    """
    raw = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    more = raw & 32
    stops = np.cumsum(lengths)
    if raw.min() < 0 or raw.max() > 63 or more[stops - 1].any():
        raise ValueError("not a compressed RLE string")
    ends = np.flatnonzero(more == 0)
    digits = np.diff(ends, prepend=-1)
    if digits.max() > 8:
        raise ValueError("a run of this RLE is longer than any image")
    starts = ends - digits + 1
    place = np.arange(len(raw)) - np.repeat(starts, digits)
    values = np.add.reduceat((raw & 31) << (5 * place), starts)
    values -= (raw[ends] & 16) * 2 << 5 * (digits - 1)
    firsts = np.searchsorted(starts, stops - lengths)
    number = np.arange(len(values)) - np.repeat(firsts, np.diff(firsts, append=len(values)))
    for odd in (False, True):  # ones are differences to ones, zeros to zeros; the very first zeros to nothing
        chain = ((number & 1) == odd) & (number > 0)
        sums = np.cumsum(np.where(chain, values, 0))
        before = np.repeat(sums[firsts], np.diff(firsts, append=len(values)))
        values = np.where(chain, sums - before, values)
    return values, firsts


def _check(runs: np.ndarray, firsts: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> None:
    if runs.min() < 0:
        raise ValueError("its RLE has a negative run")
    pixels = heights * widths
    if (np.maximum.reduceat(runs, firsts) > pixels).any():  # so long that their sum could come around
        raise ValueError("a run of its RLE is longer than the image")
    covered = np.add.reduceat(runs, firsts)
    for at in np.flatnonzero(covered != pixels)[:1].tolist():
        raise ValueError(f"its RLE covers {covered[at]} pixels, the image has {heights[at]} x {widths[at]}")
