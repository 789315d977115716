"""One process per folder, whatever the file system's locks are worth."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from frozen_cache import ownership
from frozen_cache.errors import UserError
from frozen_cache.ownership import OWNER_FILE, STALE, Ownership, read_owner, this_process


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def leave(folder: Path, *, age: float = 0.0, **changes: object) -> None:
    """An owner file that a process like this one left behind."""
    folder.mkdir(exist_ok=True)
    owner = this_process().model_copy(update=changes)
    (folder / OWNER_FILE).write_text(owner.model_dump_json())
    then = time.time() - age
    os.utime(folder / OWNER_FILE, (then, then))


def test_a_folder_is_made_held_and_let_go(tmp_path):
    with Ownership(tmp_path / "a" / "out") as owner:
        assert names(owner.folder) == [OWNER_FILE]
        (owner.folder / "result").touch()
        owner.check()
    assert names(tmp_path / "a" / "out") == ["result"]


def test_a_folder_into_which_nothing_was_written_does_not_stay(tmp_path):
    with Ownership(tmp_path / "a" / "out"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_second_process_is_told_who_is_there(tmp_path, links, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    with Ownership(tmp_path), pytest.raises(UserError, match=rf"--out .* in use by process {os.getpid()} on"):
        Ownership(tmp_path).__enter__()
    with Ownership(tmp_path):
        assert names(tmp_path) == [OWNER_FILE]


def test_a_killed_owner_of_this_system_is_taken_over_at_once(tmp_path):
    script = "import sys, os; from pathlib import Path; from frozen_cache.ownership import Ownership\n"
    script += "Ownership(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert names(tmp_path) == [OWNER_FILE]
    with Ownership(tmp_path):
        assert read_owner(tmp_path).pid == os.getpid()


def test_a_process_id_that_was_given_out_again_is_no_life(tmp_path):
    leave(tmp_path, started=1.0, since_boot=1.0)
    with Ownership(tmp_path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps the time of the start")
@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_a_clock_that_is_set_takes_no_folder_from_a_living_owner(tmp_path, monkeypatch, seconds):
    """Linux tells when a process was started by the clock of now."""
    real = psutil.boot_time()
    with Ownership(tmp_path):
        told = read_owner(tmp_path)
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: real + seconds)
        assert abs(psutil.Process().create_time() - told.started) > 3000
        with pytest.raises(UserError, match="is in use by"), Ownership(tmp_path):
            pass


@pytest.mark.parametrize("within", ["_create", "threading.Thread.start"])
def test_ctrl_c_while_a_folder_is_taken_leaves_it_free_for_this_process_too(tmp_path, monkeypatch, within):
    """A notebook's process lives on."""

    def taken(*arguments: Path | threading.Thread) -> bool:
        if within == "_create":
            os.link(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"frozen_cache.ownership.{within}", taken)
        Ownership(tmp_path / "out").__enter__()
    assert not (tmp_path / "out").exists()
    with Ownership(tmp_path / "out"):
        pass


def test_an_owner_file_of_an_earlier_version_tells_a_process_by_its_start(tmp_path):
    leave(tmp_path, since_boot=None)
    with pytest.raises(UserError, match="is in use by"), Ownership(tmp_path):
        pass
    leave(tmp_path, since_boot=None, started=1.0)
    with Ownership(tmp_path):
        assert names(tmp_path) == [OWNER_FILE]


@pytest.mark.parametrize(("age", "alive"), [(STALE - 30, True), (STALE + 30, False)])
def test_an_owner_elsewhere_counts_as_dead_after_a_silence(tmp_path, age, alive):
    leave(tmp_path, host="elsewhere", system="another kernel", pid=1, age=age)
    if alive:
        with pytest.raises(UserError, match=rf"process 1 on elsewhere .* 2[67]\d s ago .*remove .*{OWNER_FILE}"):
            Ownership(tmp_path).__enter__()
        assert names(tmp_path) == [OWNER_FILE]
    else:
        with Ownership(tmp_path):
            pass


def test_an_owner_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT", 0.01)
    with Ownership(tmp_path):
        os.utime(tmp_path / OWNER_FILE, (1, 1))
        while (tmp_path / OWNER_FILE).stat().st_mtime == 1:
            time.sleep(0.005)


def test_an_owner_that_was_taken_over_writes_nothing_more_and_harms_nothing(tmp_path):
    with Ownership(tmp_path) as owner:
        leave(tmp_path, host="elsewhere", system="another kernel")
        with pytest.raises(UserError, match="taken over"):
            owner.check()
    assert names(tmp_path) == [OWNER_FILE], "the new owner's file stays"


def test_of_many_that_find_a_dead_owner_one_gets_the_folder(tmp_path):
    for _ in range(10):
        leave(tmp_path, started=1.0, since_boot=1.0)
        gate, got = threading.Barrier(8), []

        def contend(gate=gate, got=got):
            gate.wait()
            with contextlib.suppress(UserError):
                got.append(Ownership(tmp_path).__enter__())

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got[0].__exit__(None, None, None)


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .* cannot be written"):
        Ownership(tmp_path / "file" / "out").__enter__()


def test_an_owner_file_of_nonsense_is_one_clear_line(tmp_path):
    (tmp_path / OWNER_FILE).write_text("{")
    with pytest.raises(UserError, match="cannot be read; remove it"):
        Ownership(tmp_path).__enter__()
