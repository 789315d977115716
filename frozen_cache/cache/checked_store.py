"""The files of one segment as zarr reads them: a file that is gone or cut is an error, never zeros."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore


class CheckedStore(LocalStore):
    """A read-only folder whose files must be there.

    zarr takes a file that it does not find, or a shard of no bytes, for zeros. Here `check` is called with the name of
    each file before it is read, and raises; and what zarr's own store does not find afterwards raises too.
    """

    def __init__(self, root: Path | str, check: Callable[[str], object]) -> None:
        super().__init__(root, read_only=True)
        self._check = check

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As zarr asks for it; a file that vanishes during the call is named by FileNotFoundError."""
        self._check(key)
        found = await super().get(key, prototype, byte_range)
        if found is None:
            raise FileNotFoundError(f"{key} is missing")
        return found

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The same without a loop."""
        self._check(key)
        found = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        if found is None:
            raise FileNotFoundError(f"{key} is missing")
        return found
