"""Writers side by side without locks, file systems without links, and damage that the ledger's line shares."""

import errno
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import pytest

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.ledger import read_record
from frozen_cache.cache.reader import CacheReader

sys.path.insert(0, str(Path(__file__).parent))
from fault_model import Toy, digest, fill_as_in_a_container

sys.path.pop(0)


def test_writers_without_locks_leave_each_segment_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.lockf", lambda *args: None)
    toy = Toy(tmp_path / "x.zarr", count=3)
    threads = [threading.Thread(target=toy.fill) for _ in range(3)]  # one process number, as in containers
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert toy.unfinished() is None
    assert toy.leftovers() == []


def test_processes_of_one_number_without_locks_leave_what_one_undisturbed_writer_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    whole, toy = Toy(tmp_path / "whole.zarr", count=4), Toy(tmp_path / "x.zarr", count=4)
    whole.fill()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["frozen_cache.stages.extract"])
    processes = [
        context.Process(target=fill_as_in_a_container, args=(toy.path, tmp_path / f"ready{number}"))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert toy.unfinished() is None
    assert toy.leftovers() == []
    numbers = [[digest(reader.read(n)) for n in range(4)] for reader in map(CacheReader, (whole.path, toy.path))]
    assert numbers[0] == numbers[1]
    records = [[read_record(each.path, n, toy.attributes.fingerprint) for n in range(4)] for each in (whole, toy)]
    assert [record.files for record in records[0]] == [record.files for record in records[1]]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_without_links_exclusive_creation_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.link

    def link(source: Path, target: Path, **more: object) -> None:
        if "staging" in str(source):  # zarr's own
            return real(source, target, **more)  # type: ignore[arg-type]
        raise OSError(number, os.strerror(number), str(source))

    monkeypatch.setattr(os, "link", link)
    toy = Toy(tmp_path / "x.zarr")
    one, two = toy.writer(), toy.writer()
    assert one.exclusive
    with one.segment(0) as out:
        out.append(toy.views[0], image_crc=0)
        toy.put(two, 0)
    toy.put(one, 1)
    assert toy.unfinished() is None
    assert toy.leftovers() == []


def test_a_shard_missing_on_disk_and_in_its_line_is_noticed(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "x.zarr")
    toy.fill()
    name = "c1/c/0"
    (toy.folder(0) / name).unlink()
    toy.forge(0, lambda record: record["files"].pop(name))
    [damage] = verify_cache(toy.path).damages
    assert name in damage.what
    with pytest.raises(DamagedCacheError, match=name):
        CacheReader(toy.path).read(0)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EMFILE, errno.EACCES])
def test_what_cannot_be_read_now_stops_with_its_path_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    toy = Toy(tmp_path / "x.zarr")
    toy.fill()
    before = sorted(path for path in toy.path.rglob("*") if path.is_file())
    real = Path.open

    def fails(path: Path, *args: object, **more: object) -> object:
        if "c1" in path.parts:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *args, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fails)
        for work in (lambda: verify_cache(toy.path), toy.mend, lambda: CacheReader(toy.path).read(0)):
            with pytest.raises(OSError, match="c1") as caught:
                work()
            assert caught.value.errno == number
    assert sorted(path for path in toy.path.rglob("*") if path.is_file()) == before
    assert toy.unfinished() is None
