"""Integers two to a byte."""

from __future__ import annotations

import numpy as np
import pytest

from frozen_cache.cache.nibbles import packed, unpacked


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 4096, 150_001])
def test_nothing_is_lost_and_nothing_added(count: int) -> None:
    values = np.random.default_rng(count).integers(-128, 128, count).astype(np.int8)
    stored = packed(values)
    assert stored.dtype == np.int8 and stored.shape == values.shape
    assert np.array_equal(unpacked(stored), values)


def test_two_small_integers_stand_in_one_byte_and_what_a_large_one_has_beyond_follows() -> None:
    values = np.array([-8, 7, 0, -1, 8, 0, 0, -9, 5], dtype=np.int8)
    low = [0 | 15 << 4, 8 | 7 << 4, 0 | 8 << 4, 8 | 15 << 4]
    high = [0, 0, 1, 15 << 4]
    assert packed(values).view(np.uint8).tolist() == [*low, *high, 5]
