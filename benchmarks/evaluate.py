"""What evaluation costs: the whole of it before and now, its parts, and what it keeps of 5,000 images.

    python benchmarks/evaluate.py --cache val.zarr --head RUN [--before CHECKOUT [--head-before RUN]] [--rounds 3]
    python benchmarks/evaluate.py --paper FOLDER [--before CHECKOUT] [--rounds 3]
    python benchmarks/evaluate.py --memory

The first: COCO metrics of a head, and of filled boxes (no network, so what is left is reading, pasting, run lengths
and matching), each in a process of its own: seconds of the clock, and of the processor with those of the worker
processes, which hardly feel who else uses the machine. With `--before`, an older checkout of this repository takes
turns with this one, and the ratios are printed; both compute the same metrics where both have boundary AP.
`--head-before` is the run as the older checkout can read it: its run.json without the keys that came later. Then the
parts, in processor seconds of one process and one thread, as images a second, and what the head would take if the core
spent its whole matrix rate on it, in float32 and bf16: the floor under any evaluation that makes all masks. The second
compares likewise, for the paper's final head (Table 6) with random weights on random maps of H-DETR R50 at 800 x 1120,
which FOLDER holds or gets: what it costs does not depend on the numbers. The third: 1,000 and 5,000 synthetic images of
100 detections and 7 objects are scored; the resident memory that remains is compared. Each keeps its figures in
evaluate.json; the others' stay.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from conditions import commit, conditions
from pycocotools import mask as coco_mask

RESULT = Path(__file__).with_suffix(".json")
ROOT = Path(__file__).parents[1]
WHOLE = """
import json, os, sys, time
from pathlib import Path
from frozen_cache.stages.evaluate import evaluate
try:  # as the console command does, where it does
    from frozen_cache.freed_memory import keep_freed_memory
    keep_freed_memory()
except ImportError:
    pass
cache, head, out, options = sys.argv[1:]
options = json.loads(options) | ({"head": Path(head)} if head else {"baseline": "box"})
clock, used = time.perf_counter(), sum(os.times()[:4])
evaluate(cache=Path(cache), out=Path(out), device="cpu", **options)
print(json.dumps({"clock": time.perf_counter() - clock, "processor": sum(os.times()[:4]) - used}))
"""
PAPER = """
import json, os, sys, time
from pathlib import Path
import torch
from frozen_cache.cache.reader import CacheReader
from frozen_cache.evaluation.evaluate import evaluate_cache
from frozen_cache.evaluation.segmenters import FeatureSegmenter
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.mask_head import MaskHead
try:
    from frozen_cache.freed_memory import keep_freed_memory
    keep_freed_memory()
except ImportError:
    pass
cache, _, _, options = sys.argv[1:]
options = json.loads(options)
half = {"half": torch.bfloat16} if options.pop("mixed_precision", None) else {}
reader = CacheReader(Path(cache))
layer = reader.attributes.detector.encoder_layers[-1]
torch.manual_seed(0)
head = MaskHead(config=HeadConfig(), inputs=reader.head_inputs(layer))
segmenter = FeatureSegmenter(head, encoder_layer=layer, device=torch.device("cpu"), **half)
clock, used = time.perf_counter(), sum(os.times()[:4])
evaluate_cache(reader, segmenter, object_ious=True, **options)
print(json.dumps({"clock": time.perf_counter() - clock, "processor": sum(os.times()[:4]) - used}))
"""
PARTS = """
import importlib, json, sys, time
from collections import Counter
from pathlib import Path
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from frozen_cache.stages.evaluate import evaluate
spent = Counter()
def timed(owner, name, part):
    kept = getattr(owner, name)
    def measured(*arguments, **options):
        started = time.process_time()
        try:
            return kept(*arguments, **options)
        finally:
            spent[part] += time.process_time() - started
    setattr(owner, name, measured)
module = lambda name: importlib.import_module("frozen_cache." + name)
timed(module("cache.reader").CacheReader, "read", "read")
timed(module("evaluation.segmenters").FeatureSegmenter, "__call__", "head")
timed(module("masks.rle"), "paste_window", "paste")
timed(module("masks.rle"), "window_rle", "run lengths")
for owner, name in ((COCO, "loadRes"), (COCOeval, "evaluate"), (COCOeval, "accumulate")):
    timed(owner, name, "COCOeval")
cache, head, out, options = sys.argv[1:]
started = time.process_time()
evaluate(cache=Path(cache), head=Path(head), out=Path(out), device="cpu", **json.loads(options))
spent["all"] = time.process_time() - started
print(json.dumps(spent))
"""
"""`run lengths` are those of the boundary regions, too, in both checkouts."""
SIDE = 1024
"""Of the matrices whose product gives a core's rate."""
SUBJECTS = ("trained head", "filled boxes")
PAPERS = "the paper's head"
PAPERS_IMAGES = 8
FAST: dict[str, Any] = {"coco_api": "hotcoco", "mixed_precision": "bf16"}
WAYS: dict[str, dict[str, Any]] = {
    "now, pycocotools": {},
    "now, hotcoco": {"coco_api": "hotcoco"},
    "now, hotcoco, bf16": FAST,
    "now, hotcoco, bf16, scores from 0.1": FAST | {"threshold": 0.1},
}
"""The last two change the last digits of AP."""


def run(
    script: str, checkout: Path, cache: Path, head: Path | None, *, threads: int | None = None, **options: Any
) -> dict[str, float]:
    """What a script prints of one evaluation by the code of a checkout; with as many threads as torch would take."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(checkout)} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with tempfile.TemporaryDirectory() as out:
        arguments = [str(cache), "" if head is None else str(head), f"{out}/results", json.dumps(options)]
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=checkout,  # it comes first among the places where modules are looked for
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(
    cache: Path, head: Path | None, before: tuple[Path, Path | None] | None, *, of: list[str], rounds: int
) -> dict[str, Any]:
    """Medians of the seconds, side by side; `before` is a checkout and the head for it."""
    ways: list[tuple[str, Path, Path | None, dict[str, Any]]] = [
        (name, ROOT, head, options) for name, options in WAYS.items()
    ]
    if before is not None:
        ways.insert(0, ("before", *before, {}))
    found: dict[str, Any] = {}
    for what in of:
        # Filled boxes have no network, so no precision to choose.
        mine = [way for way in ways if what != "filled boxes" or "mixed_precision" not in way[-1]]
        if what == PAPERS:  # the scores are random: how many reach a threshold says nothing
            mine = [way for way in mine if "threshold" not in way[-1]]
        seconds: dict[str, list[dict[str, float]]] = {way: [] for way, *_ in mine}
        for _ in range(rounds):
            for way, checkout, trained, options in mine:
                script, shown = PAPER if what == PAPERS else WHOLE, trained if what == "trained head" else None
                seconds[way].append(run(script, checkout, cache, shown, **options))
        found[what] = {
            way: {kind: round(statistics.median(one[kind] for one in each), 2) for kind in ("clock", "processor")}
            for way, each in seconds.items()
        }
        for way, each in found[what].items():
            if before is not None and way != "before":
                each |= {f"{kind}_ratio": round(found[what]["before"][kind] / each[kind], 2) for kind in tuple(each)}
            print(f"{what:14} {way:36} {each}", flush=True)
    return found


def images_of(cache: Path) -> int:
    """That a cache has."""
    from frozen_cache.cache.reader import CacheReader

    return sum(view == 0 for _, view in CacheReader(cache).views)


def parts(cache: Path, head: Path, before: tuple[Path, Path] | None) -> dict[str, Any]:
    """Images a processor second of each part, before and now."""
    images = images_of(cache)
    found = {} if before is None else {"before": run(PARTS, before[0], cache, before[1], threads=1)}
    found["now"] = run(PARTS, ROOT, cache, head, threads=1, workers=0)
    rates = {way: {part: round(images / each, 1) for part, each in spent.items()} for way, spent in found.items()}
    print(json.dumps(rates, indent=2))
    return rates


def floor(cache: Path, head: Path, *, images: int = 24) -> dict[str, Any]:
    """How much of one core's own matrix rate the head reaches, and the images a second at all of it; by number type."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from frozen_cache.evaluation.segmenters import read_for
    from frozen_cache.stages.segmenter import cache_for, make_segmenter

    torch.set_num_threads(1)
    reader, found = cache_for([head], cache), {}
    plain = [at for at, (_, view) in enumerate(reader.views) if view == 0][:images]
    for asked, kind in (("no", torch.float32), ("bf16", torch.bfloat16)):
        segmenter, _ = make_segmenter(
            reader, cache=cache, heads=[head], baseline=None, device="cpu", mixed_precision=asked
        )
        left, right = torch.randn(2, SIDE, SIDE).to(kind)
        views = [read_for(segmenter, reader, at) for at in plain]
        flops = 0
        for view in views:  # what is made once is made here
            with FlopCounterMode(display=False) as counted:
                segmenter(view)
            flops += counted.get_total_flops()
        seconds, products = 0.0, []
        for view in views:
            started = time.process_time()
            left @ right
            between = time.process_time()
            segmenter(view)
            products.append(between - started)
            seconds += time.process_time() - between
        rate, each = 2 * SIDE**3 / statistics.median(products), flops / len(views)
        found[str(kind).removeprefix("torch.")] = {
            "gflop_an_image": round(each / 1e9, 2),
            "matmul_gflop_a_second": round(rate / 1e9, 1),
            "images_a_second": round(len(views) / seconds, 2),
            "images_a_second_at_the_matmul_rate": round(rate / each, 2),
            "matmul_share": round(flops / seconds / rate, 3),
        }
    print(json.dumps(found, indent=2))
    return found


def memory(few: int = 1000, many: int = 5000) -> dict[str, Any]:
    """Resident megabytes after scoring so many synthetic images; pasting and matching in worker processes."""
    from frozen_cache.evaluation.outcome import ImageTask, image_outcome
    from frozen_cache.evaluation.result_store import ResultStore
    from frozen_cache.evaluation.scorers import ALL_KINDS, make_scorer
    from frozen_cache.evaluation.spread import MOST_WORKERS, spread
    from frozen_cache.inference.instances import Instances

    rng = np.random.default_rng(0)
    size, detections, objects = (480, 640), 100, 7
    names = [{"id": number, "name": str(number)} for number in range(80)]

    def tasks() -> Iterator[ImageTask]:
        for number in range(many):
            corner = rng.uniform(0, 400, (detections, 2))
            boxes = np.concatenate([corner, corner + rng.uniform(8, 120, (detections, 2))], axis=1).astype(np.float32)
            labels = rng.integers(0, 80, detections)
            truth = []
            for at in range(objects):
                mask = np.zeros(size, dtype=np.uint8)
                x0, y0, x1, y1 = boxes[at].astype(int)
                mask[y0:y1, x0:x1] = 1
                rle = coco_mask.encode(np.asfortranarray(mask))
                truth.append(
                    {"id": at, "image_id": number, "category_id": int(labels[at]), "iscrowd": 0, "segmentation": rle}
                    | {"area": float(mask.sum()), "bbox": coco_mask.toBbox(rle).tolist()}
                )
            there = Instances(
                size=size,
                boxes=boxes,
                labels=labels,
                scores=rng.random(detections).astype(np.float32),
                box_scores=np.ones(detections, dtype=np.float32),
                names=[""] * detections,
                probabilities=rng.random((detections, 32, 32)).astype(np.float32),
                mask_boxes=boxes,
            )
            image = {"id": number, "height": size[0], "width": size[1]}
            yield ImageTask(image=image, truth=truth, instances=there, kinds=ALL_KINDS)

    scorer, store = make_scorer("pycocotools", names), ResultStore()  # type: ignore[arg-type]
    at: dict[str, float] = {}
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    for count, outcome in enumerate(spread(image_outcome, tasks(), workers=workers), 1):
        scorer.add(outcome)
        store.add(outcome.image["id"], outcome.texts)
        if count in (100, few, many):
            at[str(count)] = _resident()
    scored = scorer.scores()["segm"].metrics["AP"]
    grown = (at[str(many)] - at[str(few)]) / (many - few) * 1000
    result = {
        "images": many,
        "detections": detections,
        "resident_mb": {count: round(value, 1) for count, value in at.items()},
        "kb_an_image": round(grown, 2),
        "peak_mb_with_ap": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(f"{result}; AP {scored:.4f}")
    return result


def _resident() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize() / 1e6


def main() -> None:
    """Measure what was asked for and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--head", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--head-before", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--of", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--whole", action="store_true", help="not the parts, whose figures stay")
    parser.add_argument("--paper", type=Path)
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if given.memory:
        kept["memory"] = memory()
    elif given.paper is not None:
        from random_cache import random_cache

        cache = random_cache(given.paper, shapes="hdetr-r50", size=(800, 1120), objects=7, images=PAPERS_IMAGES)
        checkout = None if given.before is None else (given.before.resolve(), None)
        there = conditions() | {"before": commit(checkout[0]) if checkout else None, "images": PAPERS_IMAGES}
        there |= {"rounds": given.rounds}
        kept["papers_head"] = {"conditions": there} | compare(
            cache.resolve(), None, checkout, of=[PAPERS], rounds=given.rounds
        )
    else:
        cache, head = given.cache.resolve(), given.head.resolve()
        before = None if given.before is None else (given.before.resolve(), (given.head_before or head).resolve())
        there = conditions() | {"before": commit(before[0]) if before else None, "images": images_of(cache)}
        there |= {"rounds": given.rounds}
        if not given.whole:
            kept["conditions"] = there
            kept["images_a_processor_second"] = parts(cache, head, before)
            kept["head_and_machine"] = floor(cache, head)
        kept["seconds"] = {"conditions": there} | compare(cache, head, before, of=given.of, rounds=given.rounds)
    RESULT.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
