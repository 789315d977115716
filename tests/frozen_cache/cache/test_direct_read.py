"""Arrays read without zarr: where their memory lies, and whose it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from frozen_cache.cache import segment_reader
from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.direct_read import DirectArray
from frozen_cache.cache.errors import DamagedCacheError
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


def outliers(view: CachedView, places: list[int]) -> CachedView:
    """The view with numbers at some places of C1 that do not fit into four bits."""
    assert view.c1 is not None
    c1 = view.c1.clone()
    for place in places:
        c1.view(-1)[place] = 1000
    return replace(view, c1=c1)


@pytest.mark.parametrize("places", [[], [0], [-1], [200_000], [5, 80_000, 383_999]])
def test_large_packed_maps_are_the_same_read_in_halves(
    make_cache: Callable[..., Path],
    make_view: Callable[..., CachedView],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    places: list[int],
) -> None:
    views = [outliers(make_view(number, size=(256, 500)), places if number == 1 else []) for number in range(3)]
    cache = make_cache(tmp_path / "x.zarr", views, per_segment=3, precision="coded")
    whole = [CacheReader(cache).read_stored(index) for index in range(3)]
    monkeypatch.setattr(segment_reader, "_LARGE_MAPS", 0)
    asked: list[tuple[int, int]] = []
    reading = DirectArray.read_unless_zeros
    monkeypatch.setattr(
        DirectArray, "read_unless_zeros", lambda self, *span: asked.append(span) or reading(self, *span)
    )
    halves = [CacheReader(cache).read_stored(index) for index in range(3)]
    assert len(asked) == 3 * 3  # C1 and two layers of each view
    for one, other in zip(whole, halves, strict=True):
        pairs = zip([one.c1, *one.encoder[1]], [other.c1, *other.encoder[1]], strict=True)
        assert all(a.parts.keys() == b.parts.keys() and a.shape == b.shape for a, b in pairs if a and b)
        for a, b in ((one.c1, other.c1), *zip(one.encoder[4], other.encoder[4], strict=True)):
            assert a is not None and b is not None and torch.equal(a.unpacked(), b.unpacked())
            assert torch.equal(a.decoded(), b.decoded()) and a.nbytes == b.nbytes
    assert [each.c1 is not None and each.c1.upper is not None for each in halves] == [False, bool(places), False]


def test_zeros_are_told_from_anything_else_wherever_the_chunks_end(
    make_cache: Callable[..., Path], make_view: Callable[..., CachedView], tmp_path: Path
) -> None:
    views = [outliers(make_view(number, size=(512, 1000)), [1_400_000] if number == 1 else []) for number in range(3)]
    cache = make_cache(tmp_path / "x.zarr", views, per_segment=3, precision="coded")
    [segment] = {segment for segment, _ in map(CacheReader(cache).place, range(3))}
    array, half = segment._direct["c1"], 768_000
    everything = array.read(0, len(array)).view(np.uint8)
    uppers = [(start, start + half) for start in range(half, 6 * half, 2 * half)]
    assert array._layout.chunk < half
    for start, stop in [*uppers, (uppers[1][0] + 1, uppers[1][1] + 1), (0, 10), (half, half), (half, half + 1)]:
        found, wanted = array.read_unless_zeros(start, stop), everything[start:stop]
        assert (found is None) == (not wanted.any())
        assert found is None or np.array_equal(found, wanted)
    assert [array.read_unless_zeros(*span) is None for span in uppers] == [True, False, True]
    for span in ((-1, 5), (0, len(array) + 1), (len(array), len(array) + 1), (0, 2**62), (5, 4)):
        with pytest.raises(NotWhole, match="too short"):
            array.read_unless_zeros(*span)
        with pytest.raises(NotWhole, match="too short"):
            array.read(*span)


def test_damage_in_an_upper_half_is_told(
    make_cache: Callable[..., Path],
    make_view: Callable[..., CachedView],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segment_reader, "_LARGE_MAPS", 0)
    cache = make_cache(tmp_path / "x.zarr", [make_view(0, size=(256, 500))], per_segment=1, precision="coded")
    reader = CacheReader(cache)
    segment, _ = reader.place(0)
    segment.read(0, layers=(), c1=True)
    offset, size, _ = segment._direct["c1"]._chunks[0][-1].tolist()
    [file] = (Path(str(segment.folder)) / "c1" / "c").iterdir()
    content = bytearray(file.read_bytes())
    content[offset + size // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedCacheError, match="c1/c/0 has a chunk whose checksum is not its own"):
        CacheReader(cache).read_stored(0)
