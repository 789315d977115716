"""`CacheWriter`: makes a cache, or goes on with one, segment by segment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.aside import new_token
from frozen_cache.cache.attributes import CacheAttributes, differences
from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.integrity import quick_check
from frozen_cache.cache.ledger import (
    SegmentRecord,
    commit_record,
    committed_segments,
    parse_line,
    read_line,
    read_record,
    replace_line,
    segment_name,
)
from frozen_cache.cache.leftovers import remove_leftovers
from frozen_cache.cache.locks import segment_locks
from frozen_cache.cache.root import open_root
from frozen_cache.cache.segment_writer import SegmentWriter
from frozen_cache.durable import errors_name, first_one_wins, move_durably, remove_tree
from frozen_cache.errors import FrozenCacheError, UserError
from frozen_cache.remote import CachePath, RemotePath


@dataclass
class SegmentPlace:
    """Where a segment is made."""

    name: str
    """That it will have in `segments`."""
    folder: Path
    """Under `staging`."""
    record: SegmentRecord | None = None
    """Its line, once it is whole and flushed."""
    copy_of: RemotePath | None = None
    """What the object store is to copy, in place of `folder`."""


class CacheWriter:
    """Fills one cache. Several processes may fill the same one: a segment is written under a name of its writer's own,
    and the first whose line stands in the ledger has written it. Claims only save the others the work."""

    def __init__(
        self, path: CachePath, attributes: CacheAttributes, *, condemned: Mapping[int, bytes] | None = None
    ) -> None:
        """Open the cache at `path`, made now if there is none.

        Args:
            condemned: segments to write again, by the line of the ledger that stands for each now. They count as open;
                the line goes when what replaces it is whole.

        Raises:
            UserError: the cache was made from something else.
        """
        there = open_root(path, attributes)
        if found := differences(there, attributes):
            raise UserError(
                f"{path} was made with other {'; '.join(found)}: give the same options again, or another --out"
            )
        self.path = path
        self.attributes = there
        self.exclusive = first_one_wins(path / "ledger")
        """Whether several processes may fill the cache here: not where neither links nor creation are exclusive."""
        self.image_crcs: dict[int, int] = {}
        """Image id -> CRC-32C of its file, of images that were read for this cache (`compare_images` fills it)."""
        self._condemned = dict(condemned or {})
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._locks = segment_locks(path)
        remove_leftovers(path)

    def is_committed(self, segment: int) -> bool:
        """Whether the ledger has a line on the segment, one that is not condemned."""
        line = read_line(self.path, segment)
        return line is not None and line != self._condemned.get(segment)

    def pending(self) -> list[int]:
        """Segments that are not committed, ascending."""
        there = set(committed_segments(self.path))
        return [n for n in range(self.attributes.segment_count) if n not in there or not self.is_committed(n)]

    def damaged(self) -> dict[int, str]:
        """Committed segments that are seen to be damaged without reading their data: number -> what is wrong."""
        segments = [n for n in committed_segments(self.path) if self.is_committed(n)]
        found = {n: quick_check(self.path, n, self.attributes) for n in segments}
        return {segment: what for segment, what in found.items() if what is not None}

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

    @contextmanager
    def segment(self, segment: int) -> Iterator[SegmentWriter]:
        """Write a claimed segment: committed when the block ends well, removed when it does not or another was first.

        Raises:
            FrozenCacheError: what has been written is not whole, or (a condemned segment) not the same images.
        """
        with self.place(segment) as place, closing(SegmentWriter(place.folder, self.attributes)) as writer:
            yield writer
            place.record = writer.finish(segment, folder=place.name)

    @contextmanager
    def place(self, segment: int) -> Iterator[SegmentPlace]:
        """As `segment`, for whoever makes the whole segment in `SegmentPlace.folder` and sets its `record`."""
        name = f"{segment_name(segment)}.{new_token()}"
        aside, place = self._staging() / name, self.path / "segments" / name
        making = SegmentPlace(name=name, folder=aside)
        try:
            with errors_name(self.path, below=aside):
                yield making
                record = making.record
                assert record is not None
                self._compare(record)
                if making.copy_of is None:
                    move_durably(aside, place)
                else:
                    assert isinstance(place, RemotePath)
                    making.copy_of.copy_below(place)
            if not self._commit(record):
                remove_tree(place)
        except NotWhole as error:
            self._discard(segment, aside, place)
            raise FrozenCacheError(
                f"segment {segment_name(segment)} was not written whole to {self.path}: {error}; it was not committed. "
                "Run the same command again; if it happens again, the disk loses what is written to it"
            ) from error
        except BaseException:
            self._discard(segment, aside, place)
            raise
        finally:
            self._locks.release(segment)

    def close(self) -> None:
        """Let go of all claims."""
        self._locks.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _staging(self) -> Path:
        """Where segments are made: in the cache, for object stores in a folder of our own."""
        if not isinstance(self.path, RemotePath):
            return self.path / "staging"
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="frozen-cache-")
        return Path(self._folder.name)

    def _commit(self, record: SegmentRecord) -> bool:
        condemned = self._condemned.get(record.segment)
        if condemned is None:
            return commit_record(self.path, record)
        won = replace_line(self.path, condemned, record)
        before = parse_line(condemned)
        if won and before is not None:
            remove_tree(before.folder_in(self.path))
        return won

    def _compare(self, record: SegmentRecord) -> None:
        """All views of an image must be made of the same bytes, and what replaces a damaged segment of its images."""
        before = parse_line(self._condemned.get(record.segment, b""))
        if before is not None and before.segment == record.segment:
            self.image_crcs |= zip(before.image_ids, before.image_crcs, strict=False)
        read = zip(record.image_ids, record.image_crcs, strict=False)
        changed = [image for image, crc in read if self.image_crcs.setdefault(image, crc) != crc]
        if changed:
            raise UserError(
                f"image {changed[0]} has other bytes than when {self.path} was made ({len(changed)} images of segment "
                f"{segment_name(record.segment)} have): bring the first files back, or extract anew to another --out"
            )
        if before is None or before.segment != record.segment:
            return
        lost = sorted(set(before.image_ids) - set(record.image_ids))
        if lost:
            reasons = {broken.image_id: broken.reason for broken in record.broken}
            raise UserError(
                f"image {lost[0]} is in segment {segment_name(record.segment)} of {self.path} and cannot be read now: "
                f"{reasons.get(lost[0], 'it is not there')}; bring the file back"
            )

    def _discard(self, segment: int, aside: Path, place: CachePath) -> None:
        """Throw away what was written, unless it has been committed after all."""
        remove_tree(aside)
        with suppress(OSError, DamagedCacheError):
            if (
                read_line(self.path, segment) is None
                or read_record(self.path, segment, self.attributes.fingerprint).folder_in(self.path) != place
            ):
                remove_tree(place)
