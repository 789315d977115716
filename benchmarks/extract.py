"""What extraction costs beside the detector itself: images per second of both, alternating in one run.

    python benchmarks/extract.py --work FOLDER [--detector hdetr-r50] [--images N] [--rounds N] [--device DEVICE]

`bare` is the detector alone: the same batches, prepared, in memory, on the device, outputs dropped. `extract-features`
is the whole stage on the same images: reading, resizing, copying, matching, writing, flushing, the ledger. Named
detectors have random weights unless `--weights` gives others, which changes no speed. Caches are written in FOLDER,
on the disk to be measured, and removed. Results: benchmarks/extract.json, of a GPU benchmarks/extract-cuda.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from conditions import conditions as common_conditions
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from frozen_cache.attention.kernels import find_compiled
from frozen_cache.cache.attributes import read_attributes
from frozen_cache.data.batches import load_batches
from frozen_cache.data.coco import read_coco
from frozen_cache.data.folder import find_images
from frozen_cache.data.images import ImageReader
from frozen_cache.demo.scenes import draw_scene, tight_box
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.official import NAMED, OfficialDetector
from frozen_cache.detectors.official.layout import build_model
from frozen_cache.detectors.output import DetectorSpec, FrozenDetector
from frozen_cache.device import pick_device
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.extract_plan import VIEWS_PER_SEGMENT, plan_views

RESULT = {"cpu": Path(__file__).with_suffix(".json"), "cuda": Path(__file__).with_name("extract-cuda.json")}
SIZE = (480, 640)
"""Height and width of most images of COCO."""
IMAGES = {"cpu": 6, "cuda": 512}
LIMIT = {"cpu": 0.15, "cuda": 0.25}
"""Overhead that the project allows itself."""


def write_images(folder: Path, *, count: int, size: tuple[int, int], spec: DetectorSpec) -> tuple[Path, Path]:
    """Scenes of the demo enlarged to `size` (height, width) as JPEG, with objects of the detector's own classes.

    Returns:
        The image folder and the annotation file.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    names = spec.label_names or {label: f"class {label}" for label in range(spec.num_labels)}
    labels = sorted({name: label for label, name in reversed(names.items())}.values())
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        rng = np.random.default_rng([0, number])
        picture, objects = draw_scene(rng)
        name = f"{number:06d}.jpg"
        Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC).save(images / name, quality=94)
        pictures.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        for item in objects:
            mask = np.asarray(Image.fromarray(item.mask).resize(size[::-1]))
            runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": labels[len(annotations) % len(labels)],
                    "bbox": list(tight_box(mask)),
                    "area": int(mask.sum()),
                    "iscrowd": int(item.crowd),
                    "segmentation": {"size": list(size), "counts": runs["counts"].decode()},
                }
            )
    categories = [{"id": label, "name": names[label]} for label in labels]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": pictures, "annotations": annotations, "categories": categories}))
    return images, path


def make_detector(name: str, weights: Path | None, short_side: int | None) -> FrozenDetector:
    """The detector; `short_side` scales an input rule that keeps the aspect ratio."""
    detector: FrozenDetector
    if name in NAMED and weights is None:
        torch.manual_seed(0)
        detector = OfficialDetector(model=build_model(NAMED[name].config), name=name, top_k=NAMED[name].top_k)
    else:
        detector = load_detector(name, weights=weights)
    if short_side is not None:
        detector.spec = detector.spec.model_copy(update={"input": _scaled(detector.spec.input, short_side)})
    return detector


def _scaled(rule: InputRule, short_side: int) -> InputRule:
    if rule.shortest_edge is None:
        raise SystemExit("--short-side: this detector stretches its images to one size")
    longest = rule.longest_edge and round(rule.longest_edge * short_side / rule.shortest_edge)
    return rule.model_copy(update={"shortest_edge": short_side, "longest_edge": longest})


class Seconds(NamedTuple):
    """By the clock, and of all threads of this process: the latter hardly feels who else uses the machine."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        """Of no meaning but to be subtracted."""
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


class Bench:
    """One detector, one set of images, one device."""

    def __init__(self, detector: FrozenDetector, given: argparse.Namespace) -> None:
        self.device = pick_device(given.device)
        self.detector = detector.to(self.device)
        self.autocast: str | None = given.autocast
        self.count = given.images or IMAGES.get(self.device.type, IMAGES["cpu"])
        self.images, self.annotations = write_images(
            given.work / "data", count=self.count, size=SIZE, spec=detector.spec
        )
        self.out: Path = given.work / "bench.zarr"
        self.extract(limit=1, keep=True)
        self.batch_size: int = given.batch_size or read_attributes(self.out).batch_size
        self.inputs = self.batches()
        self.bare(self.inputs[:1])

    def batches(self) -> list[Tensor]:
        """The batches as the stage makes them, (B, 3, H, W) float32 on the device."""
        rule = self.detector.spec.input
        found = find_images(read_coco(self.annotations), self.images, limit=None, skip_missing=False)
        views = plan_views(found, rule, views=1)
        segments = [(at, views[at : at + VIEWS_PER_SEGMENT]) for at in range(0, len(views), VIEWS_PER_SEGMENT)]
        batches = load_batches(
            segments, folder=self.images, rule=rule, reader=ImageReader(), batch_size=self.batch_size, workers=2
        )
        return [rule.normalise(batch.pixels.to(self.device)) for batch in batches if batch.pixels is not None]

    def bare(self, inputs: list[Tensor]) -> Seconds:
        """The detector alone."""
        started = Seconds.now()
        autocast = torch.autocast(self.device.type, getattr(torch, self.autocast)) if self.autocast else nullcontext()
        with torch.inference_mode(), autocast:
            for pixels in inputs:
                self.detector(pixels)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Seconds.now() - started

    def extract(self, *, limit: int | None = None, batch_size: int | None = None, keep: bool = False) -> Seconds:
        """The stage, from the call to its return."""
        shutil.rmtree(self.out, ignore_errors=True)
        started = Seconds.now()
        extract_features(
            detector=self.detector,
            images=self.images,
            annotations=self.annotations,
            out=self.out,
            device=str(self.device),
            autocast=self.autocast,
            batch_size=batch_size,
            limit=limit,
        )
        seconds = Seconds.now() - started
        if not keep:
            shutil.rmtree(self.out)
        return seconds

    def round(self, number: int) -> dict[str, float]:
        """Both once; every other round begins with the other."""
        if number % 2:
            extract = self.extract(batch_size=self.batch_size)
            bare = self.bare(self.inputs)
        else:
            bare = self.bare(self.inputs)
            extract = self.extract(batch_size=self.batch_size)
        return {
            "bare_images_per_second": round(self.count / bare.wall, 4),
            "extract_images_per_second": round(self.count / extract.wall, 4),
            "overhead": round(extract.wall / bare.wall - 1, 4),
            "cpu_time_overhead": round(extract.cpu / bare.cpu - 1, 4),
        }

    def conditions(self) -> dict[str, Any]:
        """What the figures depend on."""
        return common_conditions(self.device) | {
            "detector": self.detector.spec.name,
            "autocast": self.autocast,
            "compiled_attention": find_compiled() is not None,
            "images": self.count,
            "image_size": list(SIZE),
            "input_size": list(self.inputs[0].shape[-2:]),
            "batch_size": self.batch_size,
        }


def main() -> None:
    """Run, print, and keep the result beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--detector", default="hdetr-r50", help="as for extract-features")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, help="6 on the CPU, 512 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, help="the stage's own choice if not given")
    parser.add_argument("--short-side", type=int, help="pixels; the detector's own if not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--autocast", choices=["bfloat16", "float16"])
    parser.add_argument("--result", type=Path, help="another file for the result")
    given = parser.parse_args()
    bench = Bench(make_detector(given.detector, given.weights, given.short_side), given)
    conditions = bench.conditions() | {"rounds": given.rounds}
    for name, value in conditions.items():
        print(f"{name}: {value}")
    print(f"{'round':8}{'bare img/s':>12}{'extract-features img/s':>24}{'overhead':>10}{'CPU time':>10}")
    rounds = []
    for number in range(given.rounds):
        rounds.append(bench.round(number))
        bare, extract, overhead, cpu = rounds[-1].values()
        print(f"{number + 1:<8}{bare:12.3f}{extract:24.3f}{overhead:10.1%}{cpu:10.1%}", flush=True)
    shutil.rmtree(bench.out, ignore_errors=True)
    bare, extract, overhead, cpu = (statistics.median(each[name] for each in rounds) for name in rounds[0])
    kind = bench.device.type
    limit = LIMIT.get(kind, LIMIT["cpu"])
    print(f"{'median':8}{bare:12.3f}{extract:24.3f}{overhead:10.1%}{cpu:10.1%}   (limit {limit:.0%})")
    report = {
        "conditions": conditions,
        "bare_images_per_second": bare,
        "extract_images_per_second": extract,
        "overhead": overhead,
        "cpu_time_overhead": cpu,
        "limit": limit,
        "within": overhead <= limit,
        "rounds": rounds,
    }
    result = given.result or RESULT.get(kind, RESULT["cpu"])
    result.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {result}")


if __name__ == "__main__":
    main()
