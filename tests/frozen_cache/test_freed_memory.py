"""Freed memory is kept: counted in page faults, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from frozen_cache import freed_memory
from frozen_cache.freed_memory import OF_USERS, keep_freed_memory, reason_against

PROGRAM = """
import ctypes, resource, sys
from frozen_cache.freed_memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def step():
    blocks = []
    for size in (48, 40, 1):
        blocks.append(libc.malloc(size * 2**20))
        libc.memset(blocks[-1], 1, size * 2**20)
    for block in blocks:
        libc.free(block)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Ten steps that use 89 MB each and free them."""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever runs the tests."""
    for name in (*OF_USERS, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def faults(how: str) -> int:
    """Minor page faults of the ten steps."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@glibc
def test_large_blocks_are_not_faulted_in_anew() -> None:
    assert faults("kept") < 100  # 22,784 pages of 4 KB a step otherwise


@glibc
@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_MMAP_MAX_", "65536"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=65536")]
)
def test_what_a_user_has_set_stands(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert reason_against() == f"{name} is set"
    assert faults("kept") == pytest.approx(faults("as it is"), rel=0.1)


@glibc
def test_tunables_of_other_things_are_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=1")
    assert reason_against() is None


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: None) -> None:
        raise OSError("not here")

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", refuse)
    assert reason_against() == "no glibc"
    keep_freed_memory()
