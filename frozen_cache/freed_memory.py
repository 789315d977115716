"""Memory that was freed stays with the process, so that large tensors need no new pages each time."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""glibc's numbers of what can be set (`mallopt`)."""
NEVER = -1
GROWTH = 64 * 2**20
"""Bytes that the heap gets more than it needs when it grows."""
OF_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")
"""Variables by which a user sets the same; `GLIBC_TUNABLES` does so too."""


def reason_against() -> str | None:
    """Why freed memory is given back here as it always was; None where it can be kept."""
    if platform.libc_ver()[0] != "glibc":
        return "no glibc"
    if "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return "GLIBC_TUNABLES is set"
    return next((f"{name} is set" for name in OF_USERS if name in os.environ), None)


def keep_freed_memory() -> None:
    """From now on glibc keeps what is freed, unless there is a reason against.

    By itself it maps each block of more than 32 MB anew and unmaps it when it is freed, so each step of a training
    faults in hundreds of thousands of empty pages. Here large blocks come from the heap as well, which never shrinks:
    the process stays at its peak. Measured in docs/decisions/011.
    """
    if reason_against() is not None:
        return
    libc = ctypes.CDLL(None)
    for which, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER), (TOP_PAD, GROWTH)):
        libc.mallopt(which, value)
