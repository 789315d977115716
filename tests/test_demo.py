"""The whole job through the real command line, on the embedded data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

FROZEN_CACHE = Path(sys.executable).with_name("frozen-cache")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FROZEN_CACHE, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_the_demo_reaches_what_it_promises(demo):
    summary = json.loads((demo / "summary.json").read_text())
    assert summary["box_ap"] >= 0.60
    assert summary["mask_ap"] >= 0.80 * summary["box_ap"]
    assert summary["mask_ap"] >= 2 * summary["training_free_ap"]
    assert summary["mask_ap"] > summary["box_baseline_ap"]
    assert summary["extract_s"] > 0
    assert summary["train_s"] > 0


def test_the_demo_makes_a_gallery(demo):
    with Image.open(demo / "gallery.png") as picture:
        assert min(picture.size) > 500


def test_a_second_demo_finds_everything_done_and_says_the_same(demo):
    before = json.loads((demo / "summary.json").read_text())
    assert run("demo", "--out", demo).returncode == 0
    assert json.loads((demo / "summary.json").read_text()) == before


def test_the_demo_s_caches_verify_and_describe_themselves(demo):
    for split in ("train", "val"):
        assert run("cache", "verify", demo / f"{split}.zarr").returncode == 0
    assert "segments" in run("cache", "info", demo / "val.zarr").stdout


@pytest.mark.parametrize("row", ["", "-no-c1", "-whole-image", "-whole-image-no-c1"])
def test_each_row_of_table_1_can_be_evaluated(demo, tmp_path, row):
    done = run("evaluate", "--cache", demo / "val.zarr", "--baseline", f"training-free{row}", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 < metrics["segm"]["AP50"] < metrics["bbox"]["AP50"]


def test_an_ablation_of_table_3_runs_on_the_demo_s_caches(demo, tmp_path):
    quick = ["--preset", "demo", "--epochs", "0.05"]
    quick += ["--set", "head.width=16", "--set", "head.roi_size=16", "--set", "head.image_layers=0"]
    done = run(
        "ablate", "--cache", demo / "train.zarr", "--val-cache", demo / "val.zarr",
        "--grid", "table3", "--out", tmp_path / "table3", *quick,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    table = (tmp_path / "table3" / "table.md").read_text()
    assert table.count("\n| ") == 10  # the head of the table and nine variants
    assert (tmp_path / "table3" / "plot.png").is_file()
    assert (tmp_path / "table3" / "table.csv").is_file()


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    done = run("demo", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters.txt"]
