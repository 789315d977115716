"""Which segment has which views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, parse_line, read_line
from frozen_cache.data.batches import PlannedView
from frozen_cache.remote import CachePath


def deal(planned: list[PlannedView], attributes: CacheAttributes, cache: CachePath) -> list[list[PlannedView]]:
    """The views of each segment.

    In their order; but the segments of a cache that was updated (`CacheAttributes.segment_views`) have what their lines
    in the ledger say, and those without a readable line share the others in their order.

    Args:
        planned: all views, in the order of the cache.
    """
    if not attributes.segment_views:
        return _cut(planned, attributes.views_per_segment)
    left = {(view.image.id, view.view): view for view in planned}
    dealt: list[list[PlannedView]] = [[] for _ in attributes.segment_views]
    records = list(_records(cache, len(dealt)))
    for record in records:
        keys = zip(record.image_ids, record.view_indices, strict=True)
        dealt[record.segment] = [left.pop(key) for key in keys if key in left]
    for record in records:  # broken images have no views in the line
        for broken in record.broken:
            lost = attributes.segment_views[record.segment] - len(dealt[record.segment])
            of_image = [key for key in left if key[0] == broken.image_id]
            dealt[record.segment] += [left.pop(key) for key in of_image[:lost]]
    others = iter(left.values())
    for segment, views in enumerate(dealt):
        views += islice(others, max(0, attributes.segment_views[segment] - len(views)))
        views.sort(key=_order)
    return dealt


def in_order(views: Iterable[PlannedView], *, whole_images: bool) -> list[PlannedView]:
    """Views in the order in which a cache deals them out: by size, so that batches fill up, then by image and view.

    Args:
        whole_images: where a segment keeps the files of its images: all views of an image, by the size of the first,
            follow each other, so that the file need not lie in several segments.
    """
    views = sorted(views, key=lambda view: (view.image.id, view.view))
    sizes: dict[int, tuple[int, int]] = {}
    for view in views:
        sizes.setdefault(view.image.id, view.transform.resized_size)
    return sorted(views, key=(lambda view: sizes[view.image.id]) if whole_images else _order)


def dealt_out(views: Iterable[PlannedView], attributes: CacheAttributes) -> list[list[PlannedView]]:
    """Views in the order of a cache, as many at a time as a segment has."""
    return _cut(in_order(views, whole_images=attributes.stem is not None), attributes.views_per_segment)


def _cut(ordered: list[PlannedView], size: int) -> list[list[PlannedView]]:
    """`size` at a time, each segment by the size of its views."""
    return [sorted(ordered[start : start + size], key=_order) for start in range(0, len(ordered), size)]


def _order(view: PlannedView) -> tuple[tuple[int, int], int, int]:
    return view.transform.resized_size, view.image.id, view.view


def _records(cache: CachePath, segments: int) -> Iterator[SegmentRecord]:
    for segment in committed_segments(cache) if (cache / "ledger").is_dir() else ():
        record = parse_line(read_line(cache, segment) or b"")
        if record is not None and record.segment == segment < segments:
            yield record
