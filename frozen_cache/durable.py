"""Files that are on disk when we say so: written aside, flushed, put into place; the first one wins where one may.

In object stores (`RemotePath`) an object is there when it has been put, and whole: the same functions, shorter.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from frozen_cache.aside import aside_path, new_token
from frozen_cache.remote import CachePath, RemotePath

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""How file systems say that they have no hard links."""
NO_FOLDER_FLUSH = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
"""How file systems say that they do not flush folders."""


@contextmanager
def errors_name(path: CachePath, *, below: Path | None = None) -> Iterator[None]:
    """An OSError of the block names `path`, which the user knows, and not what was written aside for it.

    Args:
        below: change only errors that name something in this folder; all where it is not given.
    """
    try:
        yield
    except OSError as error:
        named = error.filename is None or below is None or Path(os.fsdecode(error.filename)).is_relative_to(below)
        if error.errno is None or not named:
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), str(path)) from error


def flush_file(path: Path) -> None:
    """fsync of one file or directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (error.errno in NO_FOLDER_FLUSH and path.is_dir()):
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


def file_size(path: CachePath) -> int:
    """Bytes of a file; FileNotFoundError where there is none, ValueError where it is no regular file."""
    if isinstance(path, RemotePath):
        return path.size()
    found = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is no regular file")
    return found.st_size


def read_regular(path: CachePath, *, limit: int) -> bytes:
    """The content of a file; ValueError where it is no regular file or has more than `limit` bytes."""
    if isinstance(path, RemotePath):
        return path.read_bytes(limit=limit)
    with errors_name(path):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise ValueError(f"{path} is no regular file of at most {limit} bytes")
        return path.read_bytes()


def names_in(folder: CachePath) -> list[str]:
    """Names of what lies in a folder; none where an object store has nothing there."""
    if isinstance(folder, RemotePath):
        objects, prefixes = folder.names()
        return [*objects, *prefixes]
    with errors_name(folder):
        return [path.name for path in folder.iterdir()]


def write_durably(path: CachePath, content: bytes) -> None:
    """Put a whole file at `path`: readers see the old content or the new, never a part, also after a power cut."""
    if isinstance(path, RemotePath):
        path.put(content)
        return
    with durable_file(path) as file:
        file.write(content)


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, put at `path` when the block ends, as `write_durably` does; nothing where it fails."""
    aside = aside_path(path)
    with errors_name(path):
        try:
            with aside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise
        flush_file(path.parent)


def create_durably(path: CachePath, content: bytes) -> bool:
    """Put a whole file at `path` unless one is there; False where another was first.

    By a hard link, which appears whole; where the file system has none by exclusive creation: there a crash may leave
    a part of the content at `path`.
    """
    if isinstance(path, RemotePath):
        return path.create(content)
    aside = aside_path(path)
    with errors_name(path):
        try:
            _write_flushed(aside, content)
            created = _link(aside, path, content)
        finally:
            with suppress(OSError):
                aside.unlink()
        if created:
            flush_file(path.parent)
    return created


def first_one_wins(folder: CachePath) -> bool:
    """Whether `create_durably` keeps its promise in `folder`: False where neither links nor creation are exclusive."""
    if isinstance(folder, RemotePath):
        return _puts_are_conditional(folder / f".probe.json.{new_token()}")
    probe = aside_path(folder / "probe.json")
    with errors_name(folder):
        try:
            _write_flushed(probe, b"1")
            return not _link(probe, probe, b"2")
        finally:
            with suppress(OSError):
                probe.unlink()


def make_folder_durably(path: CachePath) -> None:
    """Make a folder and what is missing above it, and flush the folders in which the new names stand."""
    if isinstance(path, RemotePath):  # has none
        return
    missing = []
    folder = path
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir()
    for folder in missing:
        flush_file(folder.parent)


def flush_tree(folder: Path) -> None:
    """fsync of every file and directory under `folder`, itself included; at once, which journals take as one write."""
    paths = [folder, *folder.rglob("*")]
    with ThreadPoolExecutor(min(16, len(paths))) as pool:
        list(pool.map(flush_file, paths))


def copy_file(source: CachePath, target: Path) -> None:
    """Copy a file's content to a new place, whose folder is made where it is missing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, RemotePath):
        with target.open("wb") as file:
            file.writelines(source.parts())
        return
    with errors_name(source, below=source.parent):
        shutil.copyfile(source, target)


def move_durably(source: Path, target: CachePath) -> None:
    """Rename a flushed directory to a name that nobody else uses."""
    if isinstance(target, RemotePath):
        _send(source, target)
        remove_tree(source)
        return
    source.rename(target)
    flush_file(target.parent)
    flush_file(source.parent)


def remove_tree(folder: CachePath) -> None:
    """Remove a folder that is of no use any more; what cannot be removed stays for the next who tries."""
    if isinstance(folder, RemotePath):
        with suppress(OSError):
            folder.remove_below()
        return
    shutil.rmtree(folder, ignore_errors=True)


def crc32(content: bytes) -> tuple[int, int]:
    """`file_crc32` of a content."""
    return len(content), zlib.crc32(content)


def crc32c(content: bytes) -> tuple[int, int]:
    """`file_crc32c` of a content."""
    return len(content), google_crc32c.value(content)


def file_crc32(path: CachePath) -> tuple[int, int]:
    """(size in bytes, CRC-32) of one file.

    Not CRC-32C: a file whose parts end in their own CRC-32C, as zarr's do, has the same CRC-32C whatever it holds.
    """
    return _checksum(path, zlib.crc32)


def file_crc32c(path: CachePath) -> tuple[int, int]:
    """(size in bytes, CRC-32C) of one file, as ledgers of the first kind have it."""
    return _checksum(path, lambda part, crc: google_crc32c.extend(crc, part))


def _checksum(path: CachePath, update: Callable[[bytes, int], int]) -> tuple[int, int]:
    size, crc = 0, 0
    for part in _parts(path):
        size += len(part)
        crc = update(part, crc)
    return size, crc


def _parts(path: CachePath) -> Iterator[bytes]:
    if isinstance(path, RemotePath):
        yield from path.parts()
        return
    with errors_name(path), path.open("rb") as file:
        while part := file.read(8 << 20):
            yield part


def _send(source: Path, target: RemotePath) -> None:
    """Put all files of a folder below a prefix, and look that they are there."""
    files = {file.relative_to(source).as_posix(): file for file in source.rglob("*") if file.is_file()}
    with ThreadPoolExecutor(min(8, len(files) or 1)) as pool:
        list(pool.map(lambda name: (target / name).put(files[name]), files))
    there = {name: size for name, (size, _) in target.below().items()}
    for name, file in files.items():
        if there.get(name) != file.stat().st_size:
            raise OSError(errno.EIO, "the object store has not kept all that was sent to it", str(target / name))


def _puts_are_conditional(probe: RemotePath) -> bool:
    try:
        return probe.create(b"1") and not probe.create(b"2")
    finally:
        with suppress(OSError):
            probe.unlink()


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(aside: Path, path: Path, content: bytes) -> bool:
    try:
        os.link(aside, path)
    except FileExistsError:
        # A network file system may have made the link, lost the answer, and asked again.
        return aside != path and aside.samefile(path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create(path, content)
    return True


def _create(path: Path, content: bytes) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    return True
