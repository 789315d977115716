"""A sharded array of a segment, read without zarr: its chunks' byte ranges, each with its CRC-32C.

zarr takes a millisecond of CPU for each array and copies all data twice, and of an object store it asks for the index
of a shard each time, and for each chunk. What is read here lies where the shard's index
says, as the sharding codec defines it, so that zarr reads the same; the segment has been opened, and its `zarr.json`
compared with the layout, before.
"""

from __future__ import annotations

from collections.abc import Callable

import google_crc32c
import numpy as np
from numcodecs import Zstd

from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.layout import CRC_BYTES, INDEX_ENTRY_BYTES, ArrayLayout
from frozen_cache.cache.ranges import Ranges, RemoteRanges, open_ranges
from frozen_cache.remote import CachePath

Check = Callable[[str], object]
Content = Callable[[str, np.ndarray, int], object]


class DirectArray:
    """One array. Reading is safe in several threads."""

    def __init__(self, folder: CachePath, name: str, layout: ArrayLayout, *, check: Check, content: Content) -> None:
        """
        Args:
            check: called with a file's name before it is read; raises where it is not as it must be.
            content: called with name, (bytes,) uint8 and its place in the file, of what was read; raises as well.
        """
        self._folder, self._name, self._layout = folder, name, layout
        self._check, self._content = check, content
        self._shard_rows = layout.shard or layout.chunk
        self._row_shape = layout.shape[1:]
        self._row_values = int(np.prod(self._row_shape, dtype=np.int64))
        self._dtype = np.dtype(layout.dtype).newbyteorder("<")
        self._plain = layout.chunk * self._row_values * self._dtype.itemsize
        self._indices: dict[int, np.ndarray] = {}
        self._kept: dict[int, RemoteRanges] = {}
        """Shard -> its file, where that is small and has been fetched whole."""

    def __len__(self) -> int:
        return self._layout.shape[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`.

        Raises:
            NotWhole: what is there is not what was written.
            OSError: it cannot be read.
        """
        if not 0 <= start <= stop <= self._layout.shape[0]:
            raise NotWhole(f"{self._name} is too short")
        found = np.empty((stop - start, *self._row_shape), dtype=self._dtype)
        rows = found.reshape(stop - start, self._row_values).view(np.uint8) if found.size else found
        at = start
        while at < stop and found.size:
            shard = at // self._shard_rows
            end = min(stop, (shard + 1) * self._shard_rows)
            self._read_shard(shard, at, end, rows[at - start : end - start])
            at = end
        return found.astype(self._dtype.newbyteorder("="), copy=False)

    def _read_shard(self, shard: int, start: int, stop: int, out: np.ndarray) -> None:
        """Rows of one file into `out`, (rows, bytes) uint8."""
        file = f"{self._name}/c/{shard}{'/0' * len(self._row_shape)}"
        self._check(file)
        chunk = self._layout.chunk
        with self._opened(shard, file) as source:
            index = self._index(source, shard, file)
            first = shard * self._shard_rows
            numbers = range((start - first) // chunk, -(-(stop - first) // chunk))
            mine = index[numbers.start : numbers.stop]
            source.expect(int(mine[:, 0].min()), int(mine.sum(axis=1).max()))
            for number in numbers:
                low = first + number * chunk
                before, after = max(start, low), min(stop, low + chunk)
                to = out[before - start : after - start].reshape(-1)
                whole = after - before == chunk
                content = to if whole else np.empty(self._plain, dtype=np.uint8)
                offset, size = index[number].tolist()
                self._read_chunk(source, file, offset, size, content)
                if not whole:
                    row_bytes = len(content) // chunk
                    to[:] = content[(before - low) * row_bytes : (after - low) * row_bytes]

    def _opened(self, shard: int, file: str) -> Ranges:
        return self._kept.get(shard) or open_ranges(self._folder / file)

    def _read_chunk(self, source: Ranges, file: str, offset: int, size: int, out: np.ndarray) -> None:
        """A chunk's content into `out`, (bytes,) uint8 of just its size."""
        stored = np.empty(size - CRC_BYTES, dtype=np.uint8) if self._layout.zstd else out
        if size != len(stored) + CRC_BYTES:
            raise NotWhole(f"{file} has a chunk of {size} bytes")
        ending = np.empty(CRC_BYTES, dtype=np.uint8)
        if source.read([stored, ending], offset) != size:
            raise NotWhole(f"{file} is too short")
        self._guarded(file, stored, ending, offset)
        if self._layout.zstd:
            Zstd().decode(stored, out)

    def _guarded(self, file: str, stored: np.ndarray, ending: np.ndarray, offset: int) -> None:
        if google_crc32c.value(stored) != int(ending.view("<u4")[0]):
            raise NotWhole(f"{file} has a chunk whose checksum is not its own")
        self._content(file, ending, offset + len(stored))

    def _index(self, source: Ranges, shard: int, file: str) -> np.ndarray:
        """(chunks, 2) uint64, offset and size of each chunk in its file."""
        index = self._indices.get(shard)
        if index is None:
            chunks = self._shard_rows // self._layout.chunk
            size = source.size()
            stored, ending = np.empty(chunks * INDEX_ENTRY_BYTES, np.uint8), np.empty(CRC_BYTES, np.uint8)
            offset = size - len(stored) - CRC_BYTES
            if offset < 0 or source.read([stored, ending], offset) != len(stored) + CRC_BYTES:
                raise NotWhole(f"{file} is too short")
            self._guarded(file, stored, ending, offset)
            index = stored.view("<u8").reshape(chunks, 2)
            present = min(self._shard_rows, self._layout.shape[0] - shard * self._shard_rows)
            used = index[: -(-present // self._layout.chunk)]
            if (used > offset).any() or (used.sum(axis=1) > offset).any() or (used[:, 1] < CRC_BYTES).any():
                raise NotWhole(f"{file} has chunks outside of itself")
            self._indices[shard] = index
            if isinstance(source, RemoteRanges) and source.is_whole:
                self._kept[shard] = source
        return index
