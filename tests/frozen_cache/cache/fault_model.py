"""Faults for caches of toy views: a process that dies at its n-th change to the disk, or whose n-th change fails."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any
from unittest import mock

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.ledger import read_line, read_record
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.root import restore_segments_node, segments_node_is_intact
from frozen_cache.cache.segment_writer import SegmentWriter
from frozen_cache.cache.stem_files import keep_stem
from frozen_cache.cache.view import CachedView
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.durable import file_crc32
from frozen_cache.errors import FrozenCacheError

CALLS = ("rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "fsync")


class Killed(BaseException):
    """The process is dead: from here on nothing that it does reaches the disk."""


class Faults:
    """Counts the calls that change the disk; the one with number `at` (from 0) fails.

    With `error` that call alone raises this errno; without, it and all that follow raise `Killed`, so that no handler
    tidies up after a death. A call that fails has had no effect.
    """

    def __init__(self, *, at: int | None = None, error: int | None = None) -> None:
        self._at, self._error = at, error
        self._guard = threading.Lock()
        self._kept: list[tuple[Any, str, Any]] = []
        self.names: list[str] = []
        """The calls so far."""

    def __enter__(self) -> Faults:
        for name in CALLS:
            self._patch(os, name, lambda *args, **more: True)
        self._patch(os, "open", lambda path, flags, *args, **more: flags & os.O_CREAT)
        self._patch(io, "open", lambda file, mode="r", *args, **more: set(mode) & set("wax+"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for owner, name, real in self._kept:
            setattr(owner, name, real)

    def _patch(self, owner: Any, name: str, changes: Callable[..., object]) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **more: Any) -> Any:
            if changes(*args, **more):
                self._count(name, args[0])
            return real(*args, **more)

        self._kept.append((owner, name, real))
        setattr(owner, name, call)

    def _count(self, name: str, target: object) -> None:
        with self._guard:
            number = len(self.names)
            self.names.append(name)
        if self._at is None or number < self._at:
            return
        if self._error is None:
            raise Killed
        if number == self._at:
            raise OSError(self._error, os.strerror(self._error), target if isinstance(target, str | Path) else None)


def toys() -> ModuleType:
    """The module of this folder's conftest, with its toy views."""
    spec = importlib.util.spec_from_file_location("toy_caches", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Toy:
    """A cache of `count` toy views at `path`, which can be filled, mended and compared with what it must hold.

    `precision` may be "recomputed": float16, with image files and a stem for C1.
    """

    def __init__(self, path: Path, *, count: int = 2, per_segment: int = 1, precision: str = "float16") -> None:
        module = toys()
        self.path = path
        self.views: list[CachedView] = [module.toy_view(number, size=(4, 4), objects=1) for number in range(count)]
        self._stem = b""
        if precision == "recomputed":
            self.attributes, self._stem = module.recomputed(module.attributes_for(count, per_segment))
            self.views = [replace(view, c1=None) for view in self.views]
            with tempfile.TemporaryDirectory() as folder:
                stored = self._undisturbed(Path(folder) / "x.zarr")
        else:
            self.attributes = module.attributes_for(count, per_segment, precision=precision)
            stored = [module.as_coded(view) if precision == "coded" else view for view in self.views]
        self._expected = {view.image_id: digest(view) for view in stored}

    def _undisturbed(self, path: Path) -> list[CachedView]:
        """What a cache at `path` gives where nothing happens to it."""
        toy = copy.copy(self)
        toy.path = path
        toy.fill()
        reader = CacheReader(path)
        return [reader.read(index) for index in range(len(reader))]

    def writer(self, **options: Any) -> CacheWriter:
        """A writer for it."""
        return CacheWriter(self.path, self.attributes, **options)

    def put(self, writer: CacheWriter, segment: int) -> None:
        """Write one segment."""
        size = self.attributes.views_per_segment
        with writer.segment(segment) as out:
            for view in self.views[segment * size : (segment + 1) * size]:
                self.append(out, view)

    def append(self, out: SegmentWriter, view: CachedView) -> None:
        """Add a view to a segment, with its image's file where the cache keeps it."""
        file = toys().picture(view) if self._stem else None
        out.append(view, image_crc=view.image_id, image_file=file)

    def fill(self, *, stop: int | None = None, **options: Any) -> None:
        """Write what is open, or the first `stop` of it."""
        writer = self.writer(**options)
        try:
            if self.attributes.stem is not None:
                keep_stem(self.path, self.attributes.stem, self._stem)
            for segment in writer.pending()[:stop]:
                if writer.claim(segment):
                    self.put(writer, segment)
        finally:
            writer.close()

    def mend(self) -> None:
        """What `cache repair` does, after the extract command has made a lost root document again."""
        self.writer().close()
        if not segments_node_is_intact(self.path):
            restore_segments_node(self.path)
        found = verify_cache(self.path)
        lines = {damage.segment: read_line(self.path, damage.segment) for damage in found.damages}
        self.fill(condemned={segment: line for segment, line in lines.items() if line is not None})

    def forge(self, segment: int, change: Callable[[dict[str, Any]], object] = lambda record: None) -> None:
        """Rewrite a segment's line as a stranger could: `change` edits the record, all sums are those of today."""
        line = read_line(self.path, segment)
        assert line is not None
        record = json.loads(line)["record"]
        folder = self.path / "segments" / record["folder"]
        for name in record["files"]:
            if (folder / name).is_file():
                record["files"][name] = file_crc32(folder / name)
        change(record)
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        line = b'{"sha256":"%s","record":%s}\n' % (hashlib.sha256(text.encode()).hexdigest().encode(), text.encode())
        (self.path / "ledger" / f"{segment:05d}.json").write_bytes(line)

    def folder(self, segment: int) -> Path:
        """Where a committed segment lies."""
        return read_record(self.path, segment, self.attributes.fingerprint).folder_in(self.path)

    def wrong(self) -> str | None:
        """What breaks the promise: a number that is not what was written, or an error that does not say where."""
        try:
            reader = CacheReader(self.path, allow_incomplete=True)
        except FrozenCacheError as error:
            return None if str(self.path) in str(error) else f"does not say where: {error}"
        for index in range(len(reader)):
            try:
                view = reader.read(index)
            except FrozenCacheError as error:
                if str(self.path) not in str(error):
                    return f"does not say where: {error}"
                continue
            if digest(view) != self._expected.get(view.image_id):
                return f"view {index} is not what was written"
        return None

    def unfinished(self) -> str | None:
        """What keeps it from being whole: open or damaged segments, missing or wrong views, things left lying about."""
        found = verify_cache(self.path)
        if found.damages or found.open or found.strange or found.stem:
            return f"damaged {found.damages}, open {found.open}, strange {found.strange}, stem {found.stem}"
        if len(CacheReader(self.path)) != len(self.views):
            return "views are missing"
        placed = [entry for entry in (self.path / "segments").iterdir() if entry.is_dir()]
        return self.wrong() or (None if len(placed) >= self.attributes.segment_count else "folders are missing")

    def leftovers(self) -> Sequence[Path]:
        """What lies in it that no whole cache has."""
        placed = [entry for entry in (self.path / "segments").iterdir() if entry.is_dir()]
        named = {entry.name for entry in placed if self._names(entry)}
        extra = [entry for entry in placed if entry.name not in named] + list((self.path / "staging").iterdir())
        extra += (self.path / "stem").glob(".*")
        return extra + [entry for folder in (self.path, self.path / "ledger") for entry in folder.glob(".*.json.*")]

    def _names(self, folder: Path) -> bool:
        line = read_line(self.path, int(folder.name[:5]))
        return line is not None and folder.name.encode() in line


def fill_as_in_a_container(path: Path, ready: Path) -> None:
    """Fill a cache of four views as a process of a container does: all have the number 1, and locks do not lock; it
    begins when three of them are ready."""
    with (
        mock.patch("fcntl.lockf", lambda *args: None),
        mock.patch("os.getpid", lambda: 1),
        mock.patch("frozen_cache.aside._place", lambda: "0" * 8),
    ):
        toy = Toy(path, count=4)
        ready.touch()
        while len(list(ready.parent.glob("ready*"))) < 3:
            time.sleep(0.01)
        toy.fill()


def digest(view: CachedView) -> str:
    """sha256 over every number of a view as it is stored."""
    truth = view.truth
    tensors = [view.queries, view.boxes, view.scores, view.labels, *([] if view.c1 is None else [view.c1.float()])]
    tensors += [level.float() for layer in sorted(view.encoder) for level in view.encoder[layer]]
    arrays = [tensor.contiguous().numpy() for tensor in tensors]
    arrays += [truth.boxes, truth.categories, truth.crowd, truth.areas, truth.annotation_ids, truth.match]
    parts = [b"%d %d %d" % (view.image_id, view.view, view.selected), repr(view.transform).encode()]
    parts += [str(array.shape).encode() + array.tobytes() for array in arrays]
    parts += [mask["counts"] for mask in truth.masks]
    return hashlib.sha256(b"|".join(parts)).hexdigest()
