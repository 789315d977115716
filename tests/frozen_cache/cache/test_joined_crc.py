"""Sums of parts joined."""

import os
import zlib

import pytest

from frozen_cache.cache.joined_crc import joined_crc32


@pytest.mark.parametrize("size", [0, 1, 3, 4, 255, 4096, 524_292])
@pytest.mark.parametrize("before", [0, 1, 1000])
def test_the_sum_of_two_parts_is_that_of_the_whole(before: int, size: int) -> None:
    first, second = os.urandom(before), os.urandom(size)
    assert joined_crc32(zlib.crc32(first), zlib.crc32(second), size) == zlib.crc32(first + second)
