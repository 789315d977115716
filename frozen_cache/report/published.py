"""The published rows that a result on COCO may be put beside."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

from frozen_cache.cache.attributes import Category

COCO_IMAGES = {"val2017": 5000}


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
    content = tomllib.loads((resources.files("frozen_cache") / "report" / "published.toml").read_text())
    rows = []
    for split in ("val2017", "test-dev2017"):
        for name, values in content[split].items():
            known = [None if value < 0 else value / 100 for value in values]
            metrics = dict(zip(content["columns"][1:], known[1:], strict=True))
            rows.append(PublishedRow(name=name, split=split, box_ap=known[0], metrics=metrics))
    return rows
