"""A frozen detector of a few multiplications, and COCO folders of a few pixels, for the tests of extraction.

Given to `--detector` as `fake_detector.py:detector` (stretched to 32 x 32) or `fake_detector.py:uneven` (sizes differ).
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.output import DetectorOutput, DetectorSpec, FeatureSpec
from frozen_cache.detectors.stem import Stem, StemConfig, StemMap

QUERIES = 12
NAMES = {0: "apple", 1: "pear", 2: "plum"}


class FakeDetector:
    """Its maps are averages of the image; boxes, scores and queries are functions of those."""

    def __init__(self, rule: InputRule, *, weights: str = "0" * 64, scale: float = 1.0, sleep: float = 0.0) -> None:
        self.scale, self.sleep = scale, sleep
        self.spec = DetectorSpec(
            name="fake",
            family="fake",
            weights_sha256=weights,
            input=rule,
            query_dim=5,
            num_queries=QUERIES,
            num_labels=3,
            label_names=NAMES,
            top_k=6,
            c1=FeatureSpec(channels=2, stride=4),
            encoder_levels=(FeatureSpec(channels=3, stride=8), FeatureSpec(channels=3, stride=16)),
            encoder_layers=(1, 2),
        )

    def to(self, device: torch.device | str) -> FakeDetector:
        return self

    def __call__(self, images: Tensor) -> DetectorOutput:
        time.sleep(self.sleep)
        pool = torch.nn.functional.adaptive_avg_pool2d
        height, width = images.shape[-2:]
        seeds = pool(images, (QUERIES, 5)).mean(1)  # (B, Q, 5)
        scores = torch.sigmoid(20 * (seeds[..., :3] - 0.5))
        boxes = torch.sigmoid(8 * (seeds[..., :4] - 0.5)) * 0.8 + 0.1
        maps = {stride: pool(images, (height // stride, width // stride)) for stride in (4, 8, 16)}
        return DetectorOutput(
            queries=seeds,
            boxes=boxes,
            scores=scores,
            labels=torch.arange(3),
            c1=maps[4][:, :2] * self.scale,
            encoder={layer: [maps[8] * layer, maps[16] * layer] for layer in (1, 2)},
        )


def detector() -> FakeDetector:
    """Images are stretched to 32 x 32."""
    return FakeDetector(InputRule(resize="stretch", size=(32, 32)))


def retrained() -> FakeDetector:
    """Other weights."""
    return FakeDetector(InputRule(resize="stretch", size=(32, 32)), weights="1" * 64)


def huge() -> FakeDetector:
    """C1 is beyond float16."""
    return FakeDetector(InputRule(resize="stretch", size=(32, 32)), scale=1e6)


def uneven() -> FakeDetector:
    """The shorter side becomes 32, the longer at most 64."""
    return FakeDetector(InputRule(resize="shortest_edge", shortest_edge=32, longest_edge=64))


def slow() -> FakeDetector:
    """`uneven`, 0.15 s per batch."""
    return FakeDetector(InputRule(resize="shortest_edge", shortest_edge=32, longest_edge=64), sleep=0.15)


def very_slow() -> FakeDetector:
    """`uneven`, a second per batch: what is asked of it halfway is asked in time, also on a busy machine."""
    # A shell that runs the tests in the background makes them, and their children, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return FakeDetector(InputRule(resize="shortest_edge", shortest_edge=32, longest_edge=64), sleep=1.0)


class GatedDetector(FakeDetector):
    """A process of torchrun waits before its third batch until the file GATE is there."""

    def __init__(self) -> None:
        super().__init__(InputRule(resize="stretch", size=(32, 32)))
        self.calls = 0

    def __call__(self, images: Tensor) -> DetectorOutput:
        self.calls += 1
        deadline = time.monotonic() + 300
        while "RANK" in os.environ and self.calls > 2 and not Path(os.environ["GATE"]).exists():
            assert time.monotonic() < deadline, "nobody opens the gate"
            time.sleep(0.05)
        return super().__call__(images)


def gated() -> FakeDetector:
    """Two processes of torchrun are stopped until a third has done its part."""
    return GatedDetector()


def dies_before_finish() -> FakeDetector:
    """Kills its process before the second segment is flushed."""
    from frozen_cache.cache.segment_writer import SegmentWriter

    return _dies(SegmentWriter, "finish")


def dies_before_move() -> FakeDetector:
    """Kills its process before the second segment is renamed into place."""
    from frozen_cache.cache import writer

    return _dies(writer, "move_durably")


def dies_before_commit() -> FakeDetector:
    """Kills its process before the second line goes into the ledger."""
    from frozen_cache.cache.writer import CacheWriter

    return _dies(CacheWriter, "_commit")


class StemmedDetector(FakeDetector):
    """C1 is that of a ResNet-50, which it offers as its stem."""

    def __init__(self, *, factor: float = 1.0, rule: InputRule | None = None) -> None:
        super().__init__(rule or InputRule(resize="stretch", size=(32, 32)))
        from frozen_cache.detectors.official.backbones import ResNet50

        torch.manual_seed(0)
        self.backbone, self.factor = ResNet50().eval(), factor
        self.spec = self.spec.model_copy(update={"c1": FeatureSpec(channels=256, stride=4)})

    @torch.no_grad()
    def __call__(self, images: Tensor) -> DetectorOutput:
        return replace(super().__call__(images), c1=self.backbone(images)[0] * self.factor)

    def stem(self) -> Stem:
        config = StemConfig(kind="official-resnet50", config={}, c1=StemMap(module="layer1"))
        return Stem.take(self.backbone, config, trial=torch.zeros(1, 3, 32, 32))


def with_stem() -> FakeDetector:
    """C1 can be recomputed."""
    return StemmedDetector()


def uneven_with_stem() -> FakeDetector:
    """C1 can be recomputed, and views of one image have several sizes."""
    return StemmedDetector(rule=InputRule(resize="shortest_edge", shortest_edge=32, longest_edge=64))


def with_wrong_stem() -> FakeDetector:
    """Its stem gives another C1."""
    return StemmedDetector(factor=1.1)


def _dies(owner: Any, name: str) -> FakeDetector:
    original: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    def dies(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, dies)
    return detector()


def write_folder(folder: Path, *, images: int = 7, seed: int = 0) -> tuple[Path, Path]:
    """A COCO folder with polygons, RLE, crowds and an image without objects; (image folder, annotation file)."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    entries, annotations = [], []
    for number in range(images):
        height, width = int(rng.integers(20, 60)), int(rng.integers(20, 60))
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        name = f"{number:03d}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        entries.append({"id": number * 10, "file_name": name, "height": height, "width": width})
        for place in range(0 if number == 1 else 3):
            x, y = int(rng.integers(0, width - 10)), int(rng.integers(0, height - 10))
            w, h = int(rng.integers(3, 10)), int(rng.integers(3, 10))
            crowd = place == 2
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number * 10,
                    "category_id": int(rng.choice([3, 5, 9])),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(crowd),
                    "segmentation": box_rle(x, y, w, h, height, width) if crowd else polygon,
                }
            )
    categories = [{"id": 9, "name": "plum"}, {"id": 3, "name": "apple"}, {"id": 5, "name": "pear"}]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "images", folder / "instances.json"


def box_rle(x: int, y: int, w: int, h: int, height: int, width: int) -> dict[str, object]:
    """Uncompressed RLE of a filled box."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[y : y + h, x : x + w] = 1
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}
