"""The whole job through the real command line, on the embedded data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

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


def test_the_demo_ends_with_a_report_and_masks_on_a_picture_of_neither_set(demo):
    page = (demo / "results-head" / "report.html").read_text()
    assert page.count("AP, ") >= 2 and "results-training-free" in page and "results-box" in page
    [scene] = (demo / "new" / "images").iterdir()
    for split in ("train", "val"):
        others = [path.read_bytes() for path in (demo / split / "images").iterdir()]
        assert scene.read_bytes() not in others
    [overlay] = (demo / "masks" / "overlays").iterdir()
    with Image.open(overlay) as drawn, Image.open(scene) as original:
        assert drawn.size == original.size
        changed = np.abs(np.asarray(drawn, dtype=float) - np.asarray(original.convert("RGB"), dtype=float)).max(axis=2)
    assert (changed > 60).mean() > 0.02
    truth = COCO(demo / "new" / "annotations.json")
    found = json.loads((demo / "masks" / "segm_results.json").read_text())
    masks = [result["segmentation"] for result in found]
    things = [truth.annToRLE(thing) for thing in truth.anns.values()]
    assert np.median(coco_mask.iou(masks, things, [0] * len(things)).max(axis=0)) > 0.6


def test_a_second_demo_finds_everything_done_and_says_the_same(demo):
    before = json.loads((demo / "summary.json").read_text())
    done = run("demo", "--out", demo)
    assert done.returncode == 0
    said = done.stdout.splitlines()
    assert Path(said[-2].split(": ")[1]).is_file() and Path(said[-1].split(": ")[1]).is_file()
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
    assert table.count("\n| ") == 11  # the head of the table and ten variants
    assert (tmp_path / "table3" / "plot.png").is_file()
    assert (tmp_path / "table3" / "table.csv").is_file()


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    done = run("demo", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters.txt"]
