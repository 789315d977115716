"""The ledger: one line per committed segment, outside the arrays. What it does not list does not exist."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.durable import flush_file, write_durably


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
    files: dict[str, tuple[int, int]]
    """Path inside the segment -> (size in bytes, CRC-32C)."""


def segment_name(segment: int) -> str:
    """`00042`."""
    return f"{segment:05d}"


def ledger_path(cache: Path, segment: int) -> Path:
    """The file that holds a segment's line."""
    return cache / "ledger" / f"{segment_name(segment)}.json"


def commit_record(cache: Path, record: SegmentRecord) -> None:
    """Write the line: from here on the segment exists."""
    body = _canonical(record.model_dump(mode="json"))
    line = json.dumps({"sha256": hashlib.sha256(body).hexdigest(), "record": json.loads(body)}, separators=(",", ":"))
    write_durably(ledger_path(cache, record.segment), line.encode() + b"\n")


def withdraw_record(cache: Path, segment: int) -> None:
    """Take the line back: the segment is to be extracted again."""
    ledger_path(cache, segment).unlink(missing_ok=True)
    flush_file(cache / "ledger")


def committed_segments(cache: Path) -> list[int]:
    """Numbers of the segments that have a line, ascending; the lines are not read."""
    return sorted(int(path.stem) for path in (cache / "ledger").glob("[0-9]*.json") if path.stem.isdigit())


def read_record(cache: Path, segment: int, fingerprint: str) -> SegmentRecord:
    """A segment's line, checked against its own checksum and the cache's fingerprint; DamagedCacheError otherwise."""
    name = segment_name(segment)
    try:
        line = ledger_path(cache, segment).read_bytes()
        outer = json.loads(line)
        body = _canonical(outer["record"])
        intact = hashlib.sha256(body).hexdigest() == outer["sha256"]
        record = SegmentRecord.model_validate(outer["record"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        intact = False
    if not intact:
        raise DamagedCacheError(f"segment {name} of {cache} is damaged: its line in the ledger; {mend(cache)}")
    if record.segment != segment or record.cache_fingerprint != fingerprint:
        raise DamagedCacheError(f"segment {name} of {cache} belongs to another cache; {mend(cache)}")
    return record


def mend(cache: Path) -> str:
    """The words that tell how a damaged segment is made good."""
    return f"`frozen-cache cache repair {cache}` extracts just the damaged segments again"


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
