"""Byte ranges of one file: of a disk as they are asked for, of an object store in as few requests as may be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from frozen_cache.remote import CachePath, RemotePath

SMALL_BYTES = 128 << 10
"""Objects up to here are fetched whole and kept: a request takes as long as a megabyte."""


class Ranges(Protocol):
    """A file that is opened for reading."""

    def size(self) -> int:
        """Bytes of the file; ValueError where it is no regular one."""

    def expect(self, start: int, stop: int) -> None:
        """Tell what will be read next."""

    def read(self, parts: tuple[np.ndarray, ...], offset: int) -> int:
        """Fill `parts`, each (bytes,) uint8, with what follows from `offset` on; how many bytes there were."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def opener(folder: CachePath) -> Callable[[str], Ranges]:
    """What opens a file below a folder by its name; FileNotFoundError where there is none. OSErrors of what is done
    with the file name it."""
    if isinstance(folder, RemotePath):
        return lambda name: RemoteRanges(folder / name)
    start = f"{folder}/"
    return lambda name: LocalRanges(start + name)


class LocalRanges:
    """Of a disk."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for

    def size(self) -> int:
        """As `Ranges.size`."""
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{self._path} is no regular file")
        return found.st_size

    def expect(self, start: int, stop: int) -> None:
        """Nothing."""

    def read(self, parts: tuple[np.ndarray, ...], offset: int) -> int:
        """As `Ranges.read`."""
        return os.preadv(self._descriptor, [part.data for part in parts], offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


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

    def expect(self, start: int, stop: int) -> None:
        """Fetch it, or the whole of a small object."""
        if not self._has(start, stop):
            start, stop = (0, self.size()) if self.size() <= SMALL_BYTES else (start, stop)
            self._start, self._content = start, np.frombuffer(self._path.read_range(start, stop), np.uint8)

    def read(self, parts: tuple[np.ndarray, ...], offset: int) -> int:
        """As `Ranges.read`."""
        self.expect(offset, offset + sum(map(len, parts)))
        first = at = offset - self._start
        for part in parts:
            found = self._content[at : at + len(part)]
            part[: len(found)] = found
            at += len(found)
        return at - first

    def _has(self, start: int, stop: int) -> bool:
        return self._start <= start and stop <= self._start + len(self._content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be closed."""
