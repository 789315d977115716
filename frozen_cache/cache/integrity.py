"""Reading every byte of a cache and comparing it with what was committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.cache.attributes import group_document, read_attributes
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, read_record, segment_name
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.durable import file_checksum, write_durably


@dataclass(frozen=True)
class Damage:
    """Something that is not what was committed."""

    segment: int
    what: str

    def __str__(self) -> str:
        return f"segment {segment_name(self.segment)}: {self.what}"


@dataclass(frozen=True)
class Verification:
    """What a full read of a cache found."""

    damages: list[Damage]
    intact: list[int]
    """Committed segments without damage."""
    open: list[int]
    """Segments that are not committed yet."""
    bytes_read: int


def verify_cache(path: Path, *, on_bytes: Callable[[int], object] = lambda count: None) -> Verification:
    """Read every file of every committed segment and compare its size and CRC-32C with the ledger's.

    Args:
        on_bytes: called with the bytes of each file read, for a progress bar.

    Raises:
        UserError: there is no cache, or its root attributes are damaged.
    """
    attributes = read_attributes(path)
    committed = committed_segments(path)
    damages: list[Damage] = []
    intact: list[int] = []
    total = 0
    for segment in committed:
        found: list[str] = []
        try:
            record = read_record(path, segment, attributes.fingerprint)
            found, size = _check_files(path, record, on_bytes)
            total += size
            if not found:
                SegmentReader(path, record, attributes)
        except DamagedCacheError as error:
            found.append(error.what)
        damages += [Damage(segment, what) for what in found]
        if not found:
            intact.append(segment)
    missing = [n for n in range(attributes.segment_count) if n not in set(committed)]
    return Verification(damages, intact, missing, total)


def segments_node_is_intact(path: Path) -> bool:
    """Whether `segments/zarr.json`, the one file there that belongs to no segment, has its fixed content."""
    try:
        return (path / "segments" / "zarr.json").read_bytes() == group_document({})
    except OSError:
        return False


def restore_segments_node(path: Path) -> None:
    """Write `segments/zarr.json` anew."""
    write_durably(path / "segments" / "zarr.json", group_document({}))


def _check_files(path: Path, record: SegmentRecord, on_bytes: Callable[[int], object]) -> tuple[list[str], int]:
    folder = path / "segments" / segment_name(record.segment)
    found, total = [], 0
    for name, (size, crc) in record.files.items():
        try:
            size_now, crc_now = file_checksum(folder / name)
        except OSError:
            found.append(f"{name} is missing")
            continue
        total += size_now
        on_bytes(size_now)
        if size_now != size:
            found.append(f"{name} has {size_now} bytes, {size} were written")
        elif crc_now != crc:
            found.append(f"{name} has changed")
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    found += [f"{name} does not belong there" for name in sorted(there - set(record.files))]
    return found, total
