"""What each chunk of a file ends in: so that a sound file, or a sound chunk, of another place is not taken for it.

A chunk guards its own content with a CRC-32C, but does not know where it belongs: two files of equal size that change
places read without an error. A segment's group keeps (end, CRC-32C) of every chunk; comparing costs no more reading.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import numpy as np

from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.layout import CRC_BYTES

ATTRIBUTE = "chunk_sums"
"""Of a segment's group; caches that were made before it was kept lack it."""
_PAIR = np.dtype([("end", "<u4"), ("sum", "<u4")])


def packed_sums(ends: Sequence[int], sums: Sequence[bytes]) -> str:
    """Base64 of (end in bytes, CRC-32C) as two uint32 for each chunk of a shard, by rising end, and of its index.

    Args:
        ends: in bytes from the start of the file.
        sums: the four bytes in which each ends.
    """
    pairs = np.empty(len(ends), dtype=_PAIR)
    pairs["end"] = ends
    pairs["sum"] = np.frombuffer(b"".join(sums), dtype="<u4")
    return base64.b64encode(pairs.tobytes()).decode()


class ChunkSums:
    """The chunks that a segment's files must have."""

    def __init__(self, packed: Mapping[str, str]) -> None:
        """From path inside the segment -> what `packed_sums` gave."""
        self._files = {name: np.frombuffer(base64.b64decode(text), dtype=_PAIR) for name, text in packed.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def at(self, name: str, ends: np.ndarray) -> np.ndarray | None:
        """(chunks,) uint32, what the chunks that end there must end in; None where one was not written there."""
        pairs = self._files[name]
        places = np.searchsorted(pairs["end"], ends)
        if (places >= len(pairs)).any() or (pairs["end"][places] != ends).any():
            return None
        return pairs["sum"][places]

    def check(self, name: str, part: np.ndarray, *, start: int) -> None:
        """NotWhole unless `part`, (bytes,) uint8 of a file from `start` on, is chunks that were written there."""
        pairs = self._files[name]
        stop = start + len(part)
        inside = pairs[np.searchsorted(pairs["end"], start, "right") : np.searchsorted(pairs["end"], stop, "right")]
        ends = inside["end"].astype(np.int64) - start
        whole = len(ends) > 0 and ends[-1] == len(part) and ends[0] >= CRC_BYTES
        if whole:
            sums = part[ends[:, None] + np.arange(-CRC_BYTES, 0)].copy().view("<u4")[:, 0]
            whole = np.array_equal(sums, inside["sum"])
        if not whole:
            raise NotWhole(f"{name} holds other chunks than were written to it")
