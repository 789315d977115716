"""The ledger: one line per committed segment, outside the arrays. What it does not list does not exist."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from frozen_cache.aside import aside_path
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.mending import mend
from frozen_cache.documents import added_later
from frozen_cache.durable import (
    crc32,
    crc32c,
    create_durably,
    errors_name,
    file_crc32,
    file_crc32c,
    flush_file,
    names_in,
    read_regular,
)
from frozen_cache.remote import AT_ONCE, CachePath, RemotePath

LINE_BYTES = 256 << 20
"""No line has nearly as many: about 150 a view."""
_LINE = re.compile(rb'\{"sha256":"([0-9a-f]{64})","record":(.*)\}\n', re.DOTALL)
"""As `commit_record` writes it; the record is then the very bytes that were summed."""


class BrokenImage(BaseModel):
    """An image left out by `--skip-broken`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_id: int
    reason: str


class SegmentRecord(BaseModel):
    """The ledger's line on one segment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment: int
    cache_fingerprint: str
    """`CacheAttributes.fingerprint` of the cache that it belongs to."""
    image_ids: tuple[int, ...]
    """Of each stored view, in the order of the rows."""
    view_indices: tuple[int, ...]
    resized_sizes: tuple[tuple[int, int], ...]
    """(height, width) of the detector's input, per view."""
    matched: tuple[int, ...]
    """Objects that have a matched query, per view."""
    shapes: tuple[tuple[tuple[int, int, int], ...], ...]
    """Per view the (C, H, W) of C1 (where there is one) and of each encoder level, finest first."""
    broken: tuple[BrokenImage, ...] = ()
    image_crcs: tuple[int, ...] = ()
    """CRC-32C of the image file of each view; empty where the cache was made before they were kept."""
    annotation_sums: tuple[int, ...] = added_later(())
    """`annotation_sum` of the image of each view; empty in format 1."""
    image_bytes: tuple[int, ...] = added_later(())
    """Bytes of the image file of each view, where the cache keeps the files; views of one image share one."""
    folder: str = ""
    """Name of its folder in `segments`; empty (first caches): the segment's number."""
    sums: Literal["crc32c", "crc32"] = "crc32c"
    """Which checksum `files` has."""
    files: dict[str, tuple[int, int]]
    """Path inside the segment -> (size in bytes, checksum)."""

    def folder_in(self, cache: CachePath) -> CachePath:
        """Where the segment lies."""
        return cache / "segments" / (self.folder or segment_name(self.segment))

    def checksum(self, path: CachePath) -> tuple[int, int]:
        """(size in bytes, checksum) of a file now, by this record's kind of checksum."""
        return (file_crc32 if self.sums == "crc32" else file_crc32c)(path)

    def checksum_of(self, content: bytes) -> tuple[int, int]:
        """The same of a content that has been read."""
        return (crc32 if self.sums == "crc32" else crc32c)(content)


def segment_name(segment: int) -> str:
    """`00042`."""
    return f"{segment:05d}"


def ledger_path(cache: CachePath, segment: int) -> CachePath:
    """The file that holds a segment's line."""
    return cache / "ledger" / f"{segment_name(segment)}.json"


def commit_record(cache: CachePath, record: SegmentRecord) -> bool:
    """Write the line: from here on the segment exists. False where another writer's line was first."""
    return create_durably(ledger_path(cache, record.segment), _line(record))


def replace_line(cache: CachePath, line: bytes, record: SegmentRecord) -> bool:
    """Write the line in place of `line`, of the same segment. False where another writer's was first."""
    path = ledger_path(cache, record.segment)
    if isinstance(path, RemotePath) and path.is_file():
        return path.replace(line, _line(record))
    withdraw_line(cache, record.segment, line)
    return commit_record(cache, record)


def read_line(cache: CachePath, segment: int) -> bytes | None:
    """A segment's line as it lies there, empty where something else does; None where it has none."""
    try:
        return read_regular(ledger_path(cache, segment), limit=LINE_BYTES)
    except FileNotFoundError:
        return None
    except ValueError:
        return b""


def withdraw_line(cache: CachePath, segment: int, line: bytes) -> None:
    """Take a line back, if it is still `line`: a newer one, of who was faster, stays."""
    path = ledger_path(cache, segment)
    if isinstance(path, RemotePath) or read_line(cache, segment) != line:
        return
    taken = aside_path(path)
    with errors_name(path):
        try:
            path.rename(taken)
        except FileNotFoundError:
            return
        content = taken.read_bytes()
        if content != line:  # changed between the look and the grip
            create_durably(path, content)
        taken.unlink()
        flush_file(path.parent)


def committed_segments(cache: CachePath) -> list[int]:
    """Numbers of the segments that have a line, ascending; the lines are not read."""
    names = names_in(cache / "ledger")
    return sorted(int(name.removesuffix(".json")) for name in names if re.fullmatch(r"[0-9]{5,18}\.json", name))


def read_record(cache: CachePath, segment: int, fingerprint: str) -> SegmentRecord:
    """A segment's line, checked against its own checksum and the cache's fingerprint.

    Raises:
        DamagedCacheError: there is none, or it is not what was committed.
        OSError: it cannot be read, which says nothing about it.
    """
    name = segment_name(segment)
    line = read_line(cache, segment)
    record = None if line is None else parse_line(line)
    if record is None:
        what = "its line in the ledger is missing or not what was written"
        raise DamagedCacheError(f"segment {name} of {cache} is damaged: {what}; {mend(cache)}", what)
    if record.segment != segment or record.cache_fingerprint != fingerprint:
        other = "cache" if record.cache_fingerprint != fingerprint else "segment"
        what = f"its line in the ledger belongs to another {other}"
        raise DamagedCacheError(f"segment {name} of {cache} is damaged: {what}; {mend(cache)}", what)
    return record


def read_records(cache: CachePath, segments: list[int], fingerprint: str) -> Iterator[SegmentRecord]:
    """`read_record` of each; from an object store several at once."""
    if not isinstance(cache, RemotePath):
        yield from (read_record(cache, segment, fingerprint) for segment in segments)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(lambda segment: read_record(cache, segment, fingerprint), segments)


def parse_line(line: bytes) -> SegmentRecord | None:
    """The record of a line; None where the line is not whole."""
    found = _LINE.fullmatch(line)
    try:
        if found is None or hashlib.sha256(found[2]).hexdigest().encode() != found[1]:
            return _parse_foreign(line)
        record = SegmentRecord.model_validate_json(found[2])
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None
    number = segment_name(record.segment)
    if record.folder and not re.fullmatch(rf"{number}\.[0-9a-z-]{{1,80}}", record.folder):
        return None
    return record


def _parse_foreign(line: bytes) -> SegmentRecord | None:
    """A line in another spelling, as other JSON writers have it; what it sums is the record's canonical form."""
    outer = json.loads(line)
    intact = hashlib.sha256(_canonical(outer["record"])).hexdigest() == outer["sha256"]
    return SegmentRecord.model_validate(outer["record"]) if intact else None


def _line(record: SegmentRecord) -> bytes:
    body = _canonical(record.model_dump(mode="json"))
    return b'{"sha256":"%s","record":%s}\n' % (hashlib.sha256(body).hexdigest().encode(), body)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
