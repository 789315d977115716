"""Pointer files: what Git LFS and git-annex leave in the place of a large file that has not been fetched."""

from __future__ import annotations

_POINTERS = {
    b"version https://git-lfs.github.com/": "a Git LFS pointer, not the file itself: `git lfs pull` fetches it",
    b"version https://hawser.github.com/": "a Git LFS pointer, not the file itself: `git lfs pull` fetches it",
    b"/annex/objects/": "a git-annex pointer, not the file itself: `git annex get` fetches it",
}


def pointer_file(start: bytes) -> str | None:
    """What the file is and what fetches it, from its first bytes (64 do); None where it is no pointer."""
    return next((text for sign, text in _POINTERS.items() if start.startswith(sign)), None)
