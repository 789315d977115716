"""Which segment has which views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.ledger import SegmentRecord, committed_segments, parse_line, read_line
from frozen_cache.data.batches import PlannedView


def deal(planned: list[PlannedView], attributes: CacheAttributes, cache: Path) -> list[list[PlannedView]]:
    """The views of each segment.

    In their order; but the segments of a cache that was updated (`CacheAttributes.segment_views`) have what their lines
    in the ledger say, and those without a readable line share the others in their order.

    Args:
        planned: all views, in the order of the cache.
    """
    if not attributes.segment_views:
        size = attributes.views_per_segment
        return [planned[start : start + size] for start in range(0, len(planned), size)]
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


def dealt_out(views: Iterable[PlannedView], size: int) -> list[list[PlannedView]]:
    """Views in the order of a cache, `size` at a time."""
    ordered = sorted(views, key=_order)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _order(view: PlannedView) -> tuple[tuple[int, int], int, int]:
    return view.transform.resized_size, view.image.id, view.view


def _records(cache: Path, segments: int) -> Iterator[SegmentRecord]:
    for segment in committed_segments(cache) if (cache / "ledger").is_dir() else ():
        record = parse_line(read_line(cache, segment) or b"")
        if record is not None and record.segment == segment < segments:
            yield record
