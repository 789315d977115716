"""What `--c1 stored` and `--c1 recomputed` cost: MB a view, reading, and a training step, on one core.

    python benchmarks/c1_choice.py --work FOLDER [--r50 CACHE] [--views 24] [--steps 12]

With DEIMv2-Atto on coco_mini val (added maps of stride 8 and 16, the image at twice the input size) the small-data
recipe trains a few steps on each; with a cache of cache_size_r50.py (`r50-N.zarr`, C1 recomputed) reading alone is
measured, for H-DETR R50 at 800 / 1333. Caches with stored C1 are written from the recomputed one. Times are CPU seconds
of one thread on a warm disk cache, the median of three passes. Results: benchmarks/c1_choice.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from real_coco import BACKBONE_SCALE, BACKBONE_STRIDES, REAL
from reencode import reencoded

from frozen_cache.cache.reader import CacheReader
from frozen_cache.stages.cache_tools import cache_info
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head

RESULT = Path(__file__).with_suffix(".json")
PASSES = 3


def atto(work: Path, *, views: int) -> dict[str, tuple[Path, int]]:
    """Caches of DEIMv2-Atto, and the scale at which each is read."""
    options: dict[str, Any] = {
        "detector": f"{REAL / 'deimv2_atto' / 'load.py'}:detector",
        "images": REAL / "coco_mini" / "val2017",
        "annotations": REAL / "coco_mini" / "annotations" / "instances_val2017.json",
        "backbone_strides": BACKBONE_STRIDES,
        "limit": views,
        "device": "cpu",
    }
    extract_features(out=work / "atto-stored.zarr", backbone_scale=BACKBONE_SCALE, **options)
    extract_features(out=work / "atto-coded.zarr", backbone_scale=BACKBONE_SCALE, precision="coded", **options)
    extract_features(out=work / "atto-recomputed.zarr", precision="coded", c1="recomputed", **options)
    return {
        "stored, float16": (work / "atto-stored.zarr", BACKBONE_SCALE),
        "stored, coded 1": (work / "atto-coded.zarr", BACKBONE_SCALE),
        "recomputed, coded 1": (work / "atto-recomputed.zarr", BACKBONE_SCALE),
    }


def r50(work: Path, source: Path, *, views: int) -> dict[str, tuple[Path, int]]:
    """The same of H-DETR R50."""
    made = {
        "stored, float16": reencoded(source, work / "r50-f16.zarr", precision="float16", views=views, store_c1=True),
        "stored, coded 1": reencoded(
            source, work / "r50-coded.zarr", precision="coded", step=1, views=views, store_c1=True
        ),
        "recomputed, coded 1": reencoded(source, work / "r50-re.zarr", precision="coded", step=1, views=views),
    }
    return {name: (cache, 1) for name, cache in made.items()}


def row(detector: str, name: str, cache: Path, scale: int, *, steps: int, work: Path) -> dict[str, Any]:
    """MB a view, and CPU seconds."""
    reader = CacheReader(cache, c1_scale=scale)
    found: dict[str, Any] = {
        "detector": detector,
        "c1": name,
        "views": len(reader),
        "mb_per_view": round(cache_info(cache).part_bytes.total() / len(reader) / 1e6, 3),
        "read_ms": round(1e3 * _seconds(lambda at: reader.read_stored(at), len(reader)), 1),
        "read_and_decode_ms": round(1e3 * _seconds(lambda at: reader.read(at), len(reader)), 1),
    }
    if steps:
        short, long = (_training(cache, scale, steps=count, run=work / "run") for count in (2, 2 + steps))
        found |= {"steps": steps, "step_cpu_seconds": round((long - short) / steps, 3)}
    return found


def _training(cache: Path, scale: int, *, steps: int, run: Path) -> float:
    """CPU seconds of a training of the small-data recipe, its start and its end included."""
    shutil.rmtree(run, ignore_errors=True)
    overrides = {"head.c1_scale": scale, "optim.min_steps": steps, "optim.epochs": 1e-3}
    before = time.process_time()
    train_head(cache=cache, out=run, preset="small-data", overrides=overrides, device="cpu", memory_bytes=0)
    return time.process_time() - before


def _seconds(read: Any, views: int) -> float:
    """CPU seconds a view."""
    passes = []
    for _ in range(PASSES):
        before = time.process_time()
        for at in range(views):
            read(at)
        passes.append((time.process_time() - before) / views)
    return statistics.median(passes)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--r50", type=Path)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = [
        row("deimv2-atto, 2 x", name, cache, scale, steps=given.steps, work=given.work)
        for name, (cache, scale) in atto(given.work, views=given.views).items()
    ]
    if given.r50 is not None:
        rows += [
            row("hdetr-r50", name, cache, scale, steps=0, work=given.work)
            for name, (cache, scale) in r50(given.work, given.r50, views=min(8, given.views)).items()
        ]
    report = {"rows": rows, "cores": os.cpu_count(), "torch": torch.__version__}
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    for each in rows:
        print(each)
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
