"""Files that are on disk when we say so: written aside, flushed, renamed into place."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c


def flush_file(path: Path) -> None:
    """fsync of one file or directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes) -> None:
    """Put a whole file at `path`: readers see the old content or the new, never a part, also after a power cut."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    flush_file(path.parent)


def flush_tree(folder: Path) -> None:
    """fsync of every file and directory under `folder`, itself included; at once, which journals take as one write."""
    paths = [folder, *folder.rglob("*")]
    with ThreadPoolExecutor(min(16, len(paths))) as pool:
        list(pool.map(flush_file, paths))


def move_durably(source: Path, target: Path) -> None:
    """Rename a flushed directory into place; a leftover at `target` goes first."""
    if target.exists():
        shutil.rmtree(target)
    source.rename(target)
    flush_file(target.parent)
    flush_file(source.parent)


def checksums(folder: Path) -> dict[str, tuple[int, int]]:
    """Relative path (with `/`) -> (size in bytes, CRC-32C), of every file under `folder`, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_checksum(path) for path in paths}


def file_checksum(path: Path) -> tuple[int, int]:
    """(size in bytes, CRC-32C) of one file, read in parts of 8 MiB."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while part := file.read(8 << 20):
            size += len(part)
            crc = google_crc32c.extend(crc, part)
    return size, crc
