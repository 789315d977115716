"""Segments copied as they are, byte by byte, and compared with the ledger on the way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.ledger import SegmentRecord, read_record, segment_name
from frozen_cache.cache.mending import mend
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.durable import copy_file, flush_tree
from frozen_cache.remote import CachePath

FILES_AT_ONCE = 8


def copy_segment(
    writer: CacheWriter,
    segment: int,
    source: CachePath,
    attributes: CacheAttributes,
    *,
    on_bytes: Callable[[int], object] = lambda count: None,
) -> None:
    """Copy a claimed segment of the cache `source`: committed when every file has the checksum of its line.

    Args:
        attributes: of both caches.
        on_bytes: called with the bytes of each file that was copied.

    Raises:
        DamagedCacheError: the source is not what was written; nothing is committed.
    """
    with writer.place(segment) as place:
        record = read_record(source, segment, attributes.fingerprint)
        folder = SegmentReader(source, record, attributes).folder
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:

            def copy(name: str) -> str | None:
                return _copy(record, folder, place.folder, name, on_bytes)

            damages = [what for what in pool.map(copy, record.files) if what is not None]
        if damages:
            raise DamagedCacheError(
                f"segment {segment_name(segment)} of {source} is damaged: {damages[0]}; {mend(source)}", damages[0]
            )
        flush_tree(place.folder)
        place.record = record.model_copy(update={"folder": place.name})


def _copy(
    record: SegmentRecord, source: CachePath, target: Path, name: str, on_bytes: Callable[[int], object]
) -> str | None:
    """Copy a file; what is wrong with it, in words, None for nothing."""
    try:
        copy_file(source / name, target / name)
    except (FileNotFoundError, NotADirectoryError):
        return f"{name} is missing"
    on_bytes(record.files[name][0])
    return None if record.checksum(target / name) == record.files[name] else f"{name} has changed"
