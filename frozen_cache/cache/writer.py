"""`CacheWriter`: makes a cache, or goes on with one, segment by segment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frozen_cache.cache.attributes import CacheAttributes, differences, group_document, read_attributes
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.ledger import commit_record, committed_segments, read_record, segment_name, withdraw_record
from frozen_cache.cache.locks import SegmentLocks
from frozen_cache.cache.segment_writer import SegmentWriter
from frozen_cache.durable import flush_tree, move_durably
from frozen_cache.errors import UserError


def existing_cache(path: Path) -> CacheAttributes | None:
    """The attributes of the cache at `path`; None where there is nothing yet (or an empty folder).

    Raises:
        UserError: something else is there.
    """
    if not path.exists() and not path.is_symlink():
        return None
    if not path.is_dir():
        raise UserError(f"{path} exists and is not a cache; name another --out")
    if not any(path.iterdir()):
        return None
    if not (path / "zarr.json").is_file():
        raise UserError(f"{path} exists and is not a cache: it holds other files; name another --out")
    return read_attributes(path)


class CacheWriter:
    """Fills one cache. Several processes may fill the same one, each segment written by whoever claims it."""

    def __init__(self, path: Path, attributes: CacheAttributes) -> None:
        """Open the cache at `path`, made now if there is none; UserError where it was made from something else."""
        there = existing_cache(path)
        if there is None:
            _create(path, attributes)
            there = read_attributes(path)
        if found := differences(there, attributes):
            raise UserError(
                f"{path} was made with other {'; '.join(found)}: give the same options again, or another --out"
            )
        self.path = path
        self.attributes = there
        self._locks = SegmentLocks(path)

    def is_committed(self, segment: int) -> bool:
        """Whether the ledger has an intact line on the segment."""
        try:
            read_record(self.path, segment, self.attributes.fingerprint)
        except DamagedCacheError:
            return False
        return True

    def pending(self) -> list[int]:
        """Segments that are not committed, ascending."""
        there = set(committed_segments(self.path))
        return [n for n in range(self.attributes.segment_count) if n not in there or not self.is_committed(n)]

    def claim(self, segment: int) -> bool:
        """Take a segment that nobody has claimed or committed."""
        if not self._locks.claim(segment):
            return False
        if self.is_committed(segment):
            self._locks.release(segment)
            return False
        return True

    def release(self, segment: int) -> None:
        """Give a claim back."""
        self._locks.release(segment)

    def withdraw(self, segment: int) -> None:
        """Uncommit a segment, so that it is pending again."""
        withdraw_record(self.path, segment)

    @contextmanager
    def segment(self, segment: int) -> Iterator[SegmentWriter]:
        """Write a claimed segment: committed when the block ends well, removed when it does not."""
        name = segment_name(segment)
        aside = self.path / "staging" / name
        if aside.exists():
            shutil.rmtree(aside)
        withdraw_record(self.path, segment)
        writer = SegmentWriter(aside, precision=self.attributes.precision)
        try:
            yield writer
            record = writer.finish(segment, self.attributes.fingerprint)
            move_durably(aside, self.path / "segments" / name)
            commit_record(self.path, record)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        finally:
            self._locks.release(segment)

    def close(self) -> None:
        """Let go of all claims."""
        self._locks.close()


def _create(path: Path, attributes: CacheAttributes) -> None:
    """Put the empty cache in place in one step; another process that was first wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name in ("segments", "ledger", "staging"):
            (aside / name).mkdir(parents=True)
        (aside / ".lock").touch()
        (aside / "segments" / "zarr.json").write_bytes(group_document({}))
        (aside / "zarr.json").write_bytes(attributes.root_document())
        flush_tree(aside)
        aside.rename(path)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not (path / "zarr.json").is_file():
            raise
