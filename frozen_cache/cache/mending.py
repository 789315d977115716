"""How a damaged or unfinished cache is made good, in words: by extracting, or from the caches that it was made of."""

from __future__ import annotations

from collections.abc import Sequence

from frozen_cache.cache.attributes import read_attributes
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath


def mend(cache: CachePath, segments: Sequence[int] = ()) -> str:
    """The words that tell how damaged segments are made good.

    Args:
        segments: all that are damaged; none where only the one that was read is known.
    """
    made_by = _made_by(cache)
    if not made_by:
        return f"`frozen-cache cache repair {cache}` extracts just the damaged segments again"
    if not segments:
        return f"`frozen-cache cache verify {cache}` names all that is damaged and what to do"
    files = ", ".join(f"ledger/{segment:05d}.json" for segment in segments)
    return (
        f"it was made by `cache {made_by}`, not from images: remove {files} from it and run that command again, which "
        "makes just these segments"
    )


def mend_stem(cache: CachePath) -> str:
    """The words that tell how a damaged stem is made good."""
    if made_by := _made_by(cache):
        return f"the same `frozen-cache cache {made_by}` command as at first writes it anew"
    return f"`frozen-cache cache repair {cache}`, or the same extract-features command, writes it anew"


def finish(cache: CachePath) -> str:
    """The words that tell how open segments are made."""
    command = f"cache {made_by}" if (made_by := _made_by(cache)) else "extract-features"
    return f"the same `frozen-cache {command}` command again finishes it"


def _made_by(cache: CachePath) -> str:
    """The command that made the cache of others; empty where it was extracted, or does not say."""
    try:
        return read_attributes(cache).data.made_by
    except (UserError, OSError):
        return ""
