"""Where a cache was made from, on the machine that made it: hints that save typing, never a part of its identity.

`hints.json` lies beside the ledger and is outside every fingerprint: paths may have moved, so whoever follows a hint
checks what it finds there against the fingerprints of the cache.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from frozen_cache.durable import read_regular, write_durably
from frozen_cache.remote import CachePath

HINTS_FILE = "hints.json"
HINTS_BYTES = 1 << 20


class Hints(BaseModel):
    """The options of the extraction that the cache's own attributes do not hold."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    detector: str
    """As `load_detector` takes it; a path in it is absolute."""
    weights: Path | None = None
    """Absolute path of the checkpoint of a named detector."""
    backbone_strides: tuple[int, ...] = ()
    images: Path
    """Absolute path of the image folder."""
    annotations: Path
    """Absolute path of the annotation file."""


def absolute_detector(text: str) -> str:
    """The detector's text with the path in it made absolute; names and hub ids stay."""
    kind, _, rest = text.partition(":") if text.startswith("hf:") else ("", "", text)
    if kind:
        return f"hf:{Path(rest).resolve()}" if Path(rest).is_dir() else text
    file, colon, factory = rest.rpartition(":")
    return f"{Path(file).resolve()}:{factory}" if colon and file.endswith(".py") else text


def write_hints(cache: CachePath, hints: Hints) -> None:
    """Put the hints into a cache, in place of those that are there."""
    content = hints.model_dump_json(indent=2).encode() + b"\n"
    file = cache / HINTS_FILE
    if not (file.is_file() and file.read_bytes() == content):
        write_durably(file, content)


def read_hints(cache: CachePath) -> Hints | None:
    """The hints of a cache; None where it has none that can be read: a hint is no promise."""
    file = cache / HINTS_FILE
    try:
        return Hints.model_validate_json(read_regular(file, limit=HINTS_BYTES))
    except (OSError, ValueError):
        return None
