"""Which views test-time augmentation has, chosen by box AP on coco_mini's training images, and what it costs.

    python benchmarks/tta.py [--limit N]
    python benchmarks/tta.py --cost RUN [--pictures 20] [--rounds 3]
    python benchmarks/tta.py --demo DEMO-OUT

The detector (DEIMv2-Atto, trained on COCO) sees each of the 209 training images in every view that is compared; the
package's own `fuse` fuses them, no mask is made. With `--cost` nothing is chosen: `predict` segments val images by the
head of RUN, plain, as the mean over three views and with `--tta`, in turn, by CPU time; medians over rounds.
`--demo` measures the demo's head on its 60 unseen scenes, without and with `--tta`: another detector, a small D-FINE.
Results: benchmarks/tta.json (decision 012).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from conditions import conditions
from pycocotools.coco import COCO
from real_coco import REAL

from frozen_cache.boxes import to_pixels
from frozen_cache.cache.view import CachedView
from frozen_cache.data.coco import CocoImage, read_coco
from frozen_cache.data.images import plain_reader
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.tta import TTA_VIEWS, tta_view
from frozen_cache.data.view import ViewTransform
from frozen_cache.data.views import apply_view, make_view
from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.detectors.run import run_detector
from frozen_cache.detectors.selection import select_pairs
from frozen_cache.evaluation.coco import coco_metrics
from frozen_cache.evaluation.fusion import fuse
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features

RESULT = Path(__file__).with_suffix(".json")
CPU = torch.device("cpu")
TILES = (0.5, 0.6, 0.7, 0.8)
OVERLAPS = (0.45, 0.55, 0.65, 0.75)
RANDOM = "two random views, as they are cached for training"


def sets() -> dict[str, list[str]]:
    """Name of a choice -> the views beside the plain one."""
    found: dict[str, list[str]] = {"plain view alone": [], "mirrored": ["mirrored"], RANDOM: ["random 1", "random 2"]}
    for side in TILES:
        tiles = [f"tile {side} {place}" for place in range(5)]
        found[f"four tiles of {side}"] = tiles[:4]
        found[f"mirrored, four tiles of {side}"] = ["mirrored", *tiles[:4]]
        found[f"mirrored, five tiles of {side}"] = ["mirrored", *tiles]
    return found


def transforms(detector: FrozenDetector, image: CocoImage) -> dict[str, ViewTransform]:
    """All views of an image by name."""
    rule, size = detector.spec.input, (image.height, image.width)
    found = {"plain": tta_view(rule, size, view_index=0), "mirrored": tta_view(rule, size, view_index=1)}
    for number in (1, 2):
        found[f"random {number}"] = make_view(rule, size, image_id=image.id, view_index=number)
    for side in TILES:
        with patch("frozen_cache.data.tta.TILE", side):
            for place in range(TTA_VIEWS - 2):
                found[f"tile {side} {place}"] = tta_view(rule, size, view_index=2 + place)
    return found


def detections(detector: FrozenDetector, image: CocoImage, folder: Path) -> dict[str, CachedView]:
    """What the detector finds in each view; labels are its own, queries and maps are left out."""
    picture = plain_reader().read(folder / image.file_name)
    views = transforms(detector, image)
    pixels = torch.stack([apply_view(picture, view, detector.spec.input) for view in views.values()]).float()
    output = run_detector(detector, pixels, device=CPU)
    found = {}
    for at, (name, transform) in enumerate(views.items()):
        pairs = select_pairs(output.scores[at], k=detector.spec.top_k)
        found[name] = CachedView(
            image_id=image.id,
            view=0,
            transform=transform,
            selected=len(pairs.scores),
            queries=torch.zeros(len(pairs.scores), 1),
            boxes=output.boxes[at][pairs.query_index],
            scores=pairs.scores,
            labels=output.labels[pairs.column],
            c1=None,
            encoder={},
            truth=GroundTruth.none(),
        )
    return found


def box_ap(views: Sequence[dict[str, CachedView]], names: Sequence[str], truth: COCO) -> dict[str, float]:
    """COCO's box metrics of the views of these names, fused with the plain one."""
    categories = sorted(truth.cats)
    results = []
    for image in views:
        found = fuse(image["plain"], [image[name] for name in names])
        corners = to_pixels(found.boxes, found.transform.original_size)
        sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
        rows = zip(sides.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        results += [
            {"image_id": found.image_id, "category_id": categories[label], "bbox": box, "score": score}
            for box, score, label in rows
        ]
    metrics = coco_metrics(truth, results, kind="bbox")
    return {key: round(metrics[key], 4) for key in ("AP", "AP50", "AP75", "APs", "APm", "APl")}


def choose(limit: int | None) -> dict[str, Any]:
    """Box AP of every choice of views, and of the overlap from which boxes are fused."""
    folder = REAL / "coco_mini" / "train2017"
    annotations = REAL / "coco_mini" / "annotations" / "instances_train2017.json"
    detector = load_detector(f"{REAL / 'deimv2_atto' / 'load.py'}:detector")
    images = read_coco(annotations).images[:limit]
    views = [detections(detector, image, folder) for image in images]
    truth = COCO(str(annotations))
    rows = []
    for name, others in sets().items():
        rows.append({"views": name, "passes": 1 + len(others), "box": box_ap(views, others, truth)})
        print(rows[-1], flush=True)
    chosen = ["mirrored", *(f"tile 0.6 {place}" for place in range(5))]
    overlaps = []
    for overlap in OVERLAPS:
        with patch("frozen_cache.evaluation.fusion.SAME_IOU", overlap):
            overlaps.append({"same_iou": overlap, "box": box_ap(views, chosen, truth)})
        print(overlaps[-1], flush=True)
    return {"images": len(images), "of": "coco_mini train", "views": rows, "overlaps": overlaps} | conditions()


def cost(run: Path, pictures: int, rounds: int) -> dict[str, Any]:
    """CPU seconds a picture of ways to predict, over those of the plain one."""
    files = sorted((REAL / "coco_mini" / "val2017").iterdir())[:pictures]
    ways: dict[str, dict[str, Any]] = {"plain": {}, "views": {"views": 3}, "tta": {"tta": True}}
    segmenters = {name: InstanceSegmenter.load(run, device="cpu", **options) for name, options in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, segmenter in segmenters.items():
            started = time.process_time()
            for file in files:
                segmenter(file)
            if number:  # the first warms up
                seconds[name].append((time.process_time() - started) / len(files))
    median = {name: statistics.median(each) for name, each in seconds.items()}
    ratios = {name: round(value / median["plain"], 2) for name, value in median.items()}
    print(ratios)
    return {"pictures": len(files), "threshold": 0.3, "over_plain": ratios, "passes": TTA_VIEWS} | conditions()


def demo(folder: Path) -> dict[str, Any]:
    """The demo's head on its unseen scenes, plain and with all views fused."""
    found: dict[str, Any] = {"scenes": len(json.loads((folder / "val" / "annotations.json").read_text())["images"])}
    with tempfile.TemporaryDirectory() as place:
        cache = Path(place) / "val.zarr"
        extract_features(
            detector=f"hf:{DETECTOR_DIR}",
            images=folder / "val" / "images",
            annotations=folder / "val" / "annotations.json",
            out=cache,
            tta=True,
        )
        for name, tta in (("plain", False), ("tta", True)):
            metrics = evaluate(cache=cache, head=folder / "head", tta=tta, out=Path(place) / name, device="cpu").metrics
            found[name] = {f"{kind}_ap": round(metrics[kind]["AP"], 4) for kind in ("segm", "bbox", "boundary")}
            print(name, found[name], flush=True)
    return found | conditions()


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--cost", type=Path)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    report = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    if given.demo is not None:
        report["demo"] = demo(given.demo)
    elif given.cost is not None:
        report["cost"] = cost(given.cost, given.pictures, given.rounds)
    else:
        report["choice"] = choose(given.limit)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
