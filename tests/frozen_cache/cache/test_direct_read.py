"""Arrays read without zarr: where their memory lies, and whose it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from frozen_cache.cache.direct_read import DirectArray
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView


@pytest.fixture
def large(make_cache: Callable[..., Path], make_view: Callable[..., CachedView], tmp_path: Path) -> DirectArray:
    """C1 of three views of 768,000 bytes each, in two chunks."""
    cache = make_cache(tmp_path / "x.zarr", [make_view(number, size=(256, 500)) for number in range(3)], per_segment=3)
    [segment] = {segment for segment, _ in map(CacheReader(cache).place, range(3))}
    return segment._direct["c1"]


def test_large_arrays_start_where_the_kernel_copies_fast(large: DirectArray) -> None:
    for stop in range(len(large) - 8, len(large)):
        assert large.read(0, stop).ctypes.data % 64 == 0


def test_what_was_read_has_memory_of_its_own_and_may_be_written_to(large: DirectArray) -> None:
    first = large.read(0, len(large))
    wanted = first.copy()
    second = large.read(0, len(large))
    assert not np.shares_memory(first, second)
    second[:] = 0
    assert np.array_equal(first, wanted) and np.array_equal(large.read(0, len(large)), wanted)
    assert first.nbytes == large.nbytes
