"""What writing a cache costs beside writing the same bytes as they are.

    python benchmarks/cache_write.py --work FOLDER [--rounds 5] [--only NAME ...]

Views of random maps in H-DETR R50's shapes at the mean size of COCO (`random_cache`), in memory. In each round, in
turn:

`ours`  the views through `CacheWriter`, as extraction writes them: checked, coded where the cache is, read back for
        their sums, flushed, committed.
`raw`   the files that this made, from memory into new files, each flushed.

Ratios are of seconds by the clock and of the process's CPU, medians over the rounds. Results:
benchmarks/cache_write.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from conditions import conditions
from random_cache import random_cache

from frozen_cache.cache.attributes import CacheAttributes, Precision
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.cache.writer import CacheWriter

RESULT = Path(__file__).with_suffix(".json")
GOAL = 0.6
"""Of the raw rate."""
SIZE = (800, 1120)
CASES: dict[str, Precision] = {"float16": "float16", "float32": "float32", "coded": "coded"}
IMAGES = 8


def write_cache(out: Path, attributes: CacheAttributes, views: list[CachedView]) -> None:
    """All segments of a cache."""
    writer = CacheWriter(out, attributes)
    done = 0
    for segment in range(attributes.segment_count):
        count = attributes.views_planned(segment)
        assert writer.claim(segment)
        with writer.segment(segment) as file:
            for view in views[done : done + count]:
                file.append(view, image_crc=0, annotation_sum=0)
        done += count


def write_raw(out: Path, files: dict[str, bytes]) -> None:
    """Plain files, flushed."""
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def spent(action: Callable[[], None]) -> dict[str, float]:
    """Seconds by the clock, and of this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measured(work: Path, precision: Precision, rounds: int) -> dict[str, Any]:
    """One case."""
    made = random_cache(work, shapes="hdetr-r50", size=SIZE, objects=7, images=IMAGES, precision=precision)
    reader = CacheReader(made)
    stored = torch.float32 if precision != "float16" else torch.float16
    views = [reader.read(at, dtype=stored) for at in range(len(reader))]
    out = work / "written"
    times: dict[str, list[dict[str, float]]] = {"ours": [], "raw": []}
    files: dict[str, bytes] = {}
    for turn in range(rounds + 1):
        shutil.rmtree(out, ignore_errors=True)
        ours = spent(partial(write_cache, out, reader.attributes, views))
        if turn == 0:
            files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        shutil.rmtree(out)
        raw = spent(partial(write_raw, out, files))
        if turn > 0:
            times["ours"].append(ours)
            times["raw"].append(raw)
    shutil.rmtree(out)
    size = sum(map(len, files.values())) / 1e6
    median = {
        way: {kind: statistics.median(each[kind] for each in found) for kind in ("wall", "cpu")}
        for way, found in times.items()
    }
    return {
        "precision": precision,
        "views": len(views),
        "mb": round(size, 1),
        "mb_of_maps": round(sum(maps(view, stored) for view in views) / 1e6, 1),
        "seconds": {way: {kind: round(value, 4) for kind, value in found.items()} for way, found in median.items()},
        "mb_a_second": {way: round(size / found["wall"], 1) for way, found in median.items()},
        "of_the_raw_rate": round(median["raw"]["wall"] / median["ours"]["wall"], 2),
        "goal": GOAL,
    }


def maps(view: CachedView, dtype: torch.dtype) -> int:
    """Bytes of a view's maps before they are coded."""
    levels = [level for each in view.encoder.values() for level in each]
    return sum(a_map.numel() * dtype.itemsize for a_map in [*([] if view.c1 is None else [view.c1]), *levels])


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    given = parser.parse_args()
    rows = {row["precision"]: row for row in json.loads(RESULT.read_text())["rows"]} if RESULT.is_file() else {}
    for name in given.only:
        rows[name] = measured(given.work, CASES[name], given.rounds)
        print(json.dumps(rows[name]), flush=True)
        report = {
            "conditions": conditions() | {"rounds": given.rounds, "size": list(SIZE)},
            "rows": list(rows.values()),
        }
        RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
