"""In an object store: the next state of a cache takes the place of the cache, and ends so wherever it is interrupted.

A store renames nothing. What the next state has is copied by the store itself: first its segments, whose names nobody
else has and which no line of the old ledger names; then the root document, by a conditional put, from which on the
cache is the new one and its old lines are of another; then the lines. The next state is there until all of that is
done, so that whoever comes next can see how far it went: its root document equals the cache's.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from frozen_cache.cache.attributes import DOCUMENT_BYTES, read_attributes
from frozen_cache.cache.hints import HINTS_FILE
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, ledger_path, read_records
from frozen_cache.durable import read_regular, write_durably
from frozen_cache.errors import UserError
from frozen_cache.remote import AT_ONCE, RemotePath


def replace_cache(out: RemotePath, following: RemotePath, *, fingerprint: str) -> None:
    """Put the whole cache `following`, of the same bucket, in the place of `out`, and remove it there.

    Args:
        fingerprint: of the attributes that `out` had when `following` was made from it.

    Raises:
        UserError: `out` has been changed meanwhile; it is as it was.
    """
    root = out / "zarr.json"
    before = read_regular(root, limit=DOCUMENT_BYTES)
    changed = UserError(f"{out} was changed by another process while it was updated: run it again")
    if read_attributes(out).fingerprint != fingerprint:
        raise changed
    for record in _records(following):
        (following / "segments" / record.folder).copy_below(out / "segments" / record.folder)
    if not root.replace(before, read_regular(following / "zarr.json", limit=DOCUMENT_BYTES)):
        raise changed
    finish_replacing(out, following)


def finish_replacing(out: RemotePath, following: RemotePath) -> None:
    """Finish what `replace_cache` has begun; nothing where `following` is still in the making, or not there."""
    objects, prefixes = following.names()
    if not objects and not prefixes:
        return
    if "zarr.json" in objects:
        new = read_regular(following / "zarr.json", limit=DOCUMENT_BYTES)
        if not (out / "zarr.json").is_file() or read_regular(out / "zarr.json", limit=DOCUMENT_BYTES) != new:
            return
        _put_lines(out, following)
        (following / "zarr.json").unlink()  # first: without it the rest is seen to be of no use
    following.remove_below()


def _put_lines(out: RemotePath, following: RemotePath) -> None:
    """The ledger becomes that of the next state, and segments that it does not name go."""
    records = list(_records(following))

    def put(record: SegmentRecord) -> None:
        write_durably(ledger_path(out, record.segment), ledger_path(following, record.segment).read_bytes())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(put, records))
    if HINTS_FILE in following.names()[0]:
        (out / HINTS_FILE).put((following / HINTS_FILE).read_bytes())
    for segment in set(committed_segments(out)) - {record.segment for record in records}:
        ledger_path(out, segment).unlink()
    for name in set((out / "segments").names()[1]) - {record.folder for record in records}:
        (out / "segments" / name).remove_below()


def _records(cache: RemotePath) -> Iterator[SegmentRecord]:
    return read_records(cache, committed_segments(cache), read_attributes(cache).fingerprint)
