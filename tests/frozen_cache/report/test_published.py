"""The published rows are the paper's, all of them, and stand in the table of what is compared."""

from __future__ import annotations

import tomllib
from pathlib import Path

from frozen_cache.cache.attributes import Category
from frozen_cache.evaluation.bootstrap import Interval
from frozen_cache.evaluation.coco import METRICS
from frozen_cache.evaluation.compare import Compared
from frozen_cache.report.published import published_rows
from frozen_cache.report.result_sections import comparison_table

NAMES = ["person", *(f"thing {number}" for number in range(2, 80)), "toothbrush"]
COCO: list[Category] = [{"id": at, "name": name} for at, name in enumerate(NAMES, 1)]
COLUMNS = ("AP", "AP50", "AP75", "APS", "APM", "APL")


def of(table: dict, row: list) -> tuple:
    """One row of the paper's tables as (method, backbone, with Objects365, box AP, AP ... APL), None where no value."""
    entry = dict(zip(table["columns"], row, strict=True))
    values = [None if entry[key] == "-" else entry[key] for key in ("box_AP", *COLUMNS)]
    return entry["method"], entry["backbone"], entry["objects365"], *values


def test_every_row_of_tables_7_and_8_is_there(shared: Path) -> None:
    paper = tomllib.loads((shared / "paper_tables.toml").read_text())
    for table, split in (("table7", "val2017"), ("table8", "test-dev2017")):
        found = []
        for row in published_rows(COCO):
            if row.split == split:
                method, backbone, *objects365 = row.name.split(", ")
                values = [row.box_ap, *(row.metrics[name] for name in METRICS)]
                rounded = [None if value is None else round(100 * value, 1) for value in values]
                found.append((method, backbone, bool(objects365), *rounded))
        assert found == [of(paper[table], row) for row in paper[table]["rows"]]


def test_what_is_compared_and_the_published_rows_are_one_table() -> None:
    metrics = dict.fromkeys(METRICS, 0.4)
    ap = Interval(0.4, 0.3, 0.5)
    compared = [
        Compared("run", metrics, ap, None, {}),
        Compared("other.json", metrics, ap, Interval(-0.1, -0.2, 0.0), {}),
    ]
    table = comparison_table(compared, published_rows(COCO))
    assert all(len(row) == len(table.head) for row in table.rows)
    assert [row[0] for row in table.rows[:2]] == ["run", "other.json"] and table.strong == 0
    assert len(table.rows) == 2 + 13 + 7 and "published" in table.caption
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["other.json"][-3:] == ["30.0 to 50.0", "-10.0", "-20.0 to +0.0"]
    assert rows["Mask DINO, R50 (val2017)"] == ["46.0", "68.9", "50.3", "26.0", "49.3", "65.5", "", "", ""]
    assert rows["SOLQ, Swin-L (test-dev2017)"] == ["46.7", "–", "–", "29.2", "50.1", "60.9", "", "", ""]
    assert published_rows(COCO[:79]) == []
    assert comparison_table(compared).rows == table.rows[:2]
