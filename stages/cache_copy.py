"""A cache at another place, segment by segment."""

from __future__ import annotations

from dataclasses import dataclass

from frozen_cache.byte_counts import byte_text
from frozen_cache.cache.attributes import differences, read_attributes
from frozen_cache.cache.copying import copy_segment
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.hints import read_hints, write_hints
from frozen_cache.cache.ledger import committed_segments, read_record
from frozen_cache.cache.stem_files import copy_stem
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.errors import UserError
from frozen_cache.progress import progress_bar
from frozen_cache.remote import CachePath, lies_in


@dataclass(frozen=True)
class Copied:
    """What `cache_copy` did."""

    segments: int
    """Copied now."""
    bytes: int
    """Of these."""
    there: int
    """Segments that were there already."""
    left: int
    """Segments that another process is still copying."""
    open: int
    """Segments that the source does not have yet."""

    def text(self) -> str:
        """For people."""
        lines = [f"{self.segments} segments copied ({byte_text(self.bytes)}), each compared with its checksums"]
        if self.there:
            lines.append(f"{self.there} segments were there already")
        if self.left:
            lines.append(f"{self.left} segments are still open: another process copies them, or run it again")
        if self.open:
            lines.append(f"{self.open} segments are not extracted yet: run it again when they are")
        return "\n".join(lines)


def cache_copy(source: CachePath, target: CachePath) -> Copied:
    """Copy what the cache `source` has to the cache `target`, made where there is none. Called again it goes on.

    Several processes may do so at once. Every file keeps its bytes; only the folders of segments have other names.

    Raises:
        UserError: another cache, or something else, is at `target`.
        DamagedCacheError: segments of the source are not what was written; all others have been copied.
    """
    if lies_in(target, source):
        raise UserError(f"{target} is the cache that is read, or lies in it: give the name of the new one")
    attributes = read_attributes(source)
    if (target / "zarr.json").is_file() and (found := differences(read_attributes(target), attributes)):
        raise UserError(f"{target} is another cache, of other {'; '.join(found)}: give the copy a name of its own")
    writer = CacheWriter(target, attributes)
    copied, size = 0, 0
    damaged: list[DamagedCacheError] = []
    try:
        copy_stem(target, source, attributes.stem)
        hints = read_hints(source)
        if hints is not None:
            write_hints(target, hints)
        committed = committed_segments(source)
        pending = sorted(set(committed) & set(writer.pending()))
        sizes = {segment: _bytes(source, segment, attributes.fingerprint) for segment in pending}
        with progress_bar(total=sum(sizes.values()), desc="copy", unit="B", unit_scale=True) as bar:
            for segment in pending:
                if not writer.claim(segment):
                    bar.update(sizes[segment])
                    continue
                try:
                    copy_segment(writer, segment, source, attributes, on_bytes=bar.update)
                except DamagedCacheError as error:
                    damaged.append(error)
                else:
                    copied, size = copied + 1, size + sizes[segment]
        left = set(writer.pending())
    finally:
        writer.close()
    if damaged:
        raise DamagedCacheError(f"{damaged[0]} ({len(damaged)} segments are damaged; {copied} others have been copied)")
    return Copied(
        segments=copied,
        bytes=size,
        there=len(committed) - len(pending),
        left=len(left & set(committed)),
        open=len(left - set(committed)),
    )


def _bytes(cache: CachePath, segment: int, fingerprint: str) -> int:
    """Bytes of a segment's files by its line; 0 where the line is damaged, as copying it will tell."""
    try:
        return sum(size for size, _ in read_record(cache, segment, fingerprint).files.values())
    except DamagedCacheError:
        return 0
