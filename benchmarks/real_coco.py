"""Mask AP on real data: heads trained on 209 COCO images, measured on 206 others, the detector being DEIMv2-Atto.

    python benchmarks/real_coco.py --work FOLDER [--seeds 0,1,2] [--only NAME ...]

Needs `../shared/real` beside the checkout. Everything lies in FOLDER and is not made twice, so a stopped run goes on.
Results: benchmarks/real_coco.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
from pathlib import Path
from typing import Any

import torch

from frozen_cache.cache.attributes import C1Choice, Precision
from frozen_cache.cache.reader import CacheReader
from frozen_cache.evaluation.matched_iou import matched_iou
from frozen_cache.evaluation.segmenters import FeatureSegmenter
from frozen_cache.stages.baselines import BASELINES
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.extract_summary import ExtractSummary
from frozen_cache.stages.train import train_head
from frozen_cache.training.trained_head import load_head

REAL = Path(__file__).parents[2] / "shared" / "real"
RESULT = Path(__file__).with_suffix(".json")
VIEWS = 10
BACKBONE_STRIDES, BACKBONE_SCALE = (8, 16), 2
MASK_RCNN: dict[str, Any] = {
    "head.roi_size": 14,
    "head.roi_sampling": 2,
    "head.width": 128,
    "head.box_encoder": "fcn",
    "head.box_layers": 4,
    "head.mask_head": "fcn",
    "head.query_blocks": [],
    "head.query_layers": 0,
    "head.query_in_roi": False,
}
"""Mask R-CNN's head (4 convolutions, deconvolution, 28 x 28, one mask for all classes) in the same recipe."""

PASTED = "small-data, copy-paste"
"""On views with pasted objects, in coded maps (of float16 it would be another 17 GB, and these cost no AP:
cache_size.json)."""
RECIPES: dict[str, dict[str, Any]] = {
    "small-data": {},
    "Mask R-CNN FCN head": MASK_RCNN,
    PASTED: {},
}


def extract(
    out: Path,
    split: str,
    *,
    views: int,
    backbone_scale: int = BACKBONE_SCALE,
    precision: Precision = "float16",
    step: float | None = None,
    c1: C1Choice = "stored",
    copy_paste: bool = False,
) -> ExtractSummary:
    """The cache of the train or val images."""
    return extract_features(
        detector=f"{REAL / 'deimv2_atto' / 'load.py'}:detector",
        images=REAL / "coco_mini" / f"{split}2017",
        annotations=REAL / "coco_mini" / "annotations" / f"instances_{split}2017.json",
        out=out,
        views=views,
        backbone_strides=BACKBONE_STRIDES,
        backbone_scale=backbone_scale,
        precision=precision,
        step=step,
        c1=c1,
        copy_paste=copy_paste,
    )


def caches(work: Path, *, backbone_scale: int = BACKBONE_SCALE) -> tuple[Path, Path]:
    """The caches of the train images (several views) and of the val images."""
    train, val = (work / f"{split}-{backbone_scale}x.zarr" for split in ("train", "val"))
    extract(train, "train", views=VIEWS, backbone_scale=backbone_scale)
    extract(val, "val", views=1, backbone_scale=backbone_scale)
    return train, val


def pasted_cache(work: Path) -> Path:
    """The cache of the train images with objects of others pasted into half of the views."""
    out = work / f"train-pasted-{BACKBONE_SCALE}x.zarr"
    extract(out, "train", views=VIEWS, precision="coded", step=1.0, copy_paste=True)
    return out


def run_folder(work: Path, recipe: str, seed: int) -> Path:
    """Where a training and its results lie."""
    return work / re.sub("[^a-z0-9]+", "-", recipe.lower()) / f"seed{seed}"


def baseline(work: Path, val: Path, name: str) -> dict[str, Any]:
    """Metrics of what needs no training."""
    out = work / f"baseline-{name}"
    if not (out / "metrics.json").is_file():
        evaluate(cache=val, baseline=name, out=out)
    return json.loads((out / "metrics.json").read_text())


def mean_iou(run: Path, val: Path) -> float:
    """Mean IoU of a head's masks in the matched boxes."""
    head, record, _ = load_head(run)
    segmenter = FeatureSegmenter(head, encoder_layer=record.encoder_layer, device=torch.device("cpu"))
    return matched_iou(CacheReader(val, c1_scale=record.backbone_scale), segmenter)


def trained(work: Path, train: Path, val: Path, name: str, overrides: dict[str, Any], seed: int) -> dict[str, Any]:
    """One training and its evaluation."""
    folder = run_folder(work, name, seed)
    result = train_head(
        cache=train, out=folder / "run", preset="small-data", overrides=overrides | {"seed": seed}, resume=True
    )
    measured = folder / "measured.json"
    if not measured.is_file():
        head, _, _ = load_head(folder / "run")
        metrics = evaluate(cache=val, head=folder / "run", out=folder / "results").metrics
        measured.write_text(
            json.dumps(
                {
                    "parameters": sum(parameter.numel() for parameter in head.parameters()),
                    "mean_iou": round(mean_iou(folder / "run", val), 4),
                    "segm": metrics["segm"],
                    "bbox": metrics["bbox"],
                }
            )
        )
    return {
        "recipe": name,
        "seed": seed,
        "train_minutes": round(result.seconds / 60, 1),
    } | json.loads(measured.read_text())


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and range of mask AP over the seeds of each recipe."""
    rows = []
    for name in dict.fromkeys(run["recipe"] for run in runs):
        aps = [run["segm"]["AP"] for run in runs if run["recipe"] == name]
        rows.append(
            {
                "recipe": name,
                "seeds": len(aps),
                "mask_ap_mean": round(statistics.mean(aps), 4),
                "mean_iou": round(statistics.mean(run["mean_iou"] for run in runs if run["recipe"] == name), 4),
                "mask_ap_min": min(aps),
                "mask_ap_max": max(aps),
            }
        )
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", nargs="*", choices=list(RECIPES))
    given = parser.parse_args()
    train, val = caches(given.work)
    baselines = {name: baseline(given.work, val, name) for name in BASELINES}
    runs: list[dict[str, Any]] = []
    for seed in map(int, given.seeds.split(",")):
        for name in given.only or RECIPES:
            views = pasted_cache(given.work) if name == PASTED else train
            runs.append(trained(given.work, views, val, name, RECIPES[name], seed))
            print(f"{name}, seed {seed}: mask AP {runs[-1]['segm']['AP']:.4f}")
            write(val, baselines, runs)
    print(f"box AP {baselines['box']['bbox']['AP']:.4f}")
    for name, metrics in baselines.items():
        print(f"{name} baseline: mask AP {metrics['segm']['AP']:.4f}")
    for row in summary(runs):
        print(row)
    print(f"written to {RESULT}")


def write(val: Path, baselines: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """Keep what has been measured so far."""
    size = sum(file.stat().st_size for file in val.rglob("*") if file.is_file())
    report = {
        "conditions": {
            "detector": "DEIMv2-Atto",
            "train_images": 209,
            "views": VIEWS,
            "backbone_scale": BACKBONE_SCALE,
            "val_images": len(CacheReader(val)),
            "bytes_per_view": size // len(CacheReader(val)),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        },
        "baselines": baselines,
        "summary": summary(runs),
        "runs": runs,
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
