"""The whole job on embedded data: scenes, a small trained detector, its cache, a mask head, pictures."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frozen_cache.cache.reader import CacheReader
from frozen_cache.demo import DETECTOR_DIR, write_scenes
from frozen_cache.errors import UserError
from frozen_cache.evaluation.truth import truth_annotations
from frozen_cache.finite_json import write_finite_json
from frozen_cache.ownership import Ownership, content_names
from frozen_cache.pictures import GalleryRow, save_gallery
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.predict import predict
from frozen_cache.stages.predict_request import check_request
from frozen_cache.stages.train import train_head

TRAIN_IMAGES, VAL_IMAGES = 240, 60
TRAIN_SEED, VAL_SEED, NEW_SEED = 20_000, 30_000, 40_007
"""Other seeds than the detector's training and test scenes."""
GALLERY_ROWS, GALLERY_SCORE = 5, 0.5


@dataclass(frozen=True)
class DemoSummary:
    """What `summary.json` holds. AP in 0..1 on the unseen scenes, times in seconds."""

    box_ap: float
    mask_ap: float
    training_free_ap: float
    box_baseline_ap: float
    extract_s: float
    train_s: float

    def table(self) -> str:
        """The figures as text."""
        rows = [
            ("box AP of the frozen detector", f"{self.box_ap:.3f}"),
            (
                "mask AP of the trained head",
                f"{self.mask_ap:.3f}  ({self.mask_ap / max(self.box_ap, 1e-9):.2f} of box AP)",
            ),
            ("mask AP, training-free baseline", f"{self.training_free_ap:.3f}"),
            ("mask AP, filled boxes", f"{self.box_baseline_ap:.3f}"),
            ("seconds to extract", f"{self.extract_s:.0f}"),
            ("seconds to train", f"{self.train_s:.0f}"),
        ]
        return "\n".join(f"{name:34}{value}" for name, value in rows)


def run_demo(*, out: Path) -> DemoSummary:
    """Run all stages into `out`; what an earlier run finished there is kept and used."""
    with Ownership(out):
        return _run_demo(out)


def _run_demo(out: Path) -> DemoSummary:
    marker = out / "demo.json"
    if content_names(out) and not marker.is_file():
        raise UserError(f"--out {out} exists and is not a demo folder: choose another path")
    marker.write_text(json.dumps({"train_seed": TRAIN_SEED, "val_seed": VAL_SEED}) + "\n")
    times = _times(out)
    for split, images, seed in (("train", TRAIN_IMAGES, TRAIN_SEED), ("val", VAL_IMAGES, VAL_SEED)):
        write_scenes(out / split, images=images, seed=seed)
        started = time.perf_counter()
        extract_features(
            detector=f"hf:{DETECTOR_DIR}",
            images=out / split / "images",
            annotations=out / split / "annotations.json",
            out=out / f"{split}.zarr",
        )
        times.setdefault(f"extract_{split}_s", time.perf_counter() - started)
        _save_times(out, times)
    trained = train_head(cache=out / "train.zarr", out=out / "head", preset="demo", resume=True)
    baselines = [out / f"results-{name}" for name in ("training-free", "box")]
    results = {
        name: evaluate(cache=out / "val.zarr", out=out / f"results-{name}", overwrite=True, **what).metrics
        for name, what in (
            ("training-free", {"baseline": "training-free"}),
            ("box", {"baseline": "box"}),
            ("head", {"head": out / "head", "others": baselines}),
        )
    }
    summary = DemoSummary(
        box_ap=results["head"]["bbox"]["AP"],
        mask_ap=results["head"]["segm"]["AP"],
        training_free_ap=results["training-free"]["segm"]["AP"],
        box_baseline_ap=results["box"]["segm"]["AP"],
        extract_s=round(times["extract_train_s"] + times["extract_val_s"], 1),
        train_s=round(trained.seconds, 1),
    )
    write_finite_json(out / "summary.json", asdict(summary), indent=2)
    _gallery(out)
    write_scenes(out / "new", images=1, seed=NEW_SEED)
    request = check_request(inputs=[str(out / "new" / "images")], out=out / "masks", overwrite=True)
    predict(request, model=out / "head", threshold=GALLERY_SCORE)
    return summary


def new_picture(out: Path) -> Path:
    """Where a demo left its masks on a picture that was in neither set."""
    return next((out / "masks" / "overlays").iterdir())


def _times(out: Path) -> dict[str, float]:
    """The time that each extraction took when it ran: a second demo run finds nothing to extract."""
    file = out / "times.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _save_times(out: Path, times: dict[str, float]) -> None:
    write_finite_json(out / "times.json", times)


def _gallery(out: Path) -> None:
    reader = CacheReader(out / "val.zarr")
    files = {image["id"]: image["file_name"] for image in _read_json(out / "val" / "annotations.json")["images"]}
    categories = [category["id"] for category in reader.attributes.categories]
    boxes = _read_json(out / "results-head" / "bbox_results.json")
    masks = _read_json(out / "results-head" / "segm_results.json")
    rows = []
    for at in range(GALLERY_ROWS):
        view = reader.read(at, encoder_layers=(), c1=False)
        with Image.open(out / "val" / "images" / files[view.image_id]) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        # Both files list the same pairs in the same order.
        found = [
            mask | {"bbox": box["bbox"], "score": box["score"]}
            for box, mask in zip(boxes, masks, strict=True)
            if box["image_id"] == view.image_id and box["score"] >= GALLERY_SCORE
        ]
        rows.append(GalleryRow(pixels=pixels, found=found, truth=truth_annotations(view, categories)))
    names = {category["id"]: category["name"] for category in reader.attributes.categories}
    save_gallery(out / "gallery.png", rows, names=names)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())
