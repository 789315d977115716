"""One owner per folder: a second process that would write into the same run or `--out` is told who is there.

No lock of the system is used, because many file systems only pretend to have them. The owner is whoever made the file
`.owner` in the folder, in one step that fails where the file exists: a link, or exclusive creation where links do not
exist. It says who: machine, process, when that was started. The owner touches it every `BEAT` seconds.

A file whose owner is dead is taken over: at once where the owner was a process of this very system (process ids of
another container or machine say nothing), else after `STALE` seconds without a sign of life, by the file system's own
clock. Taking over is itself a right that only one process can get: by making `.owner.TOKEN`, TOKEN being the dead
owner's. An owner that slept through all of this notices before it writes the next time (`check`).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from frozen_cache.errors import UserError

OWNER_FILE = ".owner"
BEAT, STALE = 15.0, 300.0
"""Seconds between signs of life, and without one until an owner counts as dead."""
TRIES = 5


class Owner(BaseModel):
    """Who holds a folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: str
    host: str
    system: str
    """The running kernel and its space of process ids: only within one does a process id tell a process."""
    pid: int
    started: float
    """When the process was started, in seconds since 1970, for people."""
    since_boot: float | None = None
    """The same in seconds since the system was started: Linux moves `started` where its clock is set. None elsewhere,
    and in files of earlier versions."""

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.started))
        return f"process {self.pid} on {self.host} (started {since})"


class Ownership:
    """Holds `folder`, made where it is missing, for the length of a `with` block.

    Entering raises a UserError where another owner is alive, or where the folder cannot be written.
    """

    def __init__(self, folder: Path, *, option: str = "--out") -> None:
        self.folder, self.option = folder, option
        self._file = folder / OWNER_FILE
        self._me = this_process()
        self._stop = threading.Event()
        self._made: list[Path] = []

    def __enter__(self) -> Ownership:
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.option} {self.folder} exists and is a file: choose another path")
        try:
            self._made = _make(self.folder)
            self._take()
            threading.Thread(target=self._beat, name="owner", daemon=True).start()
        except KeyboardInterrupt:
            self._stop.set()
            self._leave()
            raise
        except OSError as error:
            raise UserError(
                f"{self.option} {self.folder} cannot be written ({error.strerror}): choose another path"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._leave()

    def _leave(self) -> None:
        if os.getpid() == self._me.pid and self._is_mine():
            self._file.unlink(missing_ok=True)
        for folder in reversed(self._made):  # what nothing was written into should not stay
            try:
                folder.rmdir()
            except OSError:
                break

    def check(self) -> None:
        """UserError where another process has taken the folder over, this one having slept for too long."""
        if not self._is_mine():
            raise UserError(
                f"{self.option} {self.folder} was taken over, as this process gave no sign of life for "
                f"{STALE:.0f} s; nothing more is written there"
            )

    def _is_mine(self) -> bool:
        found = read_owner(self.folder)
        return found is not None and found.token == self._me.token

    def _take(self) -> None:
        aside = self.folder / f"{OWNER_FILE}.{self._me.token}.new"
        aside.write_text(self._me.model_dump_json())
        try:
            now = aside.stat().st_mtime
            for _ in range(TRIES):
                if _create(aside, self._file):
                    return
                there = read_owner(self.folder)
                if there is None:  # gone by now, or being written at this moment
                    time.sleep(0.05)
                elif is_alive(there, self._file, now=now) or not self._remove(there):
                    raise self._taken(there, now)
            raise UserError(f"{self.option} {self.folder}: {self._file} cannot be read; remove it if nobody uses it")
        finally:
            aside.unlink(missing_ok=True)

    def _remove(self, dead: Owner) -> bool:
        """Take a dead owner's file away; False where another process is doing so."""
        right = self.folder / f"{OWNER_FILE}.{dead.token}"
        try:
            right.touch(exist_ok=False)
        except FileExistsError:
            return False
        try:
            if (there := read_owner(self.folder)) is not None and there.token == dead.token:
                self._file.unlink()
        finally:
            right.unlink()
        return True

    def _taken(self, there: Owner, now: float) -> UserError:
        here = there.system == self._me.system
        quiet = 0.0 if here else max(0.0, now - _mtime(self._file, now))
        seen = "" if here else f", last sign of life {quiet:.0f} s ago (after {STALE:.0f} s it counts as dead)"
        return UserError(
            f"{self.option} {self.folder} is in use by {there}{seen}: wait for it, stop it, or choose another path; "
            f"if it is surely dead, remove {self._file}"
        )

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                os.utime(self._file)
            except OSError:
                continue  # `check` finds out what it means


def this_process() -> Owner:
    """The present process as an owner, under a token of its own."""
    process = psutil.Process()
    return Owner(
        token=uuid.uuid4().hex[:12],
        host=socket.gethostname(),
        system=_system(),
        pid=os.getpid(),
        started=process.create_time(),
        since_boot=_since_boot(process),
    )


def read_owner(folder: Path) -> Owner | None:
    """Whoever holds a folder; None where nobody does, or the file cannot be understood."""
    try:
        return Owner.model_validate_json((folder / OWNER_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def is_alive(owner: Owner, file: Path, *, now: float) -> bool:
    """Whether an owner is to be respected: its process runs, or, on another system, it gave a sign of life lately.

    Args:
        file: what the owner touches.
        now: by the clock of the file system that `file` is on.
    """
    if owner.system != _system():
        return now - _mtime(file, now) < STALE
    try:
        process = psutil.Process(owner.pid)
        then, now_told = owner.since_boot, _since_boot(process)
        if then is None or now_told is None:
            then, now_told = owner.started, process.create_time()
        return abs(now_told - then) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def content_names(folder: Path) -> list[str]:
    """Sorted names of what lies in a folder, the files of its owner left out; none where there is no folder."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in folder.iterdir())
    return [name for name in names if name != OWNER_FILE and not name.startswith(f"{OWNER_FILE}.")]


def _create(aside: Path, target: Path) -> bool:
    """Put what lies at `aside` at `target` too, whole; False where something is there."""
    try:
        os.link(aside, target)
    except FileExistsError:
        return False
    except OSError:  # no links here
        try:
            with target.open("x") as file:
                file.write(aside.read_text())
        except FileExistsError:
            return False
    return True


def _make(folder: Path) -> list[Path]:
    """Make a folder and its parents; those that were missing, from the top."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _mtime(file: Path, default: float) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return default


def _since_boot(process: psutil.Process) -> float | None:
    return process.create_time() - psutil.boot_time() if sys.platform == "linux" else None


def _system() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return json.dumps([socket.gethostname(), uuid.getnode()])
