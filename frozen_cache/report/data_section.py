"""What a page says of the data behind a cache, and of the head: objects by class, what was repaired, settings, cost."""

from __future__ import annotations

from typing import Any

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.head.describe import describe_head
from frozen_cache.report.page import Block, Facts, Section, Table
from frozen_cache.training.trained_head import HeadRecord

MANY = 15
"""More rows than so many are folded."""


def data_section(attributes: CacheAttributes) -> Section:
    """How many objects of each class there are, and what the checks of the annotations repaired or left out."""
    data, counts = attributes.data, attributes.data.counts
    names = {entry["id"]: entry["name"] for entry in attributes.categories}
    ranked = sorted(counts.per_category.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [[names.get(category, str(category)), f"{number:,}"] for category, number in ranked if number]
    blocks: list[Block] = []
    if rows:
        caption = f"{counts.objects:,} objects of {len(rows)} classes, {counts.crowds:,} crowds"
        blocks.append(Table(["class", "objects"], rows, caption=caption, folded=len(rows) > MANY))
    checks = [(what, number) for number, what in (line.split(" ", 1) for line in counts.lines())]
    checks += [("masks made by a model", str(by)) for by in data.masks_from]
    if data.missing:
        checks.append(("annotated images without a file, left out", f"{len(data.missing):,}"))
    if checks:
        blocks.append(Facts(checks))
    images = attributes.views_total // attributes.views
    many = "a view" if attributes.views == 1 else f"{attributes.views} views"
    text = f"{images:,} images of {data.annotations}, {many} of each. "
    text += "What was repaired or left out:" if checks else "The checks found nothing to repair or to leave out."
    return Section("data", "Data", blocks, text)


def head_facts(
    record: HeadRecord, *, image_size: tuple[int, int], boxes: int, seconds_a_view: float | None
) -> list[Block]:
    """Size, cost and every setting of a head.

    Args:
        image_size: (height, width) of the detector's input that the cost is stated for.
        boxes: detections in it.
        seconds_a_view: by the clock; None where no view was worked off.
    """
    cost = describe_head(config=record.head, inputs=record.inputs, image_size=image_size, boxes=boxes)
    facts = [
        ("parameters", f"{cost.parameters:,}"),
        ("multiply-adds", f"{cost.macs / 1e9:.2f} G for {image_size[0]} x {image_size[1]} pixels and {boxes} boxes"),
    ]
    if seconds_a_view is not None:
        facts.append(("seconds a view", f"{seconds_a_view:.3f}"))
    config = [(key, str(value)) for key, value in flat(record.settings())]
    return [Facts(facts), Facts(config, folded="Every setting")]


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (dotted key, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found
