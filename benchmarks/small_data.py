"""What each choice of the `small-data` preset gives: the preset with one thing changed at a time, on real COCO images.

    python benchmarks/small_data.py --work FOLDER [--epochs 1] [--only NAME ...]

Shorter trainings than the preset's own, one seed: differences of mask AP below about 0.003 are noise; the mean IoU of
the masks in matched boxes is steadier. Shares FOLDER with real_coco.py and goes on where it stopped.
Results: benchmarks/small_data.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from real_coco import BACKBONE_SCALE, caches, trained

RESULT = Path(__file__).with_suffix(".json")

OWN_SCALE = "backbone maps of the input's own scale"
CHANGES: dict[str, dict[str, Any]] = {
    "small-data preset": {},
    OWN_SCALE: {},
    "only the plain view, as many steps": {"views": 1},
    "RoIs: matched boxes only": {"rois.overlapping_iou": None, "rois.ground_truth": False, "rois.jitter": 0.0},
    "RoIs no larger than their boxes": {"head.roi_scale": 1.0},
    "the query not added to the RoI": {"head.query_in_roi": False},
    "no feature dropout": {"head.feature_dropout": 0.0},
    "finest level only": {"head.fused_levels": 1},
    "256 sampled points": {"loss.supervision": "points"},
    "with mask scoring": {"head.mask_scoring": True},
    "no moving average of the weights": {"optim.ema_decay": None},
    "the paper's weight decay": {"optim.weight_decay": 5e-5},
    "no box encoder": {"head.box_encoder": "none", "head.box_layers": 0},
    "box encoder: two ConvNeXt layers": {"head.box_encoder": "convnext", "head.box_layers": 2},
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", choices=list(CHANGES))
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in given.only or CHANGES:
        train, val = caches(given.work, backbone_scale=1 if name == OWN_SCALE else BACKBONE_SCALE)
        epochs = given.epochs * (10 if "views" in CHANGES[name] else 1)
        overrides = {"optim.epochs": epochs, **CHANGES[name]}
        rows.append(trained(given.work / "small_data", train, val, name, overrides, 0) | {"set": CHANGES[name]})
        print(f"{name}: mask AP {rows[-1]['segm']['AP']:.4f}, mean IoU {rows[-1]['mean_iou']:.4f}")
    report = {
        "conditions": {"epochs": given.epochs, "seed": 0, "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "rows": rows,
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
