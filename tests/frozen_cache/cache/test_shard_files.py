"""Arrays written without zarr lie on disk as zarr writes them."""

from __future__ import annotations

import errno
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from frozen_cache.cache import segment_writer, shard_files
from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.chunk_sums import ChunkSums
from frozen_cache.cache.layout import ArrayLayout
from frozen_cache.cache.segment_writer import SegmentWriter
from frozen_cache.cache.shard_files import AHEAD, Column
from frozen_cache.durable import file_crc32

sys.path.insert(0, str(Path(__file__).parent))
from fault_model import toys

sys.path.pop(0)
TOYS = toys()


class ZarrColumn:
    """As `Column`, through zarr: all rows at once."""

    def __init__(self, group: Path, name: str, layout: ArrayLayout, pool: Executor) -> None:
        self._folder, self._name, self._layout = group, name, layout
        self._rows: list[np.ndarray] = []
        self.files: dict[str, Any] = {}

    def append(self, values: np.ndarray) -> None:
        self._rows.append(values.copy())

    def finish(self, group: zarr.Group, *, columns: tuple[str, ...] = ()) -> None:
        rows = np.concatenate(self._rows)
        layout = replace(self._layout, shape=(0, *self._layout.shape[1:]))
        array = layout.create(group, self._name, columns=columns)
        array.resize((len(rows), *rows.shape[1:]))
        if rows.size:
            array[...] = rows

    def close(self) -> None:
        pass


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def written(
    folder: Path, kind: Callable[..., Any], layout: ArrayLayout, parts: list[np.ndarray], pool: Executor
) -> Any:
    group = zarr.open_group(str(folder), mode="w", zarr_format=3)
    with closing(kind(folder, "deep/a", layout, pool)) as column:
        for part in parts:
            column.append(part)
        column.finish(group, columns=("x", "y") if len(layout.shape) > 1 else ())
    return column


@pytest.mark.parametrize("zstd", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "int64"])
@pytest.mark.parametrize("tail", [(), (2,)])
@pytest.mark.parametrize("counts", [[0], [1], [10], [3, 0, 4, 3], [40], [7, 31, 2], [95], [41, 41, 41], [1] * 83])
def test_files_are_those_of_zarr(
    tmp_path: Path, pool: ThreadPoolExecutor, counts: list[int], tail: tuple[int, ...], dtype: str, zstd: bool
) -> None:
    """10 rows a chunk, 4 chunks a shard."""
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 3, (count, *tail)).astype(dtype) for count in counts]
    layout = ArrayLayout((0, *tail), dtype, chunk=10, shard=40, zstd=zstd)
    column = written(tmp_path / "ours", Column, layout, parts, pool)
    written(tmp_path / "zarr", ZarrColumn, layout, parts, pool)
    found = tree(tmp_path / "ours")
    assert found == tree(tmp_path / "zarr")
    assert set(column.files) == {name for name in found if "/c/" in name}
    for name, file in column.files.items():
        assert file.told == file_crc32(tmp_path / "ours" / name)
        part = np.frombuffer(found[name], np.uint8)
        ChunkSums({name: file.chunk_sums}).check(name, part, start=0)


def test_a_map_that_is_not_contiguous_is_written_in_its_order(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    rows = np.arange(60, dtype=np.float32).reshape(2, 30).T
    layout = ArrayLayout((0, 2), "float32", chunk=10, shard=20)
    written(tmp_path / "ours", Column, layout, [rows, rows[::-1]], pool)
    written(tmp_path / "zarr", ZarrColumn, layout, [rows, rows[::-1]], pool)
    assert tree(tmp_path / "ours") == tree(tmp_path / "zarr")


@pytest.mark.parametrize("precision", ["float16", "float32", "int8", "coded", "recomputed"])
def test_segments_are_those_of_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """All arrays, with shards of a few chunks, some of which views share."""
    monkeypatch.setattr("frozen_cache.cache.layout.CHUNK_BYTES", 300)
    monkeypatch.setattr("frozen_cache.cache.layout.SHARD_CHUNKS", 3)
    attributes = TOYS.attributes_for(5, 5, precision="float16" if precision == "recomputed" else precision)
    if precision == "recomputed":
        attributes, _ = TOYS.recomputed(attributes)
    ours = segment(tmp_path / "ours", attributes)
    monkeypatch.setattr(segment_writer, "Column", ZarrColumn)
    theirs = segment(tmp_path / "zarr", attributes, check=False)
    assert set(ours) == set(theirs) and len(ours) > 20
    for name in ours:
        assert ours[name] == theirs[name] or name == "zarr.json", name


def segment(folder: Path, attributes: CacheAttributes, *, check: bool = True) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch, closing(SegmentWriter(folder, attributes)) as writer:
        if not check:
            patch.setattr(segment_writer, "check_segment", lambda *args, **more: None)
        for number, size in enumerate([(12, 9), (7, 7), (12, 9), (3, 3), (16, 16)]):
            view = TOYS.toy_view(number, size=size, objects=number)
            kept = attributes.stem is not None
            writer.append(
                replace(view, c1=None) if kept else view, image_crc=1, image_file=TOYS.picture(view) if kept else None
            )
        record = writer.finish(0, folder="x")
    if check:
        assert {name: file_crc32(folder / name) for name in record.files} == record.files
    return tree(folder)


def test_no_more_than_some_chunks_wait_and_they_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    gate, real, seen = threading.Event(), shard_files._encoded, []

    def slow(parts: list[np.ndarray], *, zstd: bool) -> Any:
        seen.append(int(parts[0][0]))
        if parts[0][0] == 0:
            assert gate.wait(30)
        return real(parts, zstd=zstd)

    monkeypatch.setattr(shard_files, "_encoded", slow)
    values = np.repeat(np.arange(50, dtype=np.uint8), 10)
    layout = ArrayLayout((0,), "uint8", chunk=10, shard=1000)
    group = zarr.open_group(str(tmp_path), mode="w", zarr_format=3)
    column = Column(tmp_path, "a", layout, pool)
    caller = threading.Thread(target=column.append, args=(values,))
    caller.start()
    caller.join(0.5)
    waits, begun = caller.is_alive(), len(seen)
    gate.set()
    caller.join()
    assert waits and begun <= AHEAD + 1
    column.finish(group)
    assert np.array_equal(group["a"][:], values)  # type: ignore[index, arg-type]


def test_chunks_that_wait_are_not_encoded_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, begun, seen = threading.Event(), threading.Event(), []

    def slow(parts: list[np.ndarray], *, zstd: bool) -> None:
        seen.append(int(parts[0][0]))
        begun.set()
        assert gate.wait(30)

    monkeypatch.setattr(shard_files, "_encoded", slow)
    with ThreadPoolExecutor(1) as pool:
        with closing(Column(tmp_path, "a", ArrayLayout((0,), "uint8", chunk=10, shard=1000), pool)) as column:
            column.append(np.repeat(np.arange(5, dtype=np.uint8), 10))
            assert begun.wait(30)
        gate.set()
    assert seen == [0]


class AtOnce(Executor):
    """No threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **more))
        return done


def test_what_a_view_leaves_of_a_chunk_does_not_keep_the_view(tmp_path: Path) -> None:
    values = np.arange(13, dtype=np.float32)
    alive = weakref.ref(values)
    with closing(Column(tmp_path, "a", ArrayLayout((0,), "float32", chunk=10, shard=20), AtOnce())) as column:
        column.append(values)
        del values
        assert alive() is None
        column.append(np.arange(13, 20, dtype=np.float32))
        column.finish(group := zarr.open_group(str(tmp_path), mode="a", zarr_format=3))
    assert np.array_equal(group["a"][:], np.arange(20))  # type: ignore[index, arg-type]


def test_files_are_made_and_written_by_the_caller_and_flushed_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    flushed: list[tuple[str, str]] = []
    monkeypatch.setattr(
        shard_files, "flush_file", lambda path: flushed.append((path.name, threading.current_thread().name))
    )
    layout = ArrayLayout((0,), "uint8", chunk=10, shard=20)
    written(tmp_path, Column, layout, [np.ones(50, np.uint8)], pool)
    assert sorted(name for name, _ in flushed) == ["0", "1"]
    assert threading.current_thread().name not in {name for _, name in flushed}


def test_what_a_thread_could_not_flush_is_an_error_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(shard_files, "flush_file", full)
    layout = ArrayLayout((0,), "uint8", chunk=10, shard=20)
    with pytest.raises(OSError, match=r"No space left on device: .*deep/a/c/0'"):
        written(tmp_path, Column, layout, [np.ones(50, np.uint8)], pool)


def test_threads_and_files_are_gone_after_an_error(tmp_path: Path) -> None:
    attributes = TOYS.attributes_for(2, 2)
    threads = threading.active_count()
    bad = replace(TOYS.toy_view(0), c1=torch.full((3, 8, 8), torch.inf))
    with pytest.raises(Exception, match="not finite"), closing(SegmentWriter(tmp_path / "x", attributes)) as writer:
        writer.append(TOYS.toy_view(1))
        writer.append(bad)
    assert threading.active_count() <= threads
    open_files = [handle.readlink() for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()]
    assert not [target for target in open_files if target.is_relative_to(tmp_path)]
