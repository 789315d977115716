"""What the faults of `fault_model` are tried on, for the tests (some points) and `benchmarks/faults.py` (all)."""

from __future__ import annotations

import copy
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from unittest import mock

from fault_model import Faults, Killed, Toy
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.ledger import committed_segments, read_record
from frozen_cache.errors import FrozenCacheError

ERRORS = (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EACCES)
MOST_CALLS = 800
Work = Callable[[Toy], None]


def fill(toy: Toy) -> None:
    """Extract all."""
    toy.fill()


def spoil(toy: Toy) -> None:
    """Make a whole cache whose first segment lacks its folder's largest file, whose second is open."""
    toy.fill()
    record = read_record(toy.path, 0, toy.attributes.fingerprint)
    (record.folder_in(toy.path) / max(record.files, key=lambda name: record.files[name])).unlink()
    (toy.path / "ledger" / "00001.json").unlink()


def mend(toy: Toy) -> None:
    """Repair."""
    toy.mend()


def nothing(toy: Toy) -> None:
    """There is no cache yet."""


WORKS: dict[str, tuple[int, Work, Work]] = {"extract": (1, nothing, fill), "repair": (2, spoil, mend)}
"""Name -> (segments, what comes before, the work that is disturbed). A second segment is written by `repair`."""
MEMORY = Path("/dev/shm")
"""A folder in memory, where there is one: a disk's time for each change is most of a fault's."""


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for caches of a few KB."""
    return tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)


@cache
def _start(name: str, precision: str) -> tuple[Toy, tempfile.TemporaryDirectory[str]]:
    """What a work begins with, made once and kept while the process lives."""
    count, before, _ = WORKS[name]
    folder = scratch()
    toy = Toy(Path(folder.name) / "x.zarr", count=count, precision=precision)
    before(toy)
    return toy, folder


def start(name: str, folder: str, *, precision: str) -> Toy:
    """A copy of what a work begins with, in `folder`."""
    made, _ = _start(name, precision)
    toy = copy.copy(made)
    toy.path = Path(folder) / "x.zarr"
    if made.path.exists():
        shutil.copytree(made.path, toy.path)
    return toy


def calls_of(name: str, *, precision: str = "float16") -> list[str]:
    """The calls that change the disk in one undisturbed run of a work."""
    *_, work = WORKS[name]
    with scratch() as folder:
        Toy(Path(folder) / "first.zarr").fill()  # what is imported on first use
        toy = start(name, folder, precision=precision)
        with Faults() as faults:
            work(toy)
    return faults.names


def try_points(name: str, points: Iterable[int], *, error: int | None = None, precision: str = "float16") -> list[str]:
    """Disturb a work at each of these calls; what went wrong, in words: what is read afterwards, what the error says,
    and what is not whole, or left lying about, after the work has been done again."""
    *_, work = WORKS[name]
    found = []
    for at in points:
        with scratch() as folder:
            toy = start(name, folder, precision=precision)
            try:
                with Faults(at=at, error=error):
                    work(toy)
            except Killed:
                pass
            except OSError as caught:
                if caught.errno != error or str(folder) not in str(caught.filename):
                    found.append(f"{name} {at}: {caught!r} does not say where")
            wrong = toy.wrong() if (toy.path / "zarr.json").exists() else None
            with mock.patch("frozen_cache.aside._lives", lambda pid: False):
                mend(toy)
                toy.fill()
            wrong = wrong or toy.unfinished() or (f"left over: {toy.leftovers()}" if toy.leftovers() else None)
            if wrong:
                found.append(f"{name} {at} {'killed' if error is None else errno.errorcode[error]}: {wrong}")
    return found


class CacheMachine(RuleBasedStateMachine):
    """Any order of extraction, deaths, I/O errors, damage, repair and writers side by side: every number that is read
    is what was written, or an error names the place; and a repair at the end makes the cache whole."""

    precision = "float16"

    def __init__(self) -> None:
        super().__init__()
        self._folder = scratch()
        self.toy = Toy(Path(self._folder.name) / "x.zarr", count=3, precision=self.precision)

    @rule(stop=st.integers(1, 3))
    def extract(self, stop: int) -> None:
        """Go on."""
        self._do(lambda: self.toy.fill(stop=stop))

    @rule(at=st.integers(0, MOST_CALLS))
    def extract_killed(self, at: int) -> None:
        """Go on, and die underway."""
        self._do(self.toy.fill, Faults(at=at))

    @rule(at=st.integers(0, MOST_CALLS), error=st.sampled_from(ERRORS))
    def extract_with_an_error(self, at: int, error: int) -> None:
        """Go on, with an I/O error underway."""
        self._do(self.toy.fill, Faults(at=at, error=error))

    @rule()
    def repair(self) -> None:
        """Mend what is damaged, and what is open."""
        self._do(self.toy.mend)

    @rule(at=st.integers(0, MOST_CALLS))
    def repair_killed(self, at: int) -> None:
        """Mend, and die underway."""
        self._do(self.toy.mend, Faults(at=at))

    @rule(at=st.integers(0, MOST_CALLS), error=st.sampled_from(ERRORS))
    def repair_with_an_error(self, at: int, error: int) -> None:
        """Mend, with an I/O error underway."""
        self._do(self.toy.mend, Faults(at=at, error=error))

    @rule()
    def two_writers(self) -> None:
        """Two at the same segment, without locks."""
        self._do(self._race)

    @precondition(lambda self: self._files())
    @rule(which=st.integers(0, 10**6), place=st.integers(0, 10**6), bit=st.integers(0, 7))
    def flip_a_bit(self, which: int, place: int, bit: int) -> None:
        """In any file."""
        files = self._files()
        file = files[which % len(files)]
        content = bytearray(file.read_bytes())
        if content:
            content[place % len(content)] ^= 1 << bit
            file.write_bytes(content)

    @precondition(lambda self: self._files())
    @rule(which=st.integers(0, 10**6))
    def delete(self, which: int) -> None:
        """Any file."""
        files = self._files()
        files[which % len(files)].unlink()

    @rule()
    def verify(self) -> None:
        """Nothing is called intact that cannot be read as it was written (`numbers_are_right` reads it)."""
        with suppress(FrozenCacheError):
            found = verify_cache(self.toy.path)
            if not found.damages and not found.open and not found.stem:
                assert self.toy.unfinished() is None

    @invariant()
    def numbers_are_right(self) -> None:
        """The promise."""
        assert self.toy.wrong() is None

    def teardown(self) -> None:
        """Afterwards it can be made whole, unless the root document and all lines are lost."""
        with self._folder, mock.patch("frozen_cache.aside._lives", lambda pid: False):
            try:
                self.toy.mend()
                self.toy.fill()
            except FrozenCacheError as error:
                assert str(self.toy.path) in str(error)
                assert not self._lines_that_prove(), error
                return
            assert self.toy.unfinished() is None
            assert not self.toy.leftovers()

    def _do(self, work: Callable[[], None], faults: Faults | None = None) -> None:
        try:
            with faults or Faults():
                work()
        except Killed:
            pass
        except FrozenCacheError as error:
            assert str(self.toy.path) in str(error)
        except OSError as error:
            assert faults is not None
            assert self._folder.name in str(error.filename)

    def _race(self) -> None:
        with mock.patch("fcntl.lockf", lambda *args: None):
            one, two = self.toy.writer(), self.toy.writer()
            try:
                for segment in one.pending()[:1]:
                    with one.segment(segment) as out:
                        self.toy.append(out, self.toy.views[segment])
                        self.toy.put(two, segment)
            finally:
                one.close()
                two.close()

    def _files(self) -> list[Path]:
        found = (Path(top) / name for top, _, names in os.walk(self.toy.path) for name in names)
        return sorted(file for file in found if file.name != ".lock")

    def _lines_that_prove(self) -> list[int]:
        found = []
        for segment in committed_segments(self.toy.path) if (self.toy.path / "ledger").is_dir() else []:
            with suppress(FrozenCacheError):
                read_record(self.toy.path, segment, self.toy.attributes.fingerprint)
                found.append(segment)
        return found


class CodedMachine(CacheMachine):
    """The same with coded maps, whose shards have no size that could be computed."""

    precision = "coded"


class RecomputedMachine(CacheMachine):
    """The same with image files and a stem in place of C1."""

    precision = "recomputed"
