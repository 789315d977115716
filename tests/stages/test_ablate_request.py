"""A mistake in what is asked of ablate is found before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frozen_cache.errors import UserError
from frozen_cache.head.paper_rows import PAPER_ROWS
from frozen_cache.stages.ablate import ablate
from frozen_cache.stages.ablate_request import check_request
from frozen_cache.training.grid import PAPER_TABLES


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "gpu"}, "--device gpu: no such device"),
        (
            {"grid": "table22"},
            r"no grid `table22` \(did you mean table2.*: known are points, table2, .*table9, table10, ",
        ),
        ({"preset": "papr"}, "no preset `papr`"),
        ({"overrides": {"head.widht": 3}}, "did you mean head.width"),
        ({"overrides": {"optim.epochs": float("nan")}}, "optim.epochs"),
    ],
)
def test_a_mistake_leaves_nothing_behind(scene_cache: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"cache": scene_cache, "val_cache": scene_cache, "grid": "table2", "out": tmp_path / "out"}
    with pytest.raises(UserError, match=says):
        ablate(**asked | options)
    assert not (tmp_path / "out").exists()


def test_overrides_lie_over_every_variant_and_a_preset_under_them(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text('title = "t"\n[base]\nseed = 3\n[product]\n"head.width" = [64, 96]\n')
    asked = check_request(grid=str(file), preset="small-data", overrides={"seed": 5})
    assert asked.grid.preset == "small-data"
    assert [variant.set for variant in asked.variants] == [
        {"seed": 5, "head.width": 64},
        {"seed": 5, "head.width": 96},
    ]
    assert [(config.seed, config.head.width, config.head.box_encoder) for config in asked.configs] == [
        (5, 64, "unet"),
        (5, 96, "unet"),
    ]


def test_the_paper_s_tables_have_the_names_of_their_rows() -> None:
    assert list(dict.fromkeys(row.table for row in PAPER_ROWS)) == list(PAPER_TABLES)
