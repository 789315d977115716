"""Names for what is written aside before it counts: never two alike, and it shows whether their writer still lives."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import time
from functools import cache
from pathlib import Path

OLD_SECONDS = 24 * 3600.0
"""What nobody has touched for so long is left over, whoever wrote it."""
_TOKEN = re.compile(r"([0-9a-f]{8})-([0-9]+)-[0-9a-f]{12}$")


def new_token() -> str:
    """`PLACE-PID-RANDOM`: unlike any other, also between containers in which every process has the same number."""
    return f"{_place()}-{os.getpid()}-{secrets.token_hex(6)}"


def aside_path(path: Path) -> Path:
    """A hidden name beside `path` for its next content."""
    return path.with_name(f".{path.name}.{new_token()}")


def is_left_over(path: Path) -> bool:
    """Whether the writer of `path` (a name that ends in a token) is gone for sure, or all of it is a day old.

    A process is known to be gone only where it ran: on the same boot of the same machine, in the same container.
    """
    return writer_is_gone(path.name) or time.time() - _newest(path) > OLD_SECONDS


def writer_is_gone(name: str) -> bool:
    """Whether a name ends in the token of a process that is dead for sure."""
    found = _TOKEN.search(name)
    return found is not None and found[1] == _place() and not _lives(int(found[2]))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _newest(path: Path) -> float:
    try:
        times = [path.lstat().st_mtime]
        if path.is_dir() and not path.is_symlink():
            times += [inner.lstat().st_mtime for inner in path.rglob("*")]
    except FileNotFoundError:  # at work in there
        return time.time()
    return max(times)


@cache
def _place() -> str:
    """8 hex digits of where process numbers mean the same: machine, boot and process namespace."""
    parts = [platform.node()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        try:
            parts.append(read())
        except OSError:  # not Linux: a number of our own, so that no process is ever taken for dead
            parts.append(secrets.token_hex(8))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
