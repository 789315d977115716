"""Who writes which segment: one lock file, byte n for segment n, let go by the system when its process ends."""

from __future__ import annotations

import fcntl
from pathlib import Path
from types import TracebackType


class SegmentLocks:
    """Exclusive claims on segments, between processes and (where the file system locks over the network) machines.

    POSIX record locks vanish with their process, so a killed run leaves no stale claim. They do not exclude threads of
    one process, and closing any handle to the file drops them all: one process keeps one `SegmentLocks` per cache.
    """

    def __init__(self, cache: Path) -> None:
        self._file = (cache / ".lock").open("a+b")

    def claim(self, segment: int) -> bool:
        """Take a segment; False where another process has it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, segment)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, segment: int) -> None:
        """Give a segment back."""
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
