"""Numbers of bytes, in words."""

from __future__ import annotations


def byte_text(count: float) -> str:
    """`1.234 MB`, in powers of 1000 and four digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
