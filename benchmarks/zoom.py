"""What `head.zoom` gives, and other things that were tried: short `small-data` trainings on real COCO images.

    python benchmarks/zoom.py --work FOLDER [--steps 350] [--only NAME ...] [--full]

Each fourth of the 209 training images is held out, as `dev`: by it the way was chosen. `val`, 206 other images, says
whether that holds. With `--full` heads are trained on all 209 images at the preset's own length, and evaluated on val.
Needs `../shared/real` beside the checkout. Nothing in FOLDER is made twice, so a stopped run goes on. Results:
benchmarks/zoom.json, where `conditions` are those of rows without their own; its rows "not kept" are of trials whose
code went with them (decision 008).
"""

from __future__ import annotations

import argparse
import json
import random
import runpy
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from conditions import conditions
from real_coco import BACKBONE_STRIDES, REAL, VIEWS
from torch import Tensor, nn
from torchvision.transforms import functional as colours

from frozen_cache.cache.reader import CacheReader
from frozen_cache.detectors.stem import Stem
from frozen_cache.evaluation.matched_iou import view_object_ious
from frozen_cache.evaluation.object_iou import edge_iou_by_size, mean_iou_by_size
from frozen_cache.evaluation.segmenters import FeatureSegmenter, read_for
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.norm import group_norm
from frozen_cache.head.zoom import ZoomNeck
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head
from frozen_cache.training.trained_head import load_head

RESULT = Path(__file__).with_suffix(".json")
AS_IT_IS = "maps of the input's own scale"
LEARNED = "zoom of colours: three learned convolutions in place of the stem"
RECOLOURED = "colours of four of five training views drawn anew"
CHANGES: dict[str, dict[str, Any]] = {
    AS_IT_IS: {},
    "another seed": {"seed": 1},
    "C1 and added maps of twice the side": {"head.c1_scale": 2},
    "zoom": {"head.zoom": 128},
    LEARNED: {"head.zoom": 128},
    "dice weighs twice as much": {"loss.dice": 10.0},
    "dice weighs half as much": {"loss.dice": 2.5},
    "256 points, 3 of 4 the most uncertain": {"loss.supervision": "points"},
    "256 points, all at random": {"loss.supervision": "points", "loss.importance": 0.0},
    RECOLOURED: {},
}
HELD_OUT = ("dev", "val")


class LearnedNeck(ZoomNeck):
    """In place of the frozen stem: three 3 x 3 convolutions with GroupNorm on the crops' colours, as wide as the RoI's
    features, to a fourth of the side."""

    def __init__(self, *, channels: int, dim: int) -> None:
        super().__init__(channels=dim, dim=dim)
        layers: list[nn.Module] = []
        for before, stride in ((3, 2), (dim, 2), (dim, 1)):
            layers += [nn.Conv2d(before, dim, 3, stride=stride, padding=1), group_norm(dim), nn.GELU()]
        self.learned = nn.Sequential(*layers)

    def forward(self, rois: Tensor, zoomed: Tensor) -> Tensor:
        """RoI features (N, D, R, R) and colours (N, 3, h, w) to (N, D, R, R)."""
        return super().forward(rois, self.learned(zoomed))


@contextmanager
def no_stem(name: str) -> Iterator[None]:
    """Of `LEARNED`: heads get the crops' own colours, normalised, and `LearnedNeck`."""
    if name != LEARNED:
        yield
        return
    with (
        patch.object(Stem, "of_crops", lambda stem, crops, levels=(): crops),
        patch.object(HeadInputs, "zoom_channels", 3),  # else the run's page counts on the stem's maps
        patch("frozen_cache.head.mask_head.ZoomNeck", LearnedNeck),
    ):
        yield


def recolouring() -> tuple[nn.Module, Any]:
    """The detector, that sees four of five images in other colours: brightness, contrast and saturation times 0.6 to
    1.4, the hue turned by up to 18 degrees; drawn by the image itself. A factory for `--detector`."""
    model, processor = runpy.run_path(str(REAL / "deimv2_atto" / "load.py"))["detector"]()

    def before(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, given | {"pixel_values": torch.stack([in_other_colours(image) for image in given["pixel_values"]])}

    model.register_forward_pre_hook(before, with_kwargs=True)
    return model, processor


def in_other_colours(image: Tensor) -> Tensor:
    """(3, H, W) in 0..1."""
    draw = random.Random(zlib.crc32(image.cpu().contiguous().numpy().data)).random
    if draw() >= 0.8:
        return image
    for change in (colours.adjust_brightness, colours.adjust_contrast, colours.adjust_saturation):
        image = change(image, 0.6 + 0.8 * draw())
    return colours.adjust_hue(image, 0.1 * draw() - 0.05)


def split(work: Path, name: str) -> Path:
    """The annotations of `fit` or `dev`: three of four training images, and each fourth."""
    out = work / f"{name}.json"
    if not out.is_file():
        whole = json.loads((REAL / "coco_mini" / "annotations" / "instances_train2017.json").read_text())
        dev = {image["id"] for image in sorted(whole["images"], key=lambda image: image["id"])[::4]}
        for key, field in (("images", "id"), ("annotations", "image_id")):
            whole[key] = [entry for entry in whole[key] if (entry[field] in dev) == (name == "dev")]
        out.write_text(json.dumps(whole))
    return out


def cache(work: Path, name: str, *, recoloured: bool = False) -> Path:
    """The cache of `fit`, `dev`, `train` (both) or `val`, with images and stem; with maps where the detector saw other
    colours than the images have."""
    out, coco = work / f"{name}-{'recoloured' if recoloured else 'r'}.zarr", REAL / "coco_mini"
    extract_features(
        detector=f"{__file__}:recolouring" if recoloured else f"{REAL / 'deimv2_atto' / 'load.py'}:detector",
        images=coco / ("val2017" if name == "val" else "train2017"),
        annotations=split(work, name)
        if name in ("fit", "dev")
        else coco / "annotations" / f"instances_{name}2017.json",
        out=out,
        views=VIEWS if name in ("fit", "train") else 1,
        backbone_strides=BACKBONE_STRIDES,
        precision="float16",
        c1="stored" if recoloured else "recomputed",
    )
    return out


def measured(run: Path, held_out: Path) -> dict[str, Any]:
    """Mean IoU of a head's masks in the matched boxes of a cache."""
    head, record, _ = load_head(run)
    segmenter = FeatureSegmenter(head, encoder_layer=record.encoder_layer, device=torch.device("cpu"))
    reader = CacheReader(held_out, c1_scale=record.backbone_scale)
    views = (read_for(segmenter, reader, at) for at in range(len(reader)))
    objects = [found for view in views for found in view_object_ious(view, segmenter)]
    near = edge_iou_by_size(objects)["near_edge"]["all"]
    return {"objects": len(objects), "mean_iou": mean_iou_by_size(objects), "near_edge": near}


def row(work: Path, name: str, steps: int) -> dict[str, Any]:
    """One training and its figures."""
    run = work / f"{steps}-{list(CHANGES).index(name)}"
    fit = cache(work, "fit", recoloured=name == RECOLOURED)
    held_out = {part: cache(work, part) for part in HELD_OUT}
    length = {"optim.min_steps": steps, "optim.epochs": 0.01}
    overrides = {"seed": 0} | length | CHANGES[name]
    with no_stem(name):
        result = train_head(cache=fit, out=run, preset="small-data", overrides=overrides, resume=True)
        found = {part: measured(run, path) for part, path in held_out.items()}
    return {
        "what": name,
        "seed": overrides["seed"],
        "set": CHANGES[name],
        "steps": steps,
        "train_seconds": round(result.seconds),
        **found,
        "conditions": conditions(),
    }


def full_row(work: Path, name: str) -> dict[str, Any]:
    """One training of the preset's own length on all the training images, and its evaluation."""
    run = work / f"full-{list(CHANGES).index(name)}"
    train, val = cache(work, "train", recoloured=name == RECOLOURED), cache(work, "val")
    with no_stem(name):
        result = train_head(cache=train, out=run, preset="small-data", overrides=CHANGES[name], resume=True)
        found = evaluate(cache=val, head=run, out=work / f"{run.name}-results")
    return {
        "what": name,
        "set": CHANGES[name],
        "steps": result.steps,
        "train_seconds": round(result.seconds),
        "segm": found.metrics["segm"],
        "boundary_ap": found.metrics["boundary"]["AP"],
        "mean_iou": found.summary["mean_iou"],
        "conditions": conditions(),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--only", nargs="*", choices=list(CHANGES))
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": []}
    for name in given.only or CHANGES:
        if given.full:
            found = full_row(given.work, name)
            print(name, *(f"{key} {value:.4f}" for key, value in found["segm"].items()))
            others = [old for old in report.get("full", []) if old["what"] != name]
            report["full"] = [*others, found]
            RESULT.write_text(json.dumps(report, indent=2) + "\n")
            continue
        found = row(given.work, name, given.steps)
        print(name, *(f"{held_out} {found[held_out]['mean_iou']['all']:.4f}" for held_out in HELD_OUT))
        others = [old for old in report["rows"] if (old["what"], old["steps"]) != (name, given.steps)]
        report["rows"] = [*others, found]
        RESULT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
