"""What masks on pictures cost beside the detector alone: images a second of `predict`, part by part.

    python benchmarks/predict.py --images FOLDER --detector NAME|hf:DIR|FILE.py:FACTORY [--count N] [--rounds N]

Parts of one picture after another, nothing side by side: `read` (file, resize), `detector`, `head` (the paper's, random
weights, which change no speed), `paste` (masks at the picture's own size), `write` (run lengths and an overlay).
`plain detector` is the model alone on the same prepared input, for a transformers model with its own post-processing.
Each detector is measured with all its pairs (`every pair`: the most that masks can cost) and with those of a score of
0.3 and above, where its weights are trained. A named detector without `--weights` has random ones, which change no
speed, and boxes of usual sizes in place of its own. Medians over rounds; masks are compared with the faster of the two
measurements of the detector, since other work on the machine may slow either. Results are added to
benchmarks/predict.json, of which benchmarks/fill_pages.py makes a table of docs/figures.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from conditions import conditions

from frozen_cache.cache.attributes import Category
from frozen_cache.cache.view import CachedView
from frozen_cache.detectors.hf.detector import TransformersDetector
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.official import NAMED, OfficialDetector
from frozen_cache.detectors.official.layout import build_model
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.device import pick_device
from frozen_cache.head.config import HeadConfig, resolve_encoder_layer
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.inference.images import read_picture
from frozen_cache.inference.inputs import find_inputs
from frozen_cache.inference.model import Model
from frozen_cache.inference.outputs import OutputFolder, Picture
from frozen_cache.inference.segmenter import InstanceSegmenter, PreparedImage

RESULT = Path(__file__).with_suffix(".json")
PARTS = ("read", "detector", "head", "paste", "write", "plain detector")
SIDES = (0.02, 0.67)
"""Shortest and longest side of a usual box, in parts of the image's: nine in ten sides of COCO's boxes lie between."""
Value = TypeVar("Value")


def model_of(detector: FrozenDetector) -> Model:
    """The detector with the paper's head for it, its weights random, each label a category."""
    spec = detector.spec
    layer = resolve_encoder_layer(HeadConfig(), spec.encoder_layers)
    categories: list[Category] = [{"id": at + 1, "name": f"class {at}"} for at in range(spec.num_labels)]
    inputs = HeadInputs(query_dim=spec.query_dim, c1=spec.c1, levels=spec.encoder_levels, num_classes=len(categories))
    torch.manual_seed(0)
    return Model(
        detector=detector,
        head=MaskHead(config=HeadConfig(mask_scoring=False), inputs=inputs),
        encoder_layer=layer,
        categories=categories,
        label_to_category={at: at + 1 for at in range(spec.num_labels)},
        top_k=spec.top_k,
        autocast=None,
    )


class Clock:
    """Seconds of named parts, of one round."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in PARTS}
        self._device = device

    def time(self, part: str, work: Callable[[], Value]) -> Value:
        """Do `work` and count it to `part`."""
        self._wait()
        started = time.perf_counter()
        value = work()
        self._wait()
        self.seconds[part].append(time.perf_counter() - started)
        return value

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def measure(
    detector: FrozenDetector,
    files: list[Path],
    *,
    threshold: float,
    rounds: int,
    device: torch.device,
    usual_boxes: bool,
) -> dict[str, Any]:
    """Medians of each part in milliseconds a picture, and what they come to."""
    segmenter = InstanceSegmenter(model_of(detector), device=str(device))
    choice = segmenter.choice(threshold=threshold)
    per_part: dict[str, list[float]] = {name: [] for name in PARTS}
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        outputs = OutputFolder(Path(folder), kinds=["overlays"], names=segmenter.names)
        for _ in range(rounds + 1):  # the first one warms up
            clock = Clock(device)
            found = 0
            for file in files:
                found += _one(clock, segmenter, choice, outputs, detector, file, device, usual_boxes)
            for name, seconds in clock.seconds.items():
                per_part[name].append(statistics.mean(seconds))
    medians = {name: statistics.median(seconds[1:]) * 1000 for name, seconds in per_part.items()}
    whole = sum(value for name, value in medians.items() if name != "plain detector")
    masks, alone = medians["head"] + medians["paste"], min(medians["detector"], medians["plain detector"])
    return {
        "threshold": threshold,
        "instances_per_image": round(found / len(files), 1),
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "predict_images_per_second": round(1000 / whole, 3),
        "plain_detector_images_per_second": round(1000 / medians["plain detector"], 3),
        "masks_by_detector": round(masks / alone, 3),
        "masks_cost_less_than_the_detector": masks < alone,
    }


def _one(
    clock: Clock,
    segmenter: InstanceSegmenter,
    choice: Any,
    outputs: OutputFolder,
    detector: FrozenDetector,
    file: Path,
    device: torch.device,
    usual_boxes: bool,
) -> int:
    def read() -> tuple[Any, PreparedImage]:
        image = read_picture(file)
        return image, segmenter.prepare(image)

    image, prepared = clock.time("read", read)
    [view] = clock.time("detector", lambda: segmenter.detect([prepared]))
    if usual_boxes:
        view = with_usual_boxes(view)
    instances = clock.time("head", lambda: segmenter.segment(view, choice))
    clock.time("paste", lambda: instances.masks)

    def write() -> None:
        instances.to_coco()
        outputs.write(Picture(file.stem, image, instances))

    clock.time("write", write)
    clock.time("plain detector", lambda: _plain(detector, prepared, image.size[::-1], device))
    return len(instances)


def with_usual_boxes(view: CachedView) -> CachedView:
    """The view with boxes inside the image, sides evenly spread over `SIDES` on a logarithmic scale: those of random
    weights are all alike, and what pasting costs follows from their sizes."""
    generator = torch.Generator().manual_seed(0)
    low, high = SIDES
    sides = low * (high / low) ** torch.rand(len(view.boxes), 2, generator=generator)
    centres = sides / 2 + (1 - sides) * torch.rand(len(view.boxes), 2, generator=generator)
    return replace(view, boxes=torch.cat([centres, sides], dim=1))


@torch.inference_mode()
def _plain(detector: FrozenDetector, prepared: PreparedImage, size: tuple[int, int], device: torch.device) -> None:
    """The detector's model on the prepared picture, without any of our taps."""
    pixels = detector.spec.input.normalise(prepared.pixels[0][None].to(device))
    if isinstance(detector, TransformersDetector):
        output = detector.model(pixel_values=pixels)
        detector.processor.post_process_object_detection(output, threshold=0.0, target_sizes=[size])
    elif isinstance(detector, OfficialDetector):
        detector.model(pixels)
    else:
        detector(pixels)


def main() -> None:
    """Measure one detector and write it into the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder, files or pattern")
    parser.add_argument("--detector", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = pick_device(given.device)
    files = [file.path for file in find_inputs([given.images], apart_from=Path("nowhere"))[: given.count]]
    detector = _detector(given.detector, given.weights)
    trained = given.weights is not None or not isinstance(detector, OfficialDetector)
    kinds = {"every pair": 0.0} | ({"score from 0.3": 0.3} if trained else {})
    size = _input_size(detector, files[0])
    result = {
        "conditions": conditions(device)
        | {
            "images": len(files),
            "input_size": list(size),
            "rounds": given.rounds,
            "weights": "trained" if trained else "random",
            "boxes": "the detector's" if trained else f"sides {SIDES[0]} to {SIDES[1]} of the image's",
        }
    } | {
        kind: measure(detector, files, threshold=threshold, rounds=given.rounds, device=device, usual_boxes=not trained)
        for kind, threshold in kinds.items()
    }
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    results[f"{detector.spec.family}: {detector.spec.name}, {device.type}"] = result
    RESULT.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _detector(name: str, weights: Path | None) -> FrozenDetector:
    """The detector, a named one with random weights where none are given."""
    if name not in NAMED or weights is not None:
        return load_detector(name, weights=weights)
    torch.manual_seed(0)
    return OfficialDetector(model=build_model(NAMED[name].config), name=name, top_k=NAMED[name].top_k)


def _input_size(detector: FrozenDetector, file: Path) -> tuple[int, int]:
    """(height, width) of the detector's input for a picture."""
    image = read_picture(file)
    return detector.spec.input.resized_size(height=image.height, width=image.width)


if __name__ == "__main__":
    main()
