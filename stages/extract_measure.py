"""What an extraction will take, from views that were extracted: its own first segment, or for `--dry-run` a few views.

Bytes by arithmetic (`planned_bytes`) are exact for plain numbers, and an estimate for compressed ones; time is known
to nobody beforehand. The first segment of an extraction is measured while it goes on: it is a segment like any other,
so nothing is extracted twice, and no byte of the cache depends on it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from frozen_cache.byte_counts import byte_text
from frozen_cache.cache.changes import Changes
from frozen_cache.cache.ledger import read_record
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.data.batches import PlannedView
from frozen_cache.progress import say, showing
from frozen_cache.stages.extract_plan import ExtractPlan
from frozen_cache.stages.extract_table import free_bytes, open_views, planned_bytes, refuse_too_little_space

MEASURED_FROM = 256
"""Views still to be extracted from which what they will take is worth a line."""
LEAST_SAMPLE, MOST_SAMPLE = 4, 32
"""Views that a dry run extracts."""

Extract = Callable[[CacheWriter, ExtractPlan], object]
"""Extracts all that a plan has."""


@dataclass(frozen=True)
class Measured:
    """What a few views took."""

    views: int
    bytes: int
    scale: float
    """Bytes on disk for each that arithmetic foretold."""
    seconds_per_pixel: float
    """Of the detector's input."""

    def text(self, *, size: float, views: list[PlannedView], free: int | None) -> str:
        """Two lines for people.

        Args:
            size: bytes that are to be written.
            views: that are to be extracted.
        """
        seconds = self.seconds_per_pixel * _pixels(views)
        return (
            f"measured  {byte_text(self.bytes / self.views)} a view ({self.views} views)\n"
            f"          {len(views):,} views to extract: {byte_text(size)}"
            + ("" if free is None else f" of {byte_text(free)} free")
            + f", about {_duration(seconds)}"
        )


class FirstSegment:
    """Watches an extraction, and once its first segment stands in the ledger tells what the others will take."""

    def __init__(self, plan: ExtractPlan, pending: list[int], *, force: bool) -> None:
        """
        Args:
            pending: segments that this process is to extract, in its order.
            force: go on where the disk is too small.
        """
        self._plan, self._pending, self._force = plan, pending, force
        self._started = time.perf_counter()
        self._warm: list[PlannedView] = []
        self._told = False

    def added(self, views: list[PlannedView]) -> None:
        """Views have been through detector and writer; the clock starts after the first, which warm up the device."""
        if not self._warm:
            self._started, self._warm = time.perf_counter(), views

    def committed(self, segment: int) -> None:
        """A segment is whole.

        Raises:
            UserError: the disk cannot hold the rest, as the first segment shows; what is written stays.
        """
        if self._told:
            return
        self._told = True
        views = self._plan.views_of(segment)
        left = [view for other in self._pending if other != segment for view in self._plan.views_of(other)]
        seconds, pixels = time.perf_counter() - self._started, _pixels(views) - _pixels(self._warm)
        record = read_record(self._plan.out, segment, self._plan.attributes.fingerprint)
        written, size = len(record.image_ids), sum(size for size, _ in record.files.values())
        if len(left) < MEASURED_FROM or not written or not pixels:
            return
        found = Measured(
            views=written,
            bytes=size,
            scale=size / written * len(views) / planned_bytes(self._plan, views),
            seconds_per_pixel=seconds / pixels,
        )
        needed = planned_bytes(self._plan, open_views(self._plan)) * found.scale
        say(found.text(size=needed, views=left, free=free_bytes(self._plan.out)))
        refuse_too_little_space(self._plan, needed, force=self._force)


def sample_text(
    plan: ExtractPlan, to_write: list[PlannedView], changes: Changes | None, mine: range, extract: Extract
) -> str:
    """For a dry run: a few views extracted to a folder that is thrown away, one of them before the clock starts.

    They come from the middle, where sizes are neither the least nor the greatest.

    Args:
        to_write: views of segments that are still open.
        mine: this process's segments.

    Returns:
        A line that begins with its break; empty where there is nothing to extract, or nothing that can be read.
    """
    own = {(view.image.id, view.view) for segment in mine for view in plan.views_of(segment)}
    own -= {(view.image.id, view.view) for view, _ in changes.kept_views} if changes else set()
    views = [view for view in to_write if (view.image.id, view.view) in own]
    count = min(len(views), MOST_SAMPLE, max(LEAST_SAMPLE, 2 * plan.attributes.batch_size))
    first = (len(views) - count) // 2
    sample = views[first : first + count]
    if not sample:
        return ""
    with tempfile.TemporaryDirectory(prefix="frozen-cache-") as folder, showing("off"):
        _extract_to(Path(folder) / "first.zarr", plan, sample[:1], extract)
        started = time.perf_counter()
        written, size = _extract_to(Path(folder) / "sample.zarr", plan, sample, extract)
        seconds = time.perf_counter() - started
    if not written:
        return ""
    found = Measured(
        views=written,
        bytes=size,
        scale=size / written * len(sample) / planned_bytes(plan, sample),
        seconds_per_pixel=seconds / _pixels(sample),
    )
    needed = planned_bytes(plan, to_write) * found.scale
    return f"\n{found.text(size=needed, views=views, free=free_bytes(plan.out))}"


def _extract_to(out: Path, plan: ExtractPlan, views: list[PlannedView], extract: Extract) -> tuple[int, int]:
    """(views, bytes) that were written."""
    attributes = plan.attributes.model_copy(
        update={"views_total": len(views), "views_per_segment": len(views), "segment_views": ()}
    )
    writer = CacheWriter(out, attributes)
    try:
        extract(writer, replace(plan, out=out, planned=views, dealt=[views], attributes=attributes))
        record = read_record(out, 0, attributes.fingerprint)
    finally:
        writer.close()
    return len(record.image_ids), sum(size for size, _ in record.files.values())


def _pixels(views: list[PlannedView]) -> int:
    return sum(view.transform.resized_size[0] * view.transform.resized_size[1] for view in views)


def _duration(seconds: float) -> str:
    """`40 seconds`, `35 minutes`, `7.5 hours`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
