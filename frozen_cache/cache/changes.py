"""What has changed in a data set since a cache was made of it: view by view, by the sums in the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.integrity import quick_check
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, read_record
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.data.batches import PlannedView
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.copy_paste import is_pasted
from frozen_cache.data.fingerprint import annotation_sum, truth_sum
from frozen_cache.data.images import image_path
from frozen_cache.durable import file_crc32c
from frozen_cache.errors import UserError
from frozen_cache.progress import progress_bar
from frozen_cache.remote import CachePath

Place = tuple[int, int]
"""(segment, row)."""


@dataclass(frozen=True)
class Changes:
    """The difference between what a cache holds and what it is to hold."""

    new: set[int] = field(default_factory=set)
    """Ids of images that the cache does not know."""
    gone: set[int] = field(default_factory=set)
    other_bytes: set[int] = field(default_factory=set)
    other_annotations: set[int] = field(default_factory=set)
    """Or another size."""
    kept_segments: list[SegmentRecord] = field(default_factory=list)
    """Those of which all views stay."""
    kept_views: list[tuple[PlannedView, Place]] = field(default_factory=list)
    """Views that stay, of other segments."""
    to_extract: list[PlannedView] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Images that differ."""
        return len(self.new | self.gone | self.other_bytes | self.other_annotations)

    def text(self) -> str:
        """For people: `3 images new, 1 gone`."""
        kinds = (
            (self.new, "new"),
            (self.gone, "gone"),
            (self.other_bytes, "with other bytes"),
            (self.other_annotations, "with other annotations"),
        )
        return ", ".join(f"{len(ids):,} {what}" for ids, what in kinds if ids)


def compare_views(
    cache: CachePath, attributes: CacheAttributes, planned: list[PlannedView], folder: Path, *, workers: int
) -> Changes:
    """Compare the views of a cache with those that it is to hold; every image file is read.

    Damaged segments, as far as sizes tell, count as not there, and so do broken images. What is pasted into views is
    drawn from all images, so these are to be extracted again where any image differs, or the cache is a part of others.

    Raises:
        UserError: the cache was made before checksums of images were kept.
    """
    records = [
        read_record(cache, segment, attributes.fingerprint)
        for segment in committed_segments(cache)
        if quick_check(cache, segment, attributes) is None
    ]
    if any(len(record.image_crcs) != len(record.image_ids) for record in records):
        raise UserError(f"{cache} does not know the bytes of its images, as it was made before these were kept")
    crcs = {image: crc for record in records for image, crc in zip(record.image_ids, record.image_crcs, strict=True)}
    broken = {each.image_id for record in records for each in record.broken}
    images = {view.image.id: view.image for view in planned}
    both = [image for key, image in images.items() if key in crcs]
    now = _crcs(both, folder, workers=workers)
    sums = _annotation_sums(cache, attributes, records)
    changes = Changes(
        new=set(images) - set(crcs) - broken,
        gone=set(crcs) - set(images),
        other_bytes={image.id for image in both if crcs[image.id] != now[image.id]},
        other_annotations={image.id for image in both if sums.get(image.id) != annotation_sum(image)},
    )
    edited = changes.other_bytes | changes.other_annotations
    left = {(view.image.id, view.view): view for view in planned}
    redrawn = attributes.copy_paste and (changes.count > 0 or bool(attributes.data.made_by))
    for record in records:
        stay = []
        keys = zip(record.image_ids, record.view_indices, record.resized_sizes, strict=True)
        for row, (image, view, size) in enumerate(keys):
            asked = left.get((image, view))
            known = asked is not None and image not in edited and asked.transform.resized_size == size
            if known and not (redrawn and is_pasted(image, view)):
                stay.append((left.pop((image, view)), (record.segment, row)))
        if len(stay) == len(record.image_ids) and not record.broken:
            changes.kept_segments.append(record)
        else:
            changes.kept_views.extend(stay)
    changes.to_extract.extend(left.values())
    return changes


def _crcs(images: list[CocoImage], folder: Path, *, workers: int) -> dict[int, int]:
    """Image id -> CRC-32C of its file now."""
    with (
        ThreadPoolExecutor(max(1, workers), thread_name_prefix="compare") as pool,
        progress_bar(total=len(images), unit="img", desc="compare", leave=False) as bar,
    ):
        found = {}
        for image, (_, crc) in zip(
            images, pool.map(lambda image: file_crc32c(image_path(folder, image)), images), strict=True
        ):
            found[image.id] = crc
            bar.update()
    return found


def _annotation_sums(cache: CachePath, attributes: CacheAttributes, records: Iterable[SegmentRecord]) -> dict[int, int]:
    """Image id -> its `annotation_sum` when it was extracted: of the ledger, or (format 1) of the stored truth."""
    ids = [category["id"] for category in attributes.categories]
    found: dict[int, int] = {}
    for record in records:
        if record.annotation_sums:
            found |= zip(record.image_ids, record.annotation_sums, strict=True)
            continue
        plain = [row for row, view in enumerate(record.view_indices) if view == 0]
        reader = SegmentReader(cache, record, attributes) if plain else None
        for row in plain:
            assert reader is not None
            view = reader.read(row, layers=(), c1=False).rows
            found[view.image_id] = truth_sum(view.truth, ids, view.transform)
    return found
