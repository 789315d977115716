"""A cache written again with its maps in another precision, without a detector: what `cache_size.py` compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from frozen_cache.cache.attributes import FORMAT_VERSION, CacheAttributes, Precision, best_packing
from frozen_cache.cache.ledger import committed_segments, read_record
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.stem_files import copy_stem
from frozen_cache.cache.view import CachedView
from frozen_cache.cache.writer import CacheWriter


def reencoded(
    source: Path,
    out: Path,
    *,
    precision: Precision,
    step: float | None = None,
    views: int | None = None,
    store_c1: bool = False,
) -> Path:
    """Fill `out` with the views of a whole cache, or go on with it.

    Args:
        source: best in float16 or float32; what it has lost stays lost.
        step: of coded maps.
        views: the first so many; None for all.
        store_c1: the maps that `source` recomputes are stored.
    """
    reader = CacheReader(source, allow_incomplete=views is not None)
    there = reader.attributes
    total = min(views or there.views_total, there.views_total)
    attributes = CacheAttributes.model_validate(
        there.model_dump()
        | {"format_version": FORMAT_VERSION, "precision": precision, "step": step, "views_total": total}
        | {"packing": best_packing(step)}
        | ({"c1": "stored", "stem": None} if store_c1 else {})
    )
    writer = CacheWriter(out, attributes)
    first = 0
    try:
        copy_stem(out, source, attributes.stem)
        for segment in committed_segments(source):
            record = read_record(source, segment, there.fingerprint)
            count = min(len(record.image_ids), total - first)
            if count > 0 and not writer.is_committed(segment) and writer.claim(segment):
                with writer.segment(segment) as written:
                    for image in record.broken:
                        written.add_broken(image.image_id, image.reason)
                    for row in range(count):
                        crc = record.image_crcs[row] if record.image_crcs else None
                        if attributes.stem is None:
                            written.append(reader.read(first + row), image_crc=crc)
                        else:
                            file = reader.place(first + row)[0].stored("images", row).tobytes()
                            written.append(_stored(reader, first + row), image_crc=crc, image_file=file)
            first += count
    finally:
        writer.close()
    return out


def _stored(reader: CacheReader, index: int) -> CachedView:
    """A view with the maps that are stored, and no others."""
    view = reader.read_stored(index, c1=reader.attributes.stores_c1)
    return replace(view, image=None).decoded()
