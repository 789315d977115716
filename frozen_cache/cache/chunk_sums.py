"""What each chunk of a file ends in: so that a sound file, or a sound chunk, of another place is not taken for it.

A chunk guards its own content with a CRC-32C, but does not know where it belongs: two files of equal size that change
places read without an error. A segment's group keeps (end, CRC-32C) of every chunk; comparing costs no more reading.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.layout import CRC_BYTES, INDEX_ENTRY_BYTES

ATTRIBUTE = "chunk_sums"
"""Of a segment's group; caches that were made before it was kept lack it."""
_ABSENT = 2**64 - 1
_PAIR = np.dtype([("end", "<u4"), ("sum", "<u4")])


def read_chunk_sums(file: Path, *, chunks: int, present: int) -> str:
    """Base64 of (end in bytes, CRC-32C) as two uint32 for each chunk of a shard, by rising end, and of its index.

    Args:
        chunks: chunks that a whole shard has; the index at its end has an entry for each.
        present: chunks that this one must have.

    Raises:
        NotWhole: a chunk was left out, which reads as zeros.
    """
    with file.open("rb") as shard:
        size = shard.seek(0, os.SEEK_END)
        shard.seek(size - chunks * INDEX_ENTRY_BYTES - CRC_BYTES)
        entries = np.frombuffer(shard.read(chunks * INDEX_ENTRY_BYTES), dtype="<u8").reshape(-1, 2)
        ends = [*sorted(entries[entries[:, 0] != _ABSENT].sum(axis=1).tolist()), size]
        if len(ends) != present + 1:
            raise NotWhole(f"{file.name} of {file.parent} has {len(ends) - 1} chunks, it must have {present}")
        pairs = np.empty(len(ends), dtype=_PAIR)
        for place, end in enumerate(ends):
            shard.seek(end - CRC_BYTES)
            pairs[place] = (end, int.from_bytes(shard.read(CRC_BYTES), "little"))
    return base64.b64encode(pairs.tobytes()).decode()


class ChunkSums:
    """The chunks that a segment's files must have."""

    def __init__(self, packed: Mapping[str, str]) -> None:
        """From path inside the segment -> what `read_chunk_sums` gave."""
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
