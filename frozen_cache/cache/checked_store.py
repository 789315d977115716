"""The files of one segment as zarr reads them: a file that is gone, cut or of another place is an error.

zarr takes a file that it does not find, or a shard of no bytes, for zeros. Here `check` is called with the name of each
file before it is read, and raises; and what zarr's own store does not find afterwards raises too. `content` gets what
was read: name, bytes, and their place in the file, negative where it counts from the end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from frozen_cache.remote import CachePath, RemotePath, store_errors

Check = Callable[[str], object]
Content = Callable[[str, np.ndarray, int], object]


def checked_store(folder: CachePath, check: Check, content: Content) -> Store:
    """A read-only folder, or prefix of an object store, whose files must be there."""
    if isinstance(folder, RemotePath):
        return _checked_objects(folder, check, content)
    return CheckedStore(folder, check, content)


class CheckedStore(LocalStore):
    """A folder."""

    def __init__(self, root: Path | str, check: Check, content: Content) -> None:
        super().__init__(root, read_only=True)
        self._check = check
        self._content = content

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As zarr asks for it; a file that vanishes during the call is named by FileNotFoundError."""
        self._check(key)
        return _checked(key, await super().get(key, prototype, byte_range), byte_range, self._content)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The same without a loop."""
        self._check(key)
        found = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        return _checked(key, found, byte_range, self._content)


def _checked_objects(folder: RemotePath, check: Check, content: Content) -> Store:
    from zarr.storage import ObjectStore

    class CheckedObjects(ObjectStore):
        """A prefix of an object store."""

        async def get(
            self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
        ) -> Buffer | None:
            check(key)
            prototype = prototype or default_buffer_prototype()
            kept = folder.kept(key)
            if kept is not None and byte_range is None:
                return _checked(key, prototype.buffer.from_bytes(kept), None, content)
            with store_errors(str(folder / key)):
                found = await super().get(f"{folder.key}/{key}", prototype, byte_range)
            return _checked(key, found, byte_range, content)

    return CheckedObjects(folder.store, read_only=True)


def _checked(key: str, found: Buffer | None, byte_range: ByteRequest | None, content: Content) -> Buffer:
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
    content(key, np.asarray(found.as_numpy_array()), start)
    return found
