"""A growing array, written without zarr as the files that zarr's sharding codec makes of it, byte for byte.

zarr copies all data three times, holds a whole shard of each array and has no more than one thread at work. Here a
chunk is encoded (zstd, CRC-32C) by one of several threads and goes from where it lies to its file, while the sums that
the ledger and the segment's group keep are those of memory, not of what a disk gives back. The caller alone makes
files and writes to them, in order; a file that has become whole is flushed by a thread, while others grow.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zarr
from awscrt.checksums import crc32c
from numcodecs import Zstd

from frozen_cache.cache.chunk_sums import packed_sums
from frozen_cache.cache.joined_crc import joined_crc32
from frozen_cache.cache.layout import CRC_BYTES, ZSTD_LEVEL, ArrayLayout
from frozen_cache.durable import flush_file

AHEAD = 16
"""Chunks of an array that are encoded, or wait for it, at most, while the caller goes on."""
THREADS = min(4, os.cpu_count() or 1)
_ABSENT = 2**64 - 1
_ZSTD = Zstd(level=ZSTD_LEVEL)


@dataclass(frozen=True)
class ShardFile:
    """A file that has been written."""

    size: int
    crc32: int
    chunk_sums: str
    """As `packed_sums` gives them."""

    @property
    def told(self) -> tuple[int, int]:
        """As a `SegmentRecord` has it."""
        return self.size, self.crc32


@dataclass(frozen=True)
class _Chunk:
    """As it lies in its file."""

    content: memoryview | bytes
    ending: bytes
    """Its CRC-32C."""
    crc32: int
    """Of both."""

    @property
    def size(self) -> int:
        return len(self.content) + len(self.ending)


class Column:
    """One growing array. Its rows go to their files as chunks become whole."""

    def __init__(self, group: Path, name: str, layout: ArrayLayout, pool: Executor) -> None:
        """
        Args:
            group: folder of the segment.
            layout: the array's, sharded; its number of rows does not matter.
            pool: threads that encode and flush; whoever has made it ends it.
        """
        assert layout.shard is not None
        self._group, self._name, self._layout, self._pool = group, name, layout, pool
        self._dtype = np.dtype(layout.dtype).newbyteorder("<")
        row_bytes = int(np.prod(layout.shape[1:], dtype=np.int64)) * self._dtype.itemsize
        self._chunk_bytes = layout.chunk * row_bytes
        self._chunks_of_a_shard = layout.shard // layout.chunk
        self._rows = 0
        self._kept: list[np.ndarray] = []
        """(bytes,) uint8, parts of the next chunk, in memory of their own."""
        self._kept_bytes = 0
        self._waiting: deque[Future[_Chunk]] = deque()
        self._flushing: list[Future[None]] = []
        self._shard: _OpenShard | None = None
        self.files: dict[str, ShardFile] = {}
        """Path in the group -> what has been written there."""

    def append(self, values: np.ndarray) -> None:
        """Add rows, which must stay as they are until `finish`."""
        self._rows += len(values)
        content = np.ascontiguousarray(values, dtype=self._dtype).reshape(-1).view(np.uint8)
        at = 0
        while self._kept_bytes + len(content) - at >= self._chunk_bytes > 0:
            end = at + self._chunk_bytes - self._kept_bytes
            self._add_chunk([*self._kept, content[at:end]])
            self._kept, self._kept_bytes, at = [], 0, end
        if at < len(content):
            self._kept.append(content[at:].copy())
            self._kept_bytes += len(content) - at

    def finish(self, group: zarr.Group, *, columns: tuple[str, ...] = ()) -> None:
        """Write what is left, the last chunk filled up with zeros, and the array's `zarr.json`; files that were not
        flushed on the way still are to be.

        Args:
            columns: names of its last axis.
        """
        if self._kept_bytes:
            self._add_chunk([*self._kept, np.zeros(self._chunk_bytes - self._kept_bytes, np.uint8)])
            self._kept, self._kept_bytes = [], 0
        while self._waiting:
            self._write(self._waiting.popleft().result())
        if self._shard is not None:
            self._end_shard(self._shard)
        for flushed in self._flushing:
            flushed.result()
        replace(self._layout, shape=(self._rows, *self._layout.shape[1:])).create(group, self._name, columns=columns)

    def close(self) -> None:
        """Let go of what is open."""
        for waiting in self._waiting:
            waiting.cancel()
        for flushed in self._flushing:
            flushed.cancel()
        if self._shard is not None:
            self._shard.file.close()

    def _add_chunk(self, parts: list[np.ndarray]) -> None:
        self._waiting.append(self._pool.submit(_encoded, parts, zstd=self._layout.zstd))
        while self._waiting and (len(self._waiting) > AHEAD or self._waiting[0].done()):
            self._write(self._waiting.popleft().result())

    def _write(self, chunk: _Chunk) -> None:
        if self._shard is None:
            tail = "/0" * (len(self._layout.shape) - 1)
            name = f"{self._name}/c/{len(self.files)}{tail}"
            (self._group / name).parent.mkdir(parents=True, exist_ok=True)
            self._shard = _OpenShard(name, (self._group / name).open("wb"), self._chunks_of_a_shard)
        self._shard.add(chunk)
        if self._shard.is_full:
            shard = self._shard
            self._end_shard(shard)
            self._flushing.append(self._pool.submit(flush_file, self._group / shard.name))

    def _end_shard(self, shard: _OpenShard) -> None:
        self.files[shard.name] = shard.end()
        self._shard = None


class _OpenShard:
    """One file that is being written."""

    def __init__(self, name: str, file: BinaryIO, chunks: int) -> None:
        self.name, self.file = name, file
        self._index = np.full((chunks, 2), _ABSENT, dtype="<u8")
        self._sums: list[bytes] = []
        self._size = self._crc32 = 0

    @property
    def is_full(self) -> bool:
        return len(self._sums) == len(self._index)

    def add(self, chunk: _Chunk) -> None:
        self._index[len(self._sums)] = (self._size, chunk.size)
        self._put(chunk)

    def end(self) -> ShardFile:
        """Write the index, and close."""
        ends = self._index[: len(self._sums)].sum(axis=1).tolist()
        self._put(_guarded(self._index.tobytes()))
        self.file.close()
        return ShardFile(self._size, self._crc32, packed_sums([*ends, self._size], self._sums))

    def _put(self, chunk: _Chunk) -> None:
        self.file.write(chunk.content)
        self.file.write(chunk.ending)
        self._sums.append(chunk.ending)
        self._crc32 = joined_crc32(self._crc32, chunk.crc32, chunk.size)
        self._size += chunk.size


def _encoded(parts: list[np.ndarray], *, zstd: bool) -> _Chunk:
    content = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return _guarded(_ZSTD.encode(content) if zstd else content.data)


def _guarded(content: memoryview | bytes) -> _Chunk:
    ending = crc32c(content).to_bytes(CRC_BYTES, "little")  # without Python's lock
    return _Chunk(content, ending, zlib.crc32(ending, zlib.crc32(content)))
