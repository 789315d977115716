"""Places in object stores (S3, Google Cloud, Azure) by URL: what a cache needs of `pathlib.Path`, through obstore.

An object appears whole or not at all, so nothing is written aside. What decides who was first is a conditional put.
Credentials, endpoint and region come from where obstore looks for them: the environment (`AWS_ENDPOINT_URL` ...).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frozen_cache.errors import UserError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

URL = re.compile(r"(s3|s3a|gs|az|azure|abfs|abfss)://([^/]+)/?(.*)", re.DOTALL)
PART_BYTES = 8 << 20
KEPT_BYTES = 1 << 20
AT_ONCE = 16
"""Requests."""


@dataclass(frozen=True)
class Listing:
    """What lay below a prefix when it was listed."""

    sizes: Mapping[str, int]
    """Key -> bytes of every object."""
    contents: Mapping[str, bytes]
    """Of some of them."""


class RemotePath:
    """An object, or the prefix of several."""

    def __init__(self, url: str, *, listing: Listing | None = None) -> None:
        """
        Args:
            listing: what is known of the objects below, where they have been listed.
        """
        found = URL.fullmatch(url)
        if found is None:
            raise UserError(f"{url} is no place in an object store: give s3://BUCKET/NAME.zarr, gs://... or az://...")
        self._root, self.key = f"{found[1]}://{found[2]}", found[3].strip("/")
        self._listing = listing

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(
            f"{self._root}/{self.key}/{name}" if self.key else f"{self._root}/{name}", listing=self._listing
        )

    def __str__(self) -> str:
        return f"{self._root}/{self.key}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """The prefix that it lies in."""
        return RemotePath(f"{self._root}/{self.key.rpartition('/')[0]}", listing=self._listing)

    @property
    def store(self) -> ObjectStore:
        """obstore's own store of the bucket."""
        return _store(self._root)

    def resolve(self) -> RemotePath:
        """Itself: a URL has no links."""
        return self

    def listed(self, *, keep: str | None = None) -> RemotePath:
        """The same, with the sizes of all objects below as they are now, which is one request for a thousand.

        Args:
            keep: how the names of small objects end whose contents are fetched too, all at once.
        """
        sizes = {f"{self.key}/{name}": size for name, (size, _) in self.below().items()}
        small = [key for key, size in sizes.items() if keep and key.endswith(keep) and size <= KEPT_BYTES]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            contents = list(pool.map(lambda key: RemotePath(f"{self._root}/{key}").read_bytes(), small))
        return RemotePath(str(self), listing=Listing(sizes, dict(zip(small, contents, strict=True))))

    def below(self) -> dict[str, tuple[int, datetime]]:
        """Name below this prefix -> (bytes, time of the last change) of all objects."""
        with self._errors():
            batches = _obstore().list(self.store, prefix=f"{self.key}/")
            return {
                entry["path"][len(self.key) + 1 :]: (entry["size"], entry["last_modified"])
                for batch in batches
                for entry in batch
            }

    def names(self) -> tuple[list[str], list[str]]:
        """Names of objects and of further prefixes right below this prefix."""
        with self._errors():
            found: Any = _obstore().list_with_delimiter(self.store, prefix=f"{self.key}/")
        cut = len(self.key) + 1
        return [entry["path"][cut:] for entry in found["objects"]], [path[cut:] for path in found["common_prefixes"]]

    def exists(self) -> bool:
        """Whether it is an object or a prefix of some."""
        return self.is_file() or self.is_dir()

    def is_dir(self) -> bool:
        """Whether objects lie below."""
        objects, prefixes = self.names()
        return bool(objects or prefixes)

    def is_file(self) -> bool:
        """Whether there is an object of this key."""
        try:
            self.size()
        except FileNotFoundError:
            return False
        return True

    def size(self) -> int:
        """Bytes of the object; FileNotFoundError where there is none."""
        if self._listing is not None:
            if self.key not in self._listing.sizes:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
            return self._listing.sizes[self.key]
        with self._errors():
            return int(_obstore().head(self.store, self.key)["size"])

    def kept(self, name: str) -> bytes | None:
        """The content of an object below, where it was fetched when this prefix was listed."""
        return None if self._listing is None else self._listing.contents.get(f"{self.key}/{name}")

    def read_bytes(self, *, limit: int | None = None) -> bytes:
        """The object's content; ValueError where it has more than `limit` bytes."""
        if self._listing is not None and self.key in self._listing.contents:
            return self._listing.contents[self.key]
        with self._errors():
            found = _obstore().get(self.store, self.key)
            if limit is not None and found.meta["size"] > limit:
                raise ValueError(f"{self} has more than {limit} bytes")
            return bytes(found.bytes())

    def read_range(self, start: int, stop: int) -> bytes:
        """The object's bytes from `start` to `stop`, by one request."""
        with self._errors():
            return bytes(_obstore().get_range(self.store, self.key, start=start, end=stop))

    def parts(self) -> Iterator[bytes]:
        """The object's content in parts of some megabytes."""
        with self._errors():
            for part in _obstore().get(self.store, self.key).stream(min_chunk_size=PART_BYTES):
                yield bytes(part)

    def put(self, content: bytes | Path) -> None:
        """Write the object, in place of one that is there; a local file is sent in parts."""
        with self._errors():
            _obstore().put(self.store, self.key, content)

    def create(self, content: bytes) -> bool:
        """Write the object unless there is one; False where another was first."""
        with self._errors():
            try:
                _obstore().put(self.store, self.key, content, mode="create", use_multipart=False)
            except _obstore().exceptions.AlreadyExistsError:
                # The put may have been done, its answer lost, and asked for again.
                return self.read_bytes() == content
        return True

    def replace(self, content: bytes, new: bytes) -> bool:
        """Write `new` if the object is still `content`, in one step; False where it is another by now."""
        obs = _obstore()
        with self._errors():
            try:
                found = obs.get(self.store, self.key)
                if bytes(found.bytes()) != content:
                    return False
                mode: Any = {name: found.meta[name] for name in ("e_tag", "version") if found.meta[name] is not None}
                obs.put(self.store, self.key, new, mode=mode, use_multipart=False)
            except (FileNotFoundError, obs.exceptions.PreconditionError):
                return False
        return True

    def unlink(self) -> None:
        """Remove the object, if it is there."""
        with self._errors():
            try:
                _obstore().delete(self.store, self.key)
            except FileNotFoundError:
                return

    def copy_below(self, to: RemotePath) -> None:
        """Copy all objects below to another prefix of the same bucket; the store does it, nothing comes here."""
        sizes = {name: size for name, (size, _) in self.below().items()}
        with self._errors(), ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: _obstore().copy(self.store, (self / name).key, (to / name).key), sizes))
        kept = to.below()
        for name, size in sizes.items():
            if name not in kept or kept[name][0] != size:
                raise OSError(errno.EIO, "the object store has not kept all that it was told to copy", str(to / name))

    def remove_below(self) -> None:
        """Remove all objects below."""
        names = [f"{self.key}/{name}" for name in self.below()]
        with self._errors():
            if names:
                _obstore().delete(self.store, names)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """obstore's errors as those of the system, which name this place."""
        with store_errors(str(self)):
            yield


CachePath = Path | RemotePath
"""Where a cache lies."""


def cache_path(text: str | os.PathLike[str] | RemotePath) -> CachePath:
    """The place that a user names: a path, or the URL of an object store."""
    if isinstance(text, RemotePath):
        return text
    name = os.fspath(text)
    return RemotePath(name) if "://" in name else Path(name)


def lies_in(path: CachePath, folder: CachePath) -> bool:
    """Whether `path` is `folder` itself, or lies below it."""
    return f"{path.resolve()}/".startswith(f"{folder.resolve()}/")


def listed(path: CachePath, *, keep: str | None = None) -> CachePath:
    """`RemotePath.listed` of a place in an object store; others as they are."""
    return path.listed(keep=keep) if isinstance(path, RemotePath) else path


@contextmanager
def store_errors(place: str) -> Iterator[None]:
    """obstore's errors of the block as OSErrors that name `place`: they tell nothing about what is stored there.

    Raises:
        UserError: there is no such bucket.
    """
    obs = _obstore()
    denied = (obs.exceptions.PermissionDeniedError, obs.exceptions.UnauthenticatedError)
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from None
    except obs.exceptions.BaseError as error:
        if "<Code>NoSuchBucket</Code>" in str(error):
            raise UserError(f"{place}: there is no such bucket: make it, or correct the name or the endpoint") from None
        code = errno.EACCES if isinstance(error, denied) else errno.EIO
        raise OSError(code, " ".join(str(error).split())[:300], place) from error


@cache
def _store(root: str) -> ObjectStore:
    from obstore.store import from_url

    with store_errors(root):
        return from_url(root)


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
    except ModuleNotFoundError:
        raise UserError(
            "caches in object stores need obstore: pip install 'frozen-cache[remote]', or copy the cache to a disk"
        ) from None
    return obstore
