"""Who writes which segment: one lock file, byte n for segment n, let go by the system when its process ends."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from types import TracebackType

from frozen_cache.durable import errors_name
from frozen_cache.remote import CachePath, RemotePath

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO)
"""How file systems say that they do not lock, or that whoever locks for them is away."""


def segment_locks(cache: CachePath) -> SegmentLocks | NoLocks:
    """The locks of a cache: of an object store there are none."""
    return NoLocks() if isinstance(cache, RemotePath) else SegmentLocks(cache)


class NoLocks:
    """Everyone has every claim."""

    def claim(self, segment: int) -> bool:
        """True."""
        return True

    def release(self, segment: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class SegmentLocks:
    """Exclusive claims on segments, between processes and (where the file system locks over the network) machines.

    They save work, no more: where locks do not lock, everyone has every claim, and the ledger decides who was first.
    POSIX record locks vanish with their process, so a killed run leaves no stale claim. They do not exclude threads of
    one process, and closing any handle to the file drops them all: one process keeps one `SegmentLocks` per cache.
    """

    def __init__(self, cache: Path) -> None:
        self._file = (cache / ".lock").open("a+b")
        self.work = True
        """False once the file system has refused to lock."""

    def claim(self, segment: int) -> bool:
        """Take a segment; False where another process has it."""
        try:
            with errors_name(Path(self._file.name)):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, segment)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            self.work = False
        return True

    def release(self, segment: int) -> None:
        """Give a segment back."""
        if self.work:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, segment)

    def close(self) -> None:
        """Give everything back."""
        self._file.close()

    def __enter__(self) -> SegmentLocks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
