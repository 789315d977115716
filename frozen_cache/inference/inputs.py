"""What a user wants segmented: files, folders and patterns, each file once, each with a name of its own."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.errors import UserError

IMAGE_ENDINGS = frozenset([".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"])
VIDEO_ENDINGS = frozenset([".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"])
LONGEST_NAME = 120


@dataclass(frozen=True)
class InputFile:
    """One image or video file."""

    path: Path
    name: str
    """What its outputs are called: letters, digits, `-`, `_`; no two files have the same, on any file system."""

    @property
    def is_video(self) -> bool:
        """Judged by the file's ending."""
        return self.path.suffix.lower() in VIDEO_ENDINGS


def find_inputs(inputs: Sequence[str], *, apart_from: Path) -> list[InputFile]:
    """The files of all inputs in their order, those of folders and patterns sorted.

    Args:
        inputs: files (of any ending), folders (images and videos in them, at any depth), patterns (`*`, `?`, `**`).
        apart_from: a folder whose files are outputs, never inputs.

    Raises:
        UserError: an input that names nothing.
    """
    outside = apart_from.resolve()
    files: dict[Path, Path] = {}
    for text in inputs:
        found = _files(text)
        if not found:
            raise UserError(f"{text}: no image or video is there")
        for path in found:
            resolved = path.resolve()
            if not resolved.is_relative_to(outside):
                files.setdefault(resolved, path)
    if not files:
        raise UserError(f"all that was given lies in {apart_from}, where the results go")
    paths = list(files.values())
    return [InputFile(path, name) for path, name in zip(paths, unique_names(paths), strict=True)]


def unique_names(paths: Iterable[Path]) -> list[str]:
    """A file name for each path: its stem where that is free, else with a number behind it."""
    stems = [_plain(path.stem) for path in paths]
    wanted = {stem.lower() for stem in stems}
    taken: set[str] = set()
    names = []
    for stem in stems:
        name, number = stem, 2
        while name.lower() in taken or (name != stem and name.lower() in wanted):
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _plain(stem: str) -> str:
    """Without anything that a file system or a shell could take for more than a letter."""
    return re.sub(r"[^\w-]+", "_", stem).strip("-")[:LONGEST_NAME] or "image"


def _files(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        return _known(sorted(path.rglob("*")))
    if path.exists():
        return [path]
    if glob.has_magic(text):
        found = glob.glob(str(path), recursive=True)  # noqa: PTH207  Path.glob takes no absolute patterns
        return _known(sorted(map(Path, found)))
    return []


def _known(paths: list[Path]) -> list[Path]:
    known = IMAGE_ENDINGS | VIDEO_ENDINGS
    return [path for path in paths if path.suffix.lower() in known and path.is_file()]
