"""Byte ranges of one file: of a disk as they are asked for, of an object store in as few requests as may be."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from frozen_cache.remote import CachePath, RemotePath

SMALL_BYTES = 128 << 10
"""Objects up to here are fetched whole and kept: a request takes as long as a megabyte."""
OPEN_FILES = 128
"""That a reader keeps open at most, of the 1024 that a process may have."""


class Ranges(Protocol):
    """A file that is opened for reading."""

    def size(self) -> int:
        """Bytes of the file; ValueError where it is no regular one."""

    def expect(self, chunks: Sequence[Sequence[int]]) -> None:
        """Tell what will be read next: offset and size come first in each."""

    def read(self, parts: tuple[memoryview | bytearray, ...], offset: int) -> int:
        """Fill `parts`, of bytes, with what follows from `offset` on; how many bytes there were."""


class OpenFiles:
    """Files of a disk that stay open for the next read, the latest ones: opening and closing them takes longer than a
    few kB do. Safe in several threads."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self._limit = limit
        self._files: dict[str, LocalRanges] = {}
        self._lock = threading.Lock()

    def opened(self, path: str) -> LocalRanges:
        """A file; FileNotFoundError where none has that name any more."""
        found = self._files.get(path)
        if found is None or found.is_deleted:
            found = LocalRanges(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))  # waits for no pipe
            with self._lock:
                self._files.pop(path, None)
                while len(self._files) >= self._limit:
                    del self._files[next(iter(self._files))]  # closed when the last thread that reads it is done
                self._files[path] = found
        return found


def opener(folder: CachePath, files: OpenFiles) -> Callable[[str], Ranges]:
    """What opens a file below a folder by its name; FileNotFoundError where there is none. OSErrors of what is done
    with the file name it."""
    if isinstance(folder, RemotePath):
        return lambda name: RemoteRanges(folder / name)
    start = f"{folder}/"
    return lambda name: files.opened(start + name)


class LocalRanges:
    """Of a disk. Closed with the last reference."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    @property
    def is_deleted(self) -> bool:
        """Whether it has no name any more; another file may have that now."""
        return os.fstat(self._descriptor).st_nlink == 0

    def size(self) -> int:
        """As `Ranges.size`."""
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{self._path} is no regular file")
        return found.st_size

    def expect(self, chunks: Sequence[Sequence[int]]) -> None:
        """Nothing."""

    def read(self, parts: tuple[memoryview | bytearray, ...], offset: int) -> int:
        """As `Ranges.read`."""
        return os.preadv(self._descriptor, parts, offset)


class RemoteRanges:
    """Of an object store: one request for what is expected, and for whatever else is asked for one each."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._start, self._content = 0, np.empty(0, np.uint8)

    @property
    def is_whole(self) -> bool:
        """Whether all of the object is here."""
        return len(self._content) == self.size()

    def size(self) -> int:
        """Bytes of the object, as it was listed."""
        return self._path.size()

    def expect(self, chunks: Sequence[Sequence[int]]) -> None:
        """Fetch all of it, or the whole of a small object."""
        self._fetch(min(offset for offset, *_ in chunks), max(offset + size for offset, size, *_ in chunks))

    def read(self, parts: tuple[memoryview | bytearray, ...], offset: int) -> int:
        """As `Ranges.read`."""
        self._fetch(offset, offset + sum(map(len, parts)))
        first = at = offset - self._start
        for part in parts:
            found = self._content[at : at + len(part)]
            part[: len(found)] = found.data
            at += len(found)
        return at - first

    def _fetch(self, start: int, stop: int) -> None:
        if not self._has(start, stop):
            start, stop = (0, self.size()) if self.size() <= SMALL_BYTES else (start, stop)
            self._start, self._content = start, np.frombuffer(self._path.read_range(start, stop), np.uint8)

    def _has(self, start: int, stop: int) -> bool:
        return self._start <= start and stop <= self._start + len(self._content)
