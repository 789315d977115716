"""What an extraction will do, as a table: printed before every run, and all that `--dry-run` does."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from dataclasses import replace

from frozen_cache.byte_counts import byte_text
from frozen_cache.cache.ledger import committed_segments
from frozen_cache.cache.quantise import coded_bits
from frozen_cache.data.batches import PlannedView
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath, RemotePath
from frozen_cache.stages.extract_plan import ExtractPlan
from frozen_cache.stages.labels_table import label_lines
from frozen_cache.stages.maps_text import c1_text, levels_text

BITS = {"float16": 16, "float32": 32, "int8": 8}
"""Of a stored value, at most; of coded ones `coded_bits` has an estimate."""


def plan_table(plan: ExtractPlan) -> str:
    """Images, objects, classes and their labels, repairs, maps, bytes and space: lines for people."""
    attributes = plan.attributes
    counts = attributes.data.counts
    spec = attributes.detector
    size, free = planned_bytes(plan, plan.planned), free_bytes(plan.out)
    per_view = size / max(1, len(plan.planned))
    lines = [
        f"data      {attributes.data.annotations}: {len(plan.found.images):,} images"
        + (f" ({len(plan.found.missing)} without a file left out)" if plan.found.missing else "")
        + f", {counts.objects:,} objects, {counts.crowds:,} crowds",
        *(f"          {line}" for line in counts.lines()),
        f"detector  {spec.name} ({spec.family}), on {plan.device}",
        f"maps      C1: {c1_text(attributes)}",
        f"          encoder layers {', '.join(map(str, spec.encoder_layers)) or 'none'}: {levels_text(attributes)}",
        f"space     {byte_text(per_view)} a view, {len(plan.planned):,} views, about {byte_text(size)} "
        f"({attributes.precision})" + ("" if free is None else f"; {byte_text(free)} free"),
        *_c1_advice(plan, size),
        "labels    detector's label -> category (objects)",
        *label_lines(attributes),
    ]
    return "\n".join(lines)


def _c1_advice(plan: ExtractPlan, size: int) -> list[str]:
    """A line where most of the cache would be a C1 that need not be stored."""
    attributes = plan.attributes
    without = planned_bytes(replace(plan, attributes=attributes.model_copy(update={"c1": "none"})), plan.planned)
    files = sum(plan.found.file_sizes[image.id] for image in plan.found.images)
    offers = callable(getattr(plan.detector, "stem", None))
    if not attributes.stores_c1 or not offers or without + files > size / 2:
        return []
    c1 = (size - without) / len(plan.planned)
    return [
        f"          C1 is {byte_text(c1)} of it: --c1 recomputed keeps image files, "
        f"{byte_text(files / len(plan.found.images))} each"
    ]


def planned_bytes(plan: ExtractPlan, views: Iterable[PlannedView]) -> int:
    """Bytes of some of the plan's views, by arithmetic from the shapes of their maps; of coded ones an upper bound as a
    rule (`coded_bits`). Ground truth, checksums and indexes are left out: a percent or so."""
    attributes = plan.attributes
    spec = attributes.detector
    step, packed = attributes.step, attributes.packing == "nibbles"
    bits = BITS[attributes.precision] if step is None else coded_bits(step, packed=packed)
    rows = attributes.top_k * (6 + spec.query_dim) * 4
    levels = [level for at, level in enumerate(spec.encoder_levels) if at not in attributes.recomputed_levels]
    total = 0 if attributes.stem is None else attributes.stem.weights_bytes
    kept: set[int] = set()
    for view in views:
        height, width = view.transform.resized_size
        maps = [*([spec.c1] if attributes.stores_c1 and spec.c1 else []), *(levels * len(spec.encoder_layers))]
        if attributes.stem is not None and view.image.id not in kept:
            kept.add(view.image.id)
            total += plan.found.file_sizes[view.image.id]
        values = sum(each.channels * -(-height // each.stride) * -(-width // each.stride) for each in maps)
        total += rows + math.ceil(values * bits / 8)
    return total


def free_bytes(out: CachePath) -> int | None:
    """Free space where the cache will lie; None for object stores, which have no such number."""
    if isinstance(out, RemotePath):
        return None
    folder = next(parent for parent in [out, *out.absolute().parents] if parent.exists())
    return shutil.disk_usage(folder).free


def open_views(plan: ExtractPlan, *, linked: int = 0) -> list[PlannedView]:
    """The views of segments that are still to be written.

    Args:
        linked: the first segments that take no room.
    """
    done = {*range(linked), *(committed_segments(plan.out) if (plan.out / "ledger").is_dir() else ())}
    return [
        view
        for segment in range(plan.attributes.segment_count)
        if segment not in done
        for view in plan.views_of(segment)
    ]


def refuse_too_little_space(plan: ExtractPlan, needed: float, *, force: bool) -> None:
    """UserError where the disk cannot hold the bytes that are still to be written."""
    free = free_bytes(plan.out)
    if free is not None and needed > free and not force:
        raise UserError(
            f"{plan.out} needs up to {byte_text(needed)} more, {byte_text(free)} are free: make room, or take "
            "--precision coded, --c1 recomputed, --limit, fewer --views, another --out; --force goes on"
        )
