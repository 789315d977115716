"""What each choice of the `small-data` preset gives: the preset with one thing changed at a time, on real COCO images.

    python benchmarks/small_data.py --work FOLDER [--epochs 1] [--only NAME ...]

Shorter trainings than the preset's own, one seed, gauged by the mean IoU of the masks in matched boxes: at this length
AP moves by 0.003 from one seed to the next. Shares FOLDER with real_coco.py and goes on where it stopped; the preset at
its own length, 2 epochs, is that program's seed 0. Results: benchmarks/small_data.json; rows of other lengths stay.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from real_coco import BACKBONE_SCALE, VIEWS, caches, mean_iou, run_folder

from frozen_cache.stages.train import train_head
from frozen_cache.training.config import exact_epochs, load_config

RESULT = Path(__file__).with_suffix(".json")
REAL_COCO = RESULT.with_name("real_coco.json")

PRESET = "small-data preset"
OWN_SCALE = "backbone maps of the input's own scale"
CHANGES: dict[str, dict[str, Any]] = {
    PRESET: {},
    OWN_SCALE: {},
    "RoIs: matched boxes only": {"rois.overlapping_iou": None, "rois.ground_truth": False, "rois.jitter": 0.0},
    "RoIs no larger than their boxes": {"head.roi_scale": 1.0},
    "the query not added to the RoI": {"head.query_in_roi": False},
    "finest level only": {"head.fused_levels": 1},
    "no feature dropout": {"head.feature_dropout": 0.0},
    "no moving average of the weights": {"optim.ema_decay": None},
    "only the plain view, as many steps": {"views": 1},
    "no box encoder": {"head.box_encoder": "none", "head.box_layers": 0},
    "with mask scoring": {"head.mask_scoring": True},
    "the paper's weight decay": {"optim.weight_decay": 5e-5},
    "256 sampled points": {"loss.supervision": "points"},
    "box encoder: two ConvNeXt layers": {"head.box_encoder": "convnext", "head.box_layers": 2},
}


def measured(work: Path, name: str, epochs: float) -> dict[str, Any]:
    """One training and the mean IoU of its masks."""
    if name == PRESET and epochs == load_config(preset="small-data").optim.epochs:
        whole = json.loads(REAL_COCO.read_text())["runs"]
        run = next(run for run in whole if run["recipe"] == "small-data" and run["seed"] == 0)
        return row(name, epochs, run["mean_iou"], run["train_minutes"])
    train, val = caches(work, backbone_scale=1 if name == OWN_SCALE else BACKBONE_SCALE)
    passes = epochs * (VIEWS if "views" in CHANGES[name] else 1)
    run = run_folder(work / "small_data", f"{name} {epochs:g}", 0)
    result = train_head(
        cache=train,
        out=run,
        preset="small-data",
        overrides={**exact_epochs(passes), **CHANGES[name]},
        resume=True,
    )
    file = run.with_name(f"{run.name}.json")
    if not file.is_file():
        file.write_text(json.dumps(round(mean_iou(run, val), 4)))
    return row(name, epochs, json.loads(file.read_text()), round(result.seconds / 60, 1))


def row(name: str, epochs: float, iou: float, minutes: float) -> dict[str, Any]:
    """A line of the result."""
    return {"change": name, "set": CHANGES[name], "epochs": epochs, "mean_iou": iou, "train_minutes": minutes}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", choices=list(CHANGES))
    given = parser.parse_args()
    report: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": []}
    report["conditions"] = {"seed": 0, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    for name in given.only or CHANGES:
        found = measured(given.work, name, given.epochs)
        print(f"{name}: mean IoU {found['mean_iou']:.4f}")
        others = [old for old in report["rows"] if (old["change"], old["epochs"]) != (name, given.epochs)]
        report["rows"] = sorted(
            [*others, found], key=lambda line: (line["epochs"], list(CHANGES).index(line["change"]))
        )
        RESULT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
