"""The folder of a cache and its root document: made in place, the first maker wins, and made again where it is lost."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from frozen_cache.aside import is_left_over
from frozen_cache.cache.attributes import (
    DOCUMENT_BYTES,
    READABLE_VERSIONS,
    CacheAttributes,
    group_document,
    read_attributes,
)
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.guests import is_guest
from frozen_cache.cache.hints import HINTS_FILE
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, parse_line, read_line
from frozen_cache.durable import create_durably, make_folder_durably, names_in, read_regular, write_durably
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath, RemotePath

FOLDERS = ("segments", "ledger", "staging")
OWN = {*FOLDERS, "stem", "zarr.json", ".lock", HINTS_FILE}


def existing_cache(path: CachePath) -> CacheAttributes | None:
    """The attributes of the cache at `path`; None where there is nothing yet, or only the beginnings of a cache, or
    one whose root document is lost (`open_root` makes it again, if the ledger proves it right).

    Raises:
        UserError: something else is there.
    """
    if not path.exists():
        if isinstance(path, Path) and path.is_symlink():
            raise UserError(
                f"{path} is a link to {path.readlink()}, which is not there; make it, or name another --out"
            )
        return None
    if not path.is_dir():
        raise UserError(f"{path} exists and is not a cache; name another --out")
    strange = [name for name in names_in(path) if not _is_own(name)]
    if not (path / "zarr.json").is_file():
        if strange:
            raise UserError(f"{path} exists and is not a cache: it holds other files; name another --out")
        return None
    try:
        return read_attributes(path)
    except UserError as error:
        # Without lines nothing is lost; with them they say whose cache it is, whatever byte of the root is wrong.
        empty = isinstance(error, DamagedCacheError) and (path / "ledger").is_dir()
        if _records(path) or (empty and not committed_segments(path)):
            return None
        raise


def open_root(path: CachePath, attributes: CacheAttributes) -> CacheAttributes:
    """Make the cache at `path`, or what its folder lacks, and return the attributes that it has.

    A root document that is lost or damaged is written again from `attributes`, if every line of the ledger proves by
    its fingerprint that the cache was made with them.

    Raises:
        UserError: another command made what is there, or a lost root document cannot be proved.
    """
    there = existing_cache(path)
    if there is None:
        make_folder_durably(path)
        for name in FOLDERS:
            make_folder_durably(path / name)
        attributes, proved = _proved_by_ledger(path, attributes)
        if (path / "zarr.json").exists() and existing_cache(path) is None:
            write_durably(path / "zarr.json", attributes.root_document())  # a damaged one
        else:
            create_durably(path / "zarr.json", attributes.root_document())
        there = read_attributes(path)
        if proved:
            restore_segments_node(path)
    for name in FOLDERS:
        make_folder_durably(path / name)
    if not (path / "segments" / "zarr.json").exists():
        restore_segments_node(path)
    return there


def segments_node_is_intact(path: CachePath) -> bool:
    """Whether `segments/zarr.json`, the one file there that belongs to no segment, has its fixed content."""
    try:
        return read_regular(path / "segments" / "zarr.json", limit=DOCUMENT_BYTES) == group_document({})
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def restore_segments_node(path: CachePath) -> None:
    """Write `segments/zarr.json` anew."""
    write_durably(path / "segments" / "zarr.json", group_document({}))


def _proved_by_ledger(path: CachePath, attributes: CacheAttributes) -> tuple[CacheAttributes, bool]:
    """The attributes, of whichever version the ledger's lines prove, and whether it has lines; UserError where they
    are of another cache."""
    records = _records(path)
    versions = [attributes.model_copy(update={"format_version": version}) for version in READABLE_VERSIONS]
    found = [a for a in versions if all(record.cache_fingerprint == a.fingerprint for record in records)]
    if not found:
        if (path / "zarr.json").is_file():
            with suppress(DamagedCacheError):  # said below, with the way on; of another version is said there
                read_attributes(path)
        raise UserError(
            f"cache {path} has lost its zarr.json, and its {len(records)} segments are of other options, data or "
            "detector: give the first run's command exactly, --batch-size too, and it is written again"
        )
    return found[0] if records else attributes, bool(records)


def _records(path: CachePath) -> list[SegmentRecord]:
    if not (path / "ledger").is_dir():
        return []
    lines = [read_line(path, segment) for segment in committed_segments(path)]
    return [record for line in lines if line and (record := parse_line(line))]


def _is_own(name: str) -> bool:
    aside = name.startswith(tuple(f".{own}." for own in ("zarr.json", HINTS_FILE)))
    return name in OWN or is_guest(name) or aside


def left_over_beside(path: CachePath) -> list[Path]:
    """What earlier versions left beside a cache when they were killed while they began it."""
    if isinstance(path, RemotePath):
        return []
    found = path.parent.glob(f".{path.name.replace('[', '[[]')}.[0-9]*")
    return [entry for entry in found if entry.is_dir() and (entry / "ledger").is_dir() and is_left_over(entry)]
