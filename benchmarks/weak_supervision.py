"""What is left of mask AP where the training images have boxes alone, or 10 points an object, in place of masks.

    python benchmarks/weak_supervision.py --work FOLDER --train TRAIN.zarr --val VAL.zarr [--only NAME ...] [--seed 0]
    python benchmarks/weak_supervision.py --work FOLDER --train TRAIN.zarr --guesses 4

TRAIN.zarr is of coco_mini's training images, with its masks and with the images in it:

    frozen-cache extract-features --detector ../shared/real/deimv2_atto/load.py:detector --views 10 --c1 recomputed
        --backbone-strides 8,16 --images .../train2017 --annotations .../instances_train2017.json --out TRAIN.zarr

VAL.zarr as `benchmarks/real_coco.py` makes it. Points are drawn as PointSup does: at random in the box, told by the
mask to be in or out. With `--maps CACHE`, of the same views with stored maps, these are read in place of being made
from the images in every step, which halves the time. A second round trains on the masks that the first one's head
makes (`cache relabel --masks-from`). Everything lies in FOLDER and is not made twice. With `--guesses` nothing is
trained: the guesses at so many RoIs of each plain view are compared with the true masks.
Results: benchmarks/weak_supervision.json; its `choice` is of trials by which the losses were chosen (decision 009).
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from conditions import conditions
from pycocotools import mask as coco_mask
from real_coco import REAL
from torch import Tensor

from frozen_cache.boxes import enlarged, to_pixels
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.stored_map import StoredView
from frozen_cache.data.segmentation import segmentation_to_rle
from frozen_cache.data.supervision import NO_POINT, Supervision
from frozen_cache.masks.crop import crop_masks
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.train import TrainResult, train_head
from frozen_cache.training.config import load_config
from frozen_cache.training.rois import training_rois
from frozen_cache.training.weak_targets import WeakCollector

RESULT = Path(__file__).with_suffix(".json")
SIDE = 32
"""R of the guesses that are compared."""
TRUTH = REAL / "coco_mini" / "annotations" / "instances_train2017.json"
POINTS = 10
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "masks": ("masks", {}),
    "10 points": ("points", {}),
    "10 points, no guess": ("points", {"loss.guess": 0.0}),
    "boxes": ("boxes", {}),
    "boxes, no guess": ("boxes", {"loss.guess": 0.0}),
}
"""Name -> what the annotations have, and settings beside the preset's."""
SECOND = {"10 points, second round": "10 points", "boxes, second round": "boxes"}
"""Name -> the variant whose head makes the masks of the objects, on which this one is trained as on drawn ones."""


def weakened(work: Path, kind: str, *, seed: int) -> Path:
    """The training annotations with points or boxes in place of masks; crowds stay as they are."""
    content = json.loads(TRUTH.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    rng = np.random.default_rng(seed)
    for entry in content["annotations"]:
        if entry["iscrowd"] or kind == "masks":
            continue
        height, width = sizes[entry["image_id"]]
        mask = coco_mask.decode(segmentation_to_rle(entry.pop("segmentation"), height=height, width=width))
        if kind == "points":
            x, y, box_width, box_height = entry["bbox"]
            places = rng.random((POINTS, 2)) * [box_width, box_height] + [x, y]
            columns, rows = np.minimum(places.astype(int), [width - 1, height - 1]).T
            entry |= {"point_coords": places.tolist(), "point_labels": mask[rows, columns].tolist()}
    path = work / f"{kind}.json"
    path.write_text(json.dumps(content))
    return path


class WithMaps:
    """A view source: the views of a cache, in the order of another of the same views and with its stored maps."""

    has_pictures = True

    def __init__(self, cache: Path, maps: Path) -> None:
        self._own, self._maps = CacheReader(cache), CacheReader(maps)
        places = {key: at for at, key in enumerate(self._own.views)}
        self._places = [places[key] for key in self._maps.views]
        self.views = self._maps.views
        self.attributes = self._maps.attributes.model_copy(update={"data": self._own.attributes.data})
        self.resized_size, self.head_inputs = self._maps.resized_size, self._maps.head_inputs

    def matched(self, index: int) -> int:
        """As the cache."""
        return self._own.matched(self._places[index])

    def pixels(self, index: int, view: StoredView) -> Tensor | None:
        """As the cache."""
        return self._own.pixels(self._places[index], view)

    def read_stored(self, index: int, **options: Any) -> StoredView:
        """The other's maps with all else of the cache."""
        own = self._own.read_stored(self._places[index], encoder_layers=(), c1=False)
        return replace(self._maps.read_stored(index, **options), rows=own.rows)


def annotated(work: Path, kind: str, *, train: Path) -> tuple[Path, int]:
    """The training cache with points or boxes in place of masks, and its objects."""
    cache = work / f"{kind}.zarr"
    return cache, cache_relabel(train, annotations=weakened(work, kind, seed=0), out=cache).objects


def relabelled(work: Path, first: str, *, train: Path, maps: Path | None, seed: int) -> tuple[Path, int]:
    """The same with masks by the head of another variant, which is trained where it is not yet."""
    kind, settings = VARIANTS[first]
    cache, _ = annotated(work, kind, train=train)
    head = trained(work, first, cache, settings, maps=maps, seed=seed)
    out = work / f"{kind}-second-{seed}.zarr"
    return out, cache_relabel(cache, out=out, masks_from=str(head.out), device="cpu").objects


def trained(
    work: Path, name: str, cache: Path, settings: dict[str, Any], *, maps: Path | None, seed: int
) -> TrainResult:
    """One training, gone on with where it stopped."""
    overrides = {"head.c1_scale": 2 if maps is None else None, "seed": seed} | settings
    with (
        nullcontext()
        if maps is None
        else patch("frozen_cache.stages.train_source.CacheReader", lambda path, c1_scale: WithMaps(path, maps))
    ):
        return train_head(
            cache=cache, out=folder_of(work, name, seed) / "run", preset="small-data", overrides=overrides, resume=True
        )


def folder_of(work: Path, name: str, seed: int) -> Path:
    """Of a training and its results."""
    return work / f"{name.replace(' ', '-').replace(',', '')}-{seed}"


def measured(work: Path, name: str, *, train: Path, val: Path, maps: Path | None, seed: int) -> dict[str, Any]:
    """One training and its evaluation."""
    settings: dict[str, Any] = {}
    if name in SECOND:
        cache, objects = relabelled(work, SECOND[name], train=train, maps=maps, seed=seed)
    else:
        kind, settings = VARIANTS[name]
        cache, objects = annotated(work, kind, train=train)
    result = trained(work, name, cache, settings, maps=maps, seed=seed)
    found = evaluate(cache=val, head=result.out, out=folder_of(work, name, seed) / "results")
    return {
        "supervision": name,
        "seed": seed,
        "objects": objects,
        "train_minutes": round(result.seconds / 60, 1),
        "segm": found.metrics["segm"],
        "boundary_ap": found.metrics["boundary"]["AP"],
        "mean_iou": found.summary["mean_iou"]["all"],
        "settings": settings,
        "maps": "made in every step" if maps is None else stored_as(maps),
    }


def stored_as(maps: Path) -> str:
    """In what numbers the maps of a cache are, in words."""
    attributes = CacheReader(maps).attributes
    return f"stored, {attributes.precision}" + ("" if attributes.step is None else f", step {attributes.step:g}")


def guesses(work: Path, *, train: Path, rois: int) -> dict[str, Any]:
    """Mean IoU of guesses with the true masks, in RoIs as `small-data` draws them; by how many points are seen."""
    pointed = cache_relabel(train, annotations=weakened(work, "points", seed=0), out=work / "points.zarr").out
    config = load_config(preset="small-data", overrides={"rois.max_per_image": rois})
    truth, weak = CacheReader(train), CacheReader(pointed)
    places = {key: at for at, key in enumerate(weak.views)}
    found: dict[str, list[Tensor]] = {}
    for index, (image, number) in enumerate(truth.views):
        view = truth.read_stored(index, encoder_layers=(), c1=False)
        chosen = training_rois(view.rows, config.rois, generator=torch.Generator().manual_seed(index))
        if number or not len(chosen.rows):
            continue
        known = weak.read_stored(places[image, 0], encoder_layers=(), c1=False).rows.truth
        boxes = enlarged(chosen.boxes, config.head.roi_scale)
        corners = to_pixels(boxes, view.rows.transform.crop_size)
        true = crop_masks(view.rows.truth.masks, objects=chosen.objects, boxes=corners, side=SIDE)
        for name, points, shown in (
            ("ellipses", 0, False),
            ("colours", 0, True),
            ("colours and a point", 1, True),
            ("colours and 3 points", 3, True),
            (f"colours and {POINTS} points", POINTS, True),
            (f"{POINTS} points, no colours", POINTS, False),
        ):
            collector = WeakCollector(room=POINTS, pictures=shown, colours=False, side=SIDE)
            collector.add(
                replace(known, supervision=first_points(known.supervision, points)),
                chosen.objects,
                rois=boxes,
                corners=corners,
                targets=true,
                pixels=partial(truth.pixels, index, view),
            )
            guess = collector.targets().guess
            assert guess is not None
            one, other = guess > 0.5, true > 0.5
            shares = (one & other).sum((1, 2)) / (one | other).sum((1, 2)).clamp(min=1)
            found.setdefault(name, []).append(shares[other.any((1, 2))])
    return {name: round(torch.cat(parts).mean().item(), 4) for name, parts in found.items()} | {
        "objects": len(torch.cat(found["ellipses"]))
    }


def first_points(known: Supervision | None, count: int) -> Supervision:
    """The same with so many points of each object alone."""
    assert known is not None
    points = known.with_room(POINTS).points.copy()
    points[:, count:, 2] = NO_POINT
    return replace(known, points=points)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--val", type=Path)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--only", nargs="*", choices=[*VARIANTS, *SECOND])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guesses", type=int, help="RoIs of each view")
    given = parser.parse_args()
    if given.val is None and given.guesses is None:
        parser.error("give --val, or --guesses")
    given.work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": []}
    report["conditions"] = {
        "recipe": "small-data, backbone maps of twice the scale",
        "detector": "DEIMv2-Atto",
        "train_images": 209,
        "val_images": 206,
        "points": f"{POINTS} an object, seed 0",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if given.guesses is not None:
        report["guesses"] = guesses(given.work, train=given.train, rois=given.guesses) | {"conditions": conditions()}
        print(json.dumps(report["guesses"], indent=2))
        RESULT.write_text(json.dumps(report, indent=2) + "\n")
        return
    rows = {(row["supervision"], row["seed"], row.get("guess")): row for row in report["rows"]}
    for name in given.only or (*VARIANTS, *SECOND):
        rows[name, given.seed, None] = measured(
            given.work, name, train=given.train, val=given.val, maps=given.maps, seed=given.seed
        )
        print(f"{name}: mask AP {rows[name, given.seed, None]['segm']['AP']:.4f}", flush=True)
        report["rows"] = list(rows.values())
        RESULT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
