"""Every row of the paper's tables has the command that gives ours, in the paper's order."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from paper_tables import BESIDE_GRIDS, commands

from frozen_cache.head.paper_rows import PAPER_ROWS
from frozen_cache.training.config import load_config
from frozen_cache.training.grid import load_grid


@pytest.fixture(scope="module")
def tables(shared: Path) -> dict[str, Any]:
    return tomllib.loads((shared / "paper_tables.toml").read_text())


def test_every_row_of_every_table_has_a_command(tables: dict[str, Any]) -> None:
    assert sorted(tables, key=lambda name: int(name[5:])) == [f"table{number}" for number in range(1, 17)]
    found = commands(tables)
    assert len(found) == sum(len(table["rows"]) for table in tables.values())
    others = [entry for entry in found if not entry["command"].startswith("frozen-cache ")]
    assert {entry["command"] for entry in others} == {"another method"}
    assert not any(entry["row"]["method"].startswith("Mask Frozen") for entry in others)


def test_rows_whose_size_is_printed_stand_in_the_paper_s_order(tables: dict[str, Any]) -> None:
    for number in (2, 3, 4, 5, 9, 12, 15):
        table = tables[f"table{number}"]
        flops, millions = table["columns"].index("flops"), table["columns"].index("params")
        printed = [(row[flops], row[millions]) for row in table["rows"]][len(BESIDE_GRIDS.get(f"table{number}", [])) :]
        assert [(row.gmacs, row.millions) for row in PAPER_ROWS if row.table == str(number)] == printed


def test_table_6_adds_one_thing_after_the_other(tables: dict[str, Any]) -> None:
    grid = load_grid("table6")
    for variant, row in zip(grid.variants(), tables["table6"]["rows"], strict=True):
        config = load_config(preset=grid.preset, overrides=variant.set)
        assert [config.head.neck, config.loss.supervision == "points", config.head.mask_scoring] == row[:3]


@pytest.mark.parametrize(("table", "key"), [("table10", "epochs"), ("table13", "batch_size")])
def test_recipes_vary_what_their_table_varies(tables: dict[str, Any], table: str, key: str) -> None:
    grid = load_grid(table)
    configs = [load_config(preset=grid.preset, overrides=variant.set) for variant in grid.variants()]
    assert [getattr(config.optim, key) for config in configs] == [row[0] for row in tables[table]["rows"]]


def test_live_tables_vary_jitter_and_the_parts_that_train_along(tables: dict[str, Any]) -> None:
    def configs(name: str) -> list[Any]:
        grid = load_grid(name)
        return [load_config(preset=grid.preset, overrides=variant.set) for variant in grid.variants()]

    assert [config.live.lsj for config in configs("table11")] == [row[0] for row in tables["table11"]["rows"]]
    detectors = {"H-DETR R50": "hdetr-r50", "H-DETR Swin-L": "hdetr-swin-l", "DINO FocalNet-L": "dino-focalnet-l"}
    found = [entry for entry in commands(tables) if entry["table"] == "16"]
    assert all(f"--detector {detectors[entry['row']['detector']]} " in entry["command"] for entry in found)
    # The more trains, the longer it takes, and a head without encoders takes less than one with them.
    for name, rows in (("table16", slice(0, 5)), ("table16-large", slice(5, 8)), ("table16-large", slice(8, 11))):
        parts = [len(config.live.unfreeze) for config in configs(name)]
        hours = [row[2] for row in tables["table16"]["rows"][rows]]
        encoders = [config.head.box_encoder != "none" for config in configs(name)]
        assert parts == ([0, 2, 3, 2, 3] if name == "table16" else [0, 2, 3]) and hours == sorted(hours)
        assert encoders == ([True, False, False, True, True] if name == "table16" else [True] * 3)
