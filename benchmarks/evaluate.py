"""What evaluation costs: the whole of it before and now, its parts, and what it keeps of 5,000 images.

    python benchmarks/evaluate.py --cache val.zarr --head RUN [--before CHECKOUT] [--rounds 3]
    python benchmarks/evaluate.py --memory

The first: COCO metrics of a head, and of filled boxes (no network, so what is left is reading, pasting, run lengths
and matching), in seconds of the clock, each in a process of its own. With `--before`, an older checkout of this
repository takes turns with this one, and the ratios are printed. Then the parts, in CPU seconds of one process, in
images a second. The second: 1,000 and 5,000 synthetic images of 100 detections and 7 objects are scored; the resident
memory that remains is compared. Both keep their figures in evaluate.json; the other's stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

RESULT = Path(__file__).with_suffix(".json")
ROOT = Path(__file__).parents[1]
WHOLE = """
import sys, time
from pathlib import Path
from frozen_cache.stages.evaluate import evaluate
options = {"head": Path(sys.argv[2])} if sys.argv[2] else {"baseline": "box"}
if sys.argv[4]:
    options |= {"coco_api": sys.argv[4]}
started = time.perf_counter()
evaluate(cache=Path(sys.argv[1]), out=Path(sys.argv[3]), device="cpu", **options)
print(time.perf_counter() - started)
"""


def whole(checkout: Path, cache: Path, head: Path | None, api: str) -> float:
    """Seconds of one evaluation by the code of a checkout; `api` empty for one that knows no choice."""
    with tempfile.TemporaryDirectory() as out:
        arguments = [str(cache), "" if head is None else str(head), f"{out}/results", api]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        done = subprocess.run(
            [sys.executable, "-c", WHOLE, *arguments], env=environment, capture_output=True, text=True, check=True
        )
    return float(done.stdout.split()[-1])


def compare(cache: Path, head: Path, before: Path | None, rounds: int) -> dict[str, Any]:
    """Medians of the seconds, side by side."""
    ways = [("now, pycocotools", ROOT, "pycocotools"), ("now, hotcoco", ROOT, "hotcoco")]
    ways = ([("before", before, "")] if before else []) + ways
    found: dict[str, Any] = {}
    for name, of in (("filled boxes", None), ("trained head", head)):
        seconds: dict[str, list[float]] = {way: [] for way, *_ in ways}
        for _ in range(rounds):
            for way, checkout, api in ways:
                seconds[way].append(whole(checkout, cache, of, api))
        found[name] = {way: round(statistics.median(each), 2) for way, each in seconds.items()}
        for way, each in found[name].items():
            ratio = f", {found[name]['before'] / each:.2f} times as fast as before" if before else ""
            print(f"{name:14} {way:20} {each:7.1f} s{ratio}", flush=True)
    return found


def parts(cache: Path, head: Path) -> dict[str, float]:
    """CPU seconds of the parts of one evaluation in one process, as images a second."""
    from frozen_cache.cache.reader import CacheReader
    from frozen_cache.evaluation import evaluate as evaluating
    from frozen_cache.evaluation import outcome
    from frozen_cache.stages.evaluate import evaluate

    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as out, _timed(CacheReader, "read", "read", spent), _timed(
        evaluating, "view_instances", "hand over", spent
    ), _timed(outcome, "match_image", "match (pycocotools)", spent), _timed(
        outcome, "judge_image", "judge", spent
    ), _timed(outcome, "_object_ious", "object by object", spent):  # fmt: skip
        from frozen_cache.evaluation.segmenters import FeatureSegmenter
        from frozen_cache.inference import instances

        with _timed(FeatureSegmenter, "__call__", "head", spent), _timed(
            instances, "paste_rles", "paste and run lengths", spent
        ):  # fmt: skip
            evaluate(cache=cache, head=head, out=Path(out) / "results", device="cpu", workers=0)
    images = sum(view == 0 for _, view in CacheReader(cache).views)
    rates = {name: round(images / seconds, 1) for name, seconds in spent.items()}
    for name, rate in rates.items():
        print(f"{name:24} {rate:8.1f} images a CPU second")
    return rates


@contextmanager
def _timed(owner: Any, name: str, part: str, spent: dict[str, float]) -> Iterator[None]:
    """The calls of `owner.name` add their CPU seconds to `spent[part]`."""
    kept: Callable[..., Any] = getattr(owner, name)

    def measured(*arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        try:
            return kept(*arguments, **options)
        finally:
            spent[part] = spent.get(part, 0.0) + time.process_time() - started

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, kept)


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if options.memory:
        kept["memory"] = memory()
    else:
        kept["seconds"] = compare(options.cache, options.head, options.before, options.rounds)
        kept["images_a_cpu_second"] = parts(options.cache, options.head)
    kept["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    RESULT.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
