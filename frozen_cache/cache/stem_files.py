"""The stem of a cache: weights in `stem/`; the root attributes have its configuration and the hash of the weights."""

from __future__ import annotations

import hashlib

from safetensors import SafetensorError
from safetensors.torch import load, save

from frozen_cache.cache.attributes import StemRecord
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.mending import mend_stem
from frozen_cache.detectors.stem import Stem
from frozen_cache.durable import file_size, make_folder_durably, read_regular, write_durably
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath

WEIGHTS = "stem/weights.safetensors"
STEM_BYTES = 2 << 30
"""More than any backbone has."""


def stem_record(stem: Stem) -> tuple[StemRecord, bytes]:
    """What the root attributes say of a stem, and the content of its file."""
    content = save(stem.tensors)
    digest = hashlib.sha256(content).hexdigest()
    return StemRecord(config=stem.config, weights_sha256=digest, weights_bytes=len(content)), content


def keep_stem(cache: CachePath, record: StemRecord, content: bytes) -> None:
    """Put the weights into a cache, unless they are there; whoever comes first writes what all would write."""
    if stem_damage(cache, record) is not None:
        make_folder_durably((cache / WEIGHTS).parent)
        write_durably(cache / WEIGHTS, content)


def copy_stem(cache: CachePath, source: CachePath, record: StemRecord | None) -> None:
    """Give a cache the stem of the one that it is made of, where that has one.

    Raises:
        DamagedCacheError: the source's is not what was written.
    """
    if record is None:
        return
    if what := stem_damage(source, record):
        raise DamagedCacheError(f"cache {source} is damaged: {what}; {mend_stem(source)}", what)
    keep_stem(cache, record, _content(source, record))


def stem_damage(cache: CachePath, record: StemRecord | None, *, quick: bool = False) -> str | None:
    """What is wrong with the weights, in words; None where nothing is, or the cache has no stem.

    Args:
        quick: compare their size only.
    """
    if record is None:
        return None
    try:
        if quick:
            return None if file_size(cache / WEIGHTS) == record.weights_bytes else f"{WEIGHTS} has changed"
        _content(cache, record)
    except (FileNotFoundError, NotADirectoryError):
        return f"{WEIGHTS} is missing"
    except ValueError as error:
        return str(error)
    return None


def read_stem(cache: CachePath, record: StemRecord) -> Stem:
    """The stem of a cache, on the CPU.

    Raises:
        DamagedCacheError: its weights are not those that were written.
        UserError: it is none that this version can build.
    """
    if what := stem_damage(cache, record):
        raise DamagedCacheError(f"cache {cache} is damaged: {what}; {mend_stem(cache)}", what)
    try:
        return Stem(record.config, load(_content(cache, record)))
    except SafetensorError as error:
        raise UserError(f"cache {cache}: {WEIGHTS} cannot be understood: {error}") from None
    except UserError as error:
        raise UserError(f"cache {cache}: {error}") from None


def _content(cache: CachePath, record: StemRecord) -> bytes:
    """The file, checked; ValueError says what is wrong with it."""
    if record.weights_bytes > STEM_BYTES:
        raise ValueError(f"its stem has {record.weights_bytes} bytes, more than any backbone")
    try:
        content = read_regular(cache / WEIGHTS, limit=record.weights_bytes)
    except ValueError:
        raise ValueError(f"{WEIGHTS} has changed") from None
    if hashlib.sha256(content).hexdigest() != record.weights_sha256:
        raise ValueError(f"{WEIGHTS} has changed")
    return content
