"""What a training step costs from a cache, and with the detector in the loop.

    python benchmarks/cached_vs_live.py --work FOLDER [--deimv2 ../shared/real/deimv2_atto] [--only NAME ...]

Both train the paper's head on one image with seven objects, in turn, in one process: batch size 1, float32, all
threads that torch is given. A step is reading the view (from a float16 cache, or the image file and the detector),
making the batch, forward, backward and AdamW. Seconds are of the process's own processor time, which hardly feels who
else uses the machine, and the least of all rounds. `ratio` is live over cached. The named detectors have random
weights: numbers cost what they cost whatever they are. `peak_gb` is that of the process up to then, so of the largest
detector so far. Freed memory is kept as by the console command (`GLIBC_TUNABLES=glibc.malloc.perturb=0` in the
environment gives it back as glibc does by itself); `page_faults` are minor ones, by round. Results of detectors that
were not run again are kept.

`live_grid_sample` is live once more with the detector's deformable attention by torch's `grid_sample`, which is what
one has without this package's; its ratio is that of the detector as others run it, over the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from conditions import conditions
from random_cache import write_pictures

from frozen_cache.attention.backends import GRID_SAMPLE, SWITCH
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.stored_map import StoredView
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.official.detector import OfficialDetector
from frozen_cache.detectors.official.layout import build_model
from frozen_cache.detectors.official.named import NAMED
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.freed_memory import keep_freed_memory, reason_against
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.live import LiveData, LiveReader, LiveStore
from frozen_cache.training.batches import ViewStore, make_batch
from frozen_cache.training.config import load_config
from frozen_cache.training.step import TrainingStep

RESULT = Path(__file__).with_suffix(".json")
REAL = Path(__file__).parents[2] / "shared" / "real"
ATTO = "deimv2-atto"
OBJECTS = 7
PICTURE = (400, 560)
"""(height, width) of the file; the named detectors see 800 x 1120."""
ROUNDS = {ATTO: 6, "hdetr-r50": 3, "hdetr-swin-l": 2, "dino-focalnet-l": 2}
GOALS = {"hdetr-r50": 3.0, "hdetr-swin-l": 7.0, "dino-focalnet-l": 3.2}
HEADS: dict[str, dict[str, Any]] = {"dino-focalnet-l": {"head.image_layers": 3}}
"""What differs from the paper's head for H-DETR (Table 15)."""


def made(name: str, folder: Path) -> FrozenDetector:
    """The detector, with random weights where it is one of the paper's."""
    if name == ATTO:
        return load_detector(f"{folder / 'load.py'}:detector")
    torch.manual_seed(0)
    named = NAMED[name]
    return OfficialDetector(model=build_model(named.config), name=name, top_k=named.top_k)


def compared(name: str, work: Path, folder: Path) -> dict[str, Any]:
    """Processor seconds a step, cached and live in turn."""
    config = load_config(overrides={"optim.batch_size": 1} | HEADS.get(name, {}))
    detector = made(name, folder)
    images, annotations = write_pictures(work / "pictures", size=PICTURE, objects=OBJECTS, images=1, categories=80)
    labels = {"label_map": tuple(f"class {at}={at}" for at in range(80))} if name == ATTO else {}
    cache = work / f"{name}.zarr"
    options: dict[str, Any] = {"detector": detector, "images": images, "annotations": annotations} | labels
    extract_features(out=cache, device="cpu", batch_size=1, **options)
    reader = CacheReader(cache)
    live = LiveReader(LiveData(**options), out=work, device="cpu")
    [layer] = reader.attributes.detector.encoder_layers
    stores: dict[str, ViewStore] = {
        "cached": ViewStore(reader, encoder_layer=layer, c1=True, memory_bytes=0),
        "live": LiveStore(live, encoder_layer=layer, c1=True),
    }
    head = MaskHead(config=config.head, inputs=reader.head_inputs(layer))
    if name != ATTO:
        stores["live_grid_sample"] = GridSampleStore(live, encoder_layer=layer, c1=True)
    for store in stores.values():
        store.c1 = head.uses_c1
    step = TrainingStep(head=head, config=config, accelerator=Accelerator(cpu=True))
    step.prepare()
    spent: dict[str, list[float]] = {kind: [] for kind in stores}
    faults: dict[str, list[int]] = {kind: [] for kind in stores}
    rois = 0
    for number in range(ROUNDS[name]):
        for kind, store in stores.items():
            started, faulted = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            rois = one_step(step, store, config, number)
            spent[kind].append(time.process_time() - started)
            faults[kind].append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faulted)
    best = {kind: min(seconds) for kind, seconds in spent.items()}
    return {
        "input": list(live.resized_size(0)),
        "rois": rois,
        "detector_parameters": sum(each.numel() for each in getattr(detector, "model").parameters()),  # noqa: B009
        "cached_seconds": round(best["cached"], 3),
        "live_seconds": round(best["live"], 3),
        "ratio": round(best["live"] / best["cached"], 2),
        **(
            {}
            if name == ATTO
            else {
                "live_grid_sample_seconds": round(best["live_grid_sample"], 3),
                "ratio_grid_sample": round(best["live_grid_sample"] / best["cached"], 2),
            }
        ),
        "goal": GOALS.get(name),
        "rounds": {kind: [round(value, 3) for value in seconds] for kind, seconds in spent.items()},
        "page_faults": faults,
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }


class GridSampleStore(LiveStore):
    """Live, with the detector's deformable attention by `grid_sample`; the head's stays as it is."""

    def read_together(self, indices: list[int], *, seed: int) -> list[StoredView]:
        """The views of a step, in order."""
        before = os.environ.get(SWITCH)
        os.environ[SWITCH] = GRID_SAMPLE
        try:
            return super().read_together(indices, seed=seed)
        finally:
            if before is None:
                del os.environ[SWITCH]
            else:
                os.environ[SWITCH] = before


def one_step(step: TrainingStep, store: ViewStore, config: Any, number: int) -> int:
    """A whole step; how many RoIs it trained on."""
    batch = make_batch(store, [0], config, roi_side=config.head.mask_side, seed=number)
    step(batch, rate=1e-5)
    return len(batch.rois.labels)


def main() -> None:
    """Run, print, and write each detector's result as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--deimv2", type=Path, default=REAL / "deimv2_atto")
    parser.add_argument("--only", nargs="*", choices=list(ROUNDS), default=list(ROUNDS))
    given = parser.parse_args()
    keep_freed_memory()  # as the console command does
    for name in given.only:
        found = compared(name, given.work, given.deimv2)
        found["conditions"] = conditions() | {
            "freed_memory": "kept" if reason_against() is None else "given back",
            "random": "pictures, objects" + ("" if name == ATTO else ", the detector's weights"),
        }
        print(name, json.dumps(found), flush=True)
        earlier = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        RESULT.write_text(json.dumps(earlier | {name: found}, indent=2) + "\n")
    print(f"written to {RESULT.name}")


if __name__ == "__main__":
    main()
