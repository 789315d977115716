"""What writers that died have left in a cache: found by its name, removed once it is surely of no use."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from frozen_cache.aside import OLD_SECONDS, is_left_over, writer_is_gone
from frozen_cache.cache.guests import is_guest
from frozen_cache.cache.ledger import committed_segments, parse_line, read_line
from frozen_cache.cache.root import FOLDERS, left_over_beside
from frozen_cache.durable import remove_tree
from frozen_cache.remote import CachePath, RemotePath

_SEGMENT = re.compile(r"[0-9]{5,18}(\.[0-9a-z-]+)?$")


def remove_leftovers(cache: CachePath) -> int:
    """Remove what nobody will ever finish or read, and return how many things it was; never fails.

    Left over is what a dead process of this machine wrote, and what nobody has touched for a day: parts of files,
    segments in the making, and segments in place that no line of the ledger names.
    """
    count = 0
    with suppress(OSError):
        if isinstance(cache, RemotePath):
            for folder in list(_unused_prefixes(cache)):
                remove_tree(folder)
                count += 1
            return count
        for path in list(_unused(cache)):
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)
            count += 1
    return count


def _unused(cache: Path) -> Iterator[Path]:
    yield from left_over_beside(cache)
    if any((cache / name).is_symlink() for name in FOLDERS):  # what lies there may be anybody's
        return
    for folder in (cache, cache / "ledger", cache / "segments"):
        for path in folder.glob(".*.json.*"):
            if not is_guest(path.name) and is_left_over(path):
                yield path
    for path in (cache / "stem").glob(".*.safetensors.*"):
        if is_left_over(path):
            yield path
    for path in (cache / "staging").iterdir():
        if _SEGMENT.match(path.name) and is_left_over(path):
            yield path
    # The folders first, then the lines: a segment that is committed in between is named by a line that is read.
    placed = [path for path in (cache / "segments").iterdir() if path.name[:5].isdigit() and path.is_dir()]
    if len(placed) > len(committed_segments(cache)):
        candidates = {path.name: path for path in placed if is_left_over(path)}
        yield from (candidates[name] for name in _not_named(cache, candidates))


def _unused_prefixes(cache: RemotePath) -> Iterator[RemotePath]:
    """Of an object store: segments that no line names, whose writer is dead or which are a day old."""
    placed = [name for name in (cache / "segments").names()[1] if _SEGMENT.match(name)]
    if len(placed) > len(committed_segments(cache)):
        for name in _not_named(cache, placed):
            folder = cache / "segments" / name
            times = [changed.timestamp() for _, changed in folder.below().values()]
            if times and (writer_is_gone(name) or time.time() - max(times) > OLD_SECONDS):
                yield folder


def _not_named(cache: CachePath, folders: Collection[str]) -> list[str]:
    """Those folders of segments that no line of the ledger names, nor may name."""
    if not folders:
        return []
    named: set[str] = set()
    unreadable: set[int] = set()
    for segment in committed_segments(cache):
        record = parse_line(read_line(cache, segment) or b"")
        if record is None:
            unreadable.add(segment)
        else:
            named.add(record.folder_in(cache).name)
    return [name for name in folders if name not in named and int(name.partition(".")[0]) not in unreadable]
