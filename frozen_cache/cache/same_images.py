"""Whether the images of today are those that a cache was begun with: the same names and sizes may hold other bytes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frozen_cache.cache.ledger import committed_segments, parse_line, read_line
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.data.batches import PlannedView
from frozen_cache.data.images import image_path
from frozen_cache.durable import file_crc32c
from frozen_cache.errors import UserError

SAMPLE = 256
"""Images compared each time that a cache is continued: all of a small data set, a sample of a large one."""


def compare_images(writer: CacheWriter, planned: Iterable[PlannedView], folder: Path, *, workers: int) -> None:
    """Compare images that committed segments were made from with their files now, `SAMPLE` of them at most.

    Raises:
        UserError: one has other bytes: two runs over different images must not fill one cache.
    """
    recorded: dict[int, int] = {}
    for segment in committed_segments(writer.path):
        record = parse_line(read_line(writer.path, segment) or b"")
        if record is not None:
            recorded |= zip(record.image_ids, record.image_crcs, strict=False)
    writer.image_crcs |= recorded
    images = {view.image.id: view.image for view in planned if view.image.id in recorded}
    step = -(-len(images) // SAMPLE) or 1
    chosen = sorted(images)[::step]
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="compare") as pool:
        crcs = pool.map(lambda key: file_crc32c(image_path(folder, images[key]))[1], chosen)
        changed = [key for key, crc in zip(chosen, crcs, strict=True) if crc != recorded[key]]
    if changed:
        raise UserError(
            f"{image_path(folder, images[changed[0]])} (image {changed[0]}) has other bytes than when {writer.path} "
            f"was begun, as {len(changed)} of {len(chosen)} compared have: --update extracts what has changed; else "
            "bring the files back, or give another --out"
        )
