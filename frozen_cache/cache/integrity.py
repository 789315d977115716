"""Reading every byte of a cache and comparing it with what was committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.cache.attributes import CacheAttributes, read_attributes
from frozen_cache.cache.contents import NotWhole, check_size
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.guests import is_guest
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, read_record, segment_name
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.cache.stem_files import stem_damage
from frozen_cache.remote import CachePath, RemotePath, listed


@dataclass(frozen=True)
class Damage:
    """Something that is not what was committed: missing, of another size, or of another content."""

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
    stem: str | None
    """What is wrong with the stem's weights; None for nothing."""
    strange: list[str]
    """Files in segments that nobody knows; they are never read, and no damage."""


def verify_cache(
    path: CachePath,
    *,
    on_start: Callable[[int], object] = lambda total: None,
    on_bytes: Callable[[int], object] = lambda count: None,
) -> Verification:
    """Read every file of every committed segment and compare it with what the segment must hold.

    Args:
        on_start: called with the bytes that will be read, as the ledger has them.
        on_bytes: called with the bytes of each file read, for a progress bar.

    Raises:
        UserError: there is no cache, or its root attributes are damaged.
        OSError: something cannot be read, which is no damage; it is named.
    """
    attributes = read_attributes(path)
    committed = committed_segments(path)
    found: dict[int, list[str]] = {segment: [] for segment in committed}
    records: dict[int, SegmentRecord] = {}
    for segment in committed:
        try:
            records[segment] = read_record(path, segment, attributes.fingerprint)
        except DamagedCacheError as error:
            found[segment].append(error.what)
    on_start(sum(size for record in records.values() for size, _ in record.files.values()))
    total = 0
    strange: list[str] = []
    for segment, record in records.items():
        found[segment], size = _check_files(path, record, on_bytes)
        total += size
        if not found[segment]:
            try:
                SegmentReader(path, record, attributes)
            except DamagedCacheError as error:
                found[segment].append(error.what)
        strange += _strange(record.folder_in(path), record)
    there = set(committed)
    return Verification(
        damages=[Damage(segment, what) for segment, each in found.items() for what in each],
        intact=[segment for segment, each in found.items() if not each],
        open=[n for n in range(attributes.segment_count) if n not in there],
        bytes_read=total,
        stem=stem_damage(path, attributes.stem),
        strange=strange,
    )


def quick_check(path: CachePath, segment: int, attributes: CacheAttributes) -> str | None:
    """What is wrong with a committed segment, as far as its line and the sizes of its files tell; None for nothing."""
    try:
        record = read_record(path, segment, attributes.fingerprint)
        folder = listed(record.folder_in(path))
        for name in record.files:
            check_size(record, folder, name)
    except DamagedCacheError as error:
        return error.what
    except NotWhole as error:
        return str(error)
    return None


def _check_files(path: CachePath, record: SegmentRecord, on_bytes: Callable[[int], object]) -> tuple[list[str], int]:
    folder = listed(record.folder_in(path))
    if not folder.is_dir():
        return [f"its folder segments/{folder.name} is missing"], 0
    found, total = [], 0
    for name, (size, checksum) in record.files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            found.append(f"its line in the ledger lists {name}, which is no file of this format")
            continue
        try:
            check_size(record, folder, name)
            now = record.checksum(folder / name)
        except (NotWhole, FileNotFoundError) as error:
            found.append(str(error) if isinstance(error, NotWhole) else f"{name} is missing")
            continue
        total += now[0]
        on_bytes(now[0])
        if now != (size, checksum):
            found.append(f"{name} has changed")
    return found, total


def _strange(folder: CachePath, record: SegmentRecord) -> list[str]:
    if isinstance(folder, RemotePath):
        names = list(folder.below())
    else:
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    unknown = (name for name in names if name not in record.files)
    return sorted(str(folder / name) for name in unknown if not any(is_guest(part) for part in name.split("/")))
