"""The published rows that a result on COCO may be put beside."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from frozen_cache.cache.attributes import Category
from frozen_cache.evaluation.coco import METRICS
from frozen_cache.report.cells import percent
from frozen_cache.report.page import Table

COCO_IMAGES = 5000
"""Of val2017."""


@dataclass(frozen=True)
class PublishedRow:
    """One method; values in 0..1, None where the paper gives none."""

    name: str
    split: str
    box_ap: float | None
    metrics: dict[str, float | None]
    """AP, AP50, AP75, APs, APm, APl of masks."""


def published_rows(categories: list[Category]) -> list[PublishedRow]:
    """The rows for a data set of COCO's 80 categories; none for any other."""
    if len(categories) != 80 or {"person", "toothbrush"} - {category["name"] for category in categories}:
        return []
    content = tomllib.loads((resources.files("frozen_cache") / "report" / "published.toml").read_text(encoding="utf-8"))
    rows = []
    for split in ("val2017", "test-dev2017"):
        for name, values in content[split].items():
            known = [None if value < 0 else value / 100 for value in values]
            metrics = dict(zip(content["columns"][1:], known[1:], strict=True))
            rows.append(PublishedRow(name=name, split=split, box_ap=known[0], metrics=metrics))
    return rows


def published_table(name: str, metrics: dict[str, Any], categories: list[Category]) -> Table | None:
    """A result on top of the published ones; None for other data than COCO's.

    Args:
        metrics: `segm` and `bbox` -> METRICS.
    """
    published = published_rows(categories)
    if not published:
        return None
    own = [name, "this data", percent(metrics["bbox"]["AP"]), *(percent(metrics["segm"][key]) for key in METRICS)]
    others = [
        [row.name, row.split, percent(row.box_ap), *(percent(row.metrics[key]) for key in METRICS)] for row in published
    ]
    return Table(["", "on", "box AP", *METRICS], [own, *others], caption="Beside published results", strong=0)
