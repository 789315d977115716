"""A sharded array of a segment, read without zarr: its chunks' byte ranges, each with its CRC-32C.

zarr takes a millisecond of CPU for each array and copies all data twice, and of an object store it asks for the index
of a shard each time, and for each chunk. What is read here lies where the shard's index says, as the sharding codec
defines it, so that zarr reads the same; the segment has been opened, and its `zarr.json` compared with the layout,
before. Chunks of a disk go from the file to where they stay, whole ones without a copy in between; the lock of
Python's threads is let go for reading and for zstd.
"""

from __future__ import annotations

from dataclasses import dataclass

import google_crc32c
import numpy as np
from numcodecs import Zstd

from frozen_cache.cache.chunk_sums import ChunkSums
from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.layout import CRC_BYTES, INDEX_ENTRY_BYTES, ArrayLayout
from frozen_cache.cache.ledger import SegmentRecord
from frozen_cache.cache.ranges import Ranges, RemoteRanges, open_ranges
from frozen_cache.remote import CachePath

_ZSTD = Zstd()


@dataclass(frozen=True)
class _Shard:
    """One file, whose index has been read."""

    chunks: np.ndarray
    """(chunks, 2) int64: offset and size."""
    sums: np.ndarray | None
    """(chunks,) uint32, the CRC-32C that each was written with; None where the segment does not tell."""


class DirectArray:
    """One array. Reading is safe in several threads."""

    def __init__(
        self, folder: CachePath, name: str, layout: ArrayLayout, *, record: SegmentRecord, sums: ChunkSums
    ) -> None:
        """
        Args:
            record: the segment's line, which has the sizes of its files.
            sums: what its chunks must end in, as far as that is known.
        """
        self._folder, self._name, self._layout = folder, name, layout
        self._record, self._sums = record, sums
        self._tail = "/0" * (len(layout.shape) - 1)
        self._shard_rows = layout.shard or layout.chunk
        self._row_shape = layout.shape[1:]
        self._dtype = np.dtype(layout.dtype).newbyteorder("<")
        self._row_bytes = int(np.prod(self._row_shape, dtype=np.int64)) * self._dtype.itemsize
        self._shards: dict[int, _Shard] = {}
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
        if found.size:
            into = found.reshape(-1).view(np.uint8)
            at = start
            while at < stop:
                shard, first = divmod(at, self._shard_rows)
                end = min(stop, at - first + self._shard_rows)
                to = into[(at - start) * self._row_bytes : (end - start) * self._row_bytes]
                self._read_shard(shard, first, first + end - at, to)
                at = end
        return found.astype(self._dtype.newbyteorder("="), copy=False)

    def _read_shard(self, shard: int, start: int, stop: int, out: np.ndarray) -> None:
        """Rows `start` to `stop` of one file into `out`, (bytes,) uint8."""
        file = f"{self._name}/c/{shard}{self._tail}"
        with self._opened(shard, file) as source:
            known = self._known(source, shard, file)
            rows, row_bytes = self._layout.chunk, self._row_bytes
            numbers = slice(start // rows, -(-stop // rows))
            chunks = known.chunks[numbers].tolist()
            sums = None if known.sums is None else known.sums[numbers].tolist()
            source.expect(min(offset for offset, _ in chunks), max(offset + size for offset, size in chunks))
            for place, (offset, size) in enumerate(chunks):
                low = (numbers.start + place) * rows
                before, after = max(start, low), min(stop, low + rows)
                to = out[(before - start) * row_bytes : (after - start) * row_bytes]
                whole = after - before == rows
                content = to if whole else np.empty(rows * row_bytes, dtype=np.uint8)
                crc = self._read_chunk(source, file, offset, size, content)
                if sums is not None and crc != sums[place]:
                    raise _others(file)
                if not whole:
                    to[:] = content[(before - low) * row_bytes : (after - low) * row_bytes]

    def _opened(self, shard: int, file: str) -> Ranges:
        if file not in self._record.files:
            raise NotWhole(f"{file} is missing in its line of the ledger")
        try:
            return self._kept.get(shard) or open_ranges(self._folder, file)
        except (FileNotFoundError, NotADirectoryError):
            raise NotWhole(f"{file} is missing") from None

    def _known(self, source: Ranges, shard: int, file: str) -> _Shard:
        """What the index of a file says, which has the size that was written."""
        try:
            size = source.size()
        except ValueError:
            raise NotWhole(f"{file} is no regular file") from None
        if size != (written := self._record.files[file][0]):
            raise NotWhole(f"{file} has {size} bytes, {written} were written")
        known = self._shards.get(shard)
        if known is None:
            known = self._shards[shard] = self._shard(source, shard, file, size)
            if isinstance(source, RemoteRanges) and source.is_whole:
                self._kept[shard] = source
        return known

    def _read_chunk(self, source: Ranges, file: str, offset: int, size: int, out: np.ndarray) -> int:
        """A chunk's content into `out`, (bytes,) uint8 of just its size; returns its CRC-32C."""
        length = size - CRC_BYTES
        stored = np.empty(length, dtype=np.uint8) if self._layout.zstd else out
        if length != len(stored):
            raise NotWhole(f"{file} has a chunk of {size} bytes")
        crc = _read_guarded(source, file, offset, stored)
        if self._layout.zstd:
            _ZSTD.decode(stored, out)
        return crc

    def _shard(self, source: Ranges, shard: int, file: str, size: int) -> _Shard:
        count = self._shard_rows // self._layout.chunk
        stored = np.empty(count * INDEX_ENTRY_BYTES, dtype=np.uint8)
        offset = size - len(stored) - CRC_BYTES
        if offset < 0:
            raise NotWhole(f"{file} is too short")
        crc = _read_guarded(source, file, offset, stored)
        index = stored.view("<u8").reshape(count, 2)
        present = min(self._shard_rows, self._layout.shape[0] - shard * self._shard_rows)
        used = index[: -(-present // self._layout.chunk)]
        if (used > offset).any() or (used.sum(axis=1) > offset).any() or (used[:, 1] < CRC_BYTES).any():
            raise NotWhole(f"{file} has chunks outside of itself")
        chunks = used.astype(np.int64)
        if file not in self._sums:
            return _Shard(chunks, None)
        sums = self._sums.at(file, np.append(chunks.sum(axis=1), size))
        if sums is None or sums[-1] != crc:
            raise _others(file)
        return _Shard(chunks, sums[:-1])


def _read_guarded(source: Ranges, file: str, offset: int, out: np.ndarray) -> int:
    """What lies at `offset` into `out`; returns its CRC-32C, which must be the one that follows there."""
    ending = np.empty(CRC_BYTES, dtype=np.uint8)
    if source.read([out, ending], offset) != len(out) + CRC_BYTES:
        raise NotWhole(f"{file} is too short")
    crc = int(google_crc32c.value(out))
    if crc != int.from_bytes(ending.tobytes(), "little"):
        raise NotWhole(f"{file} has a chunk whose checksum is not its own")
    return crc


def _others(file: str) -> NotWhole:
    return NotWhole(f"{file} holds other chunks than were written to it")
