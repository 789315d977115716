"""Run lengths of compressed RLE strings, read without trusting them: pycocotools would write past its buffer."""

from __future__ import annotations

import numpy as np


def rle_run_lengths(counts: bytes) -> np.ndarray:
    """(R,) int64 run lengths (zeros, ones, zeros ...) of a COCO compressed RLE; ValueError where it is none.

    Each number is in groups of 5 bits, low first, bit 6 says that more follow, the sign is extended; from the fourth
    number on it is the difference to the run two before.
    """
    raw = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(raw):
        return np.zeros(0, np.int64)
    if raw.min() < 0 or raw.max() > 63 or raw[-1] & 32:
        raise ValueError("not a compressed RLE string")
    ends = np.flatnonzero(raw & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 8:
        raise ValueError("a run of this RLE is longer than any image")
    place = np.arange(len(raw)) - np.repeat(starts, digits)
    values = np.add.reduceat((raw & 31) << (5 * place), starts)
    values -= np.where(raw[ends] & 16, np.int64(1) << (5 * digits), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs


def check_run_lengths(runs: np.ndarray, height: int, width: int) -> None:
    """ValueError unless the runs are not negative and cover height x width pixels exactly."""
    if len(runs) and runs.min() < 0:
        raise ValueError("its RLE has a negative run")
    if len(runs) and runs.max() > height * width:  # so long that their sum could come around
        raise ValueError("a run of its RLE is longer than the image")
    if int(runs.sum()) != height * width:
        raise ValueError(f"its RLE covers {int(runs.sum())} pixels, the image has {height} x {width}")
