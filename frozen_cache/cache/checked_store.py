"""The files of one segment as zarr reads them: a file that is gone, cut or of another place is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore


class CheckedStore(LocalStore):
    """A read-only folder whose files must be there.

    zarr takes a file that it does not find, or a shard of no bytes, for zeros. Here `check` is called with the name of
    each file before it is read, and raises; and what zarr's own store does not find afterwards raises too. `content`
    gets what was read: name, bytes, and their place in the file, negative where it counts from the end.
    """

    def __init__(
        self, root: Path | str, check: Callable[[str], object], content: Callable[[str, np.ndarray, int], object]
    ) -> None:
        super().__init__(root, read_only=True)
        self._check = check
        self._content = content

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As zarr asks for it; a file that vanishes during the call is named by FileNotFoundError."""
        self._check(key)
        found = await super().get(key, prototype, byte_range)
        return self._checked(key, found, byte_range)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The same without a loop."""
        self._check(key)
        found = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        return self._checked(key, found, byte_range)

    def _checked(self, key: str, found: Buffer | None, byte_range: ByteRequest | None) -> Buffer:
        if found is None:
            raise FileNotFoundError(f"{key} is missing")
        match byte_range:
            case RangeByteRequest():
                start = byte_range.start
            case OffsetByteRequest():
                start = byte_range.offset
            case SuffixByteRequest():
                start = -byte_range.suffix
            case _:
                start = 0
        self._content(key, np.asarray(found.as_numpy_array()), start)
        return found
