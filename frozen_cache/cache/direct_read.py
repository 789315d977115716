"""A sharded array of a segment, read without zarr: its chunks' byte ranges, each with its CRC-32C.

zarr takes a millisecond of CPU for each array and copies all data twice, and of an object store it asks for the index
of a shard each time, and for each chunk. What is read here lies where the shard's index says, as the sharding codec
defines it, so that zarr reads the same; the segment has been opened, and its `zarr.json` compared with the layout,
before. Chunks of a disk go from the file to where they stay, whole ones without a copy in between, and each is summed
while the processor still has it at hand; the lock of Python's threads is let go for reading, for the CRC-32C (which
google_crc32c keeps) and for zstd.
"""

from __future__ import annotations

import numpy as np
from awscrt.checksums import crc32c
from numcodecs.zstd import decompress

from frozen_cache.cache.chunk_sums import ChunkSums
from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.layout import CRC_BYTES, INDEX_ENTRY_BYTES, ArrayLayout
from frozen_cache.cache.ledger import SegmentRecord
from frozen_cache.cache.ranges import OpenFiles, Ranges, RemoteRanges, opener
from frozen_cache.remote import CachePath

_ALIGNMENT = 64
"""Bytes: the kernel copies a file into memory that starts at a multiple of it in half the time."""
_LARGE = 256 << 10
"""Bytes from which that pays."""
_UNKNOWN = -1
"""In place of a chunk's CRC-32C where the segment does not tell."""


class DirectArray:
    """One array. Reading is safe in several threads."""

    def __init__(
        self,
        folder: CachePath,
        name: str,
        layout: ArrayLayout,
        *,
        record: SegmentRecord,
        sums: ChunkSums,
        files: OpenFiles,
    ) -> None:
        """
        Args:
            record: the segment's line, which has the sizes of its files.
            sums: what its chunks must end in, as far as that is known.
            files: shared with other arrays.
        """
        self._name, self._layout = name, layout
        self._open = opener(folder, files)
        self._record, self._sums = record, sums
        self._tail = "/0" * (len(layout.shape) - 1)
        self._shard_rows = layout.shard or layout.chunk
        self._row_shape = layout.shape[1:]
        self._dtype = np.dtype(layout.dtype).newbyteorder("<")
        self._row_bytes = int(np.prod(self._row_shape, dtype=np.int64)) * self._dtype.itemsize
        self._chunks: dict[int, np.ndarray] = {}
        """Shard -> (chunks, 3) int64: offset, size, and the CRC-32C that it was written with or `_UNKNOWN`."""
        self._kept: dict[int, RemoteRanges] = {}
        """Shard -> its file, where that is small and has been fetched whole."""

    def __len__(self) -> int:
        return self._layout.shape[0]

    @property
    def nbytes(self) -> int:
        """Of all of it in memory."""
        return len(self) * self._row_bytes

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, in memory of their own.

        Raises:
            NotWhole: what is there is not what was written.
            OSError: it cannot be read.
        """
        self._check(start, stop)
        into = _new_bytes((stop - start) * self._row_bytes)
        self._read_into(start, stop, into)
        found = into.view(self._dtype).reshape(stop - start, *self._row_shape)
        return found if self._dtype.isnative else found.astype(self._dtype.newbyteorder("="))

    def read_unless_zeros(self, start: int, stop: int) -> np.ndarray | None:
        """Rows `start` to `stop` of an array of single bytes, (stop - start,) uint8; None where all of them are 0.

        Zeros are looked for chunk by chunk, while the processor has them at hand, and take no memory. Of an object
        store that would be a request for each chunk. Errors as in `read`.
        """
        self._check(start, stop)
        at, rows = start, self._layout.chunk
        room = np.empty(min(rows, stop - start), dtype=np.uint8)
        while at < stop:
            end = min(stop, at - at % rows + rows)
            part = room[: end - at]
            self._read_into(at, end, part)
            if part.max(initial=0):
                found = _new_bytes(stop - start)
                found[: at - start] = 0
                found[at - start : end - start] = part
                self._read_into(end, stop, found[end - start :])
                return found
            at = end
        return None

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self._layout.shape[0]:
            raise NotWhole(f"{self._name} is too short")

    def _read_into(self, start: int, stop: int, into: np.ndarray) -> None:
        """Rows `start` to `stop` into (bytes,) uint8."""
        at = start if len(into) else stop
        while at < stop:
            shard, first = divmod(at, self._shard_rows)
            end = min(stop, at - first + self._shard_rows)
            to = into[(at - start) * self._row_bytes : (end - start) * self._row_bytes]
            self._read_shard(shard, first, first + end - at, to)
            at = end

    def _read_shard(self, shard: int, start: int, stop: int, out: np.ndarray) -> None:
        """Rows `start` to `stop` of one file into `out`, (bytes,) uint8."""
        file = f"{self._name}/c/{shard}{self._tail}"
        source = self._opened(shard, file)
        known = self._chunks.get(shard)
        if known is None:
            known = self._index(source, shard, file)
        rows, row_bytes = self._layout.chunk, self._row_bytes
        number = start // rows
        chunks = known[number : -(-stop // rows)].tolist()
        source.expect(chunks)
        low = number * rows
        for offset, size, written in chunks:
            high = low + rows
            whole = start <= low and high <= stop
            if whole:
                content = out[(low - start) * row_bytes : (high - start) * row_bytes]
            else:
                content = np.empty(rows * row_bytes, dtype=np.uint8)
            crc = self._read_chunk(source, file, offset, size, content)
            if crc != written != _UNKNOWN:
                raise _others(file)
            if not whole:
                before, after = max(start, low), min(stop, high)
                out[(before - start) * row_bytes : (after - start) * row_bytes] = content[
                    (before - low) * row_bytes : (after - low) * row_bytes
                ]
            low = high

    def _opened(self, shard: int, file: str) -> Ranges:
        if file not in self._record.files:
            raise NotWhole(f"{file} is missing in its line of the ledger")
        try:
            return self._kept.get(shard) or self._open(file)
        except (FileNotFoundError, NotADirectoryError):
            raise NotWhole(f"{file} is missing") from None

    def _index(self, source: Ranges, shard: int, file: str) -> np.ndarray:
        """The chunks of a file, which has the size that was written; from then on each chunk tells for itself."""
        try:
            size = source.size()
        except ValueError:
            raise NotWhole(f"{file} is no regular file") from None
        if size != (written := self._record.files[file][0]):
            raise NotWhole(f"{file} has {size} bytes, {written} were written")
        known = self._chunks[shard] = self._read_index(source, shard, file, size)
        if isinstance(source, RemoteRanges) and source.is_whole:
            self._kept[shard] = source
        return known

    def _read_chunk(self, source: Ranges, file: str, offset: int, size: int, out: np.ndarray) -> int:
        """A chunk's content into `out`, (bytes,) uint8 of just its size; returns its CRC-32C."""
        length = size - CRC_BYTES
        if not self._layout.zstd:
            if length != len(out):
                raise NotWhole(f"{file} has a chunk of {size} bytes")
            return _read_guarded(source, file, offset, out)
        stored = np.empty(length, dtype=np.uint8)
        crc = _read_guarded(source, file, offset, stored)
        decompress(stored, out)
        return crc

    def _read_index(self, source: Ranges, shard: int, file: str, size: int) -> np.ndarray:
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
        chunks = np.full((len(used), 3), _UNKNOWN, dtype=np.int64)
        chunks[:, :2] = used
        if file in self._sums:
            sums = self._sums.at(file, np.append(chunks[:, :2].sum(axis=1), size))
            if sums is None or sums[-1] != crc:
                raise _others(file)
            chunks[:, 2] = sums[:-1]
        return chunks


def _new_bytes(size: int) -> np.ndarray:
    """(size,) uint8; large ones start where the kernel copies fast."""
    if size < _LARGE:
        return np.empty(size, dtype=np.uint8)
    room = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    skipped = -room.ctypes.data % _ALIGNMENT
    return room[skipped : skipped + size]


def _read_guarded(source: Ranges, file: str, offset: int, out: np.ndarray) -> int:
    """What lies at `offset` into `out`; returns its CRC-32C, which must be the one that follows there."""
    ending = bytearray(CRC_BYTES)
    if source.read((out.data, ending), offset) != len(out) + CRC_BYTES:
        raise NotWhole(f"{file} is too short")
    crc: int = crc32c(out)
    if crc != int.from_bytes(ending, "little"):
        raise NotWhole(f"{file} has a chunk whose checksum is not its own")
    return crc


def _others(file: str) -> NotWhole:
    return NotWhole(f"{file} holds other chunks than were written to it")
