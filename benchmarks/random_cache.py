"""Caches of random numbers in the shapes of a detector: reading and training cost what they cost with real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frozen_cache.cache.attributes import Precision
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.output import DetectorOutput, DetectorSpec, FeatureSpec
from frozen_cache.head.detector_shapes import DETECTOR_SHAPES
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.stages.extract import extract_features

QUERIES = 300
SHAPES = DETECTOR_SHAPES | {
    "deimv2-atto": HeadInputs(
        query_dim=64,
        c1=FeatureSpec(channels=64, stride=4),
        levels=(FeatureSpec(channels=64, stride=16), FeatureSpec(channels=64, stride=32)),
        num_classes=80,
    )
}
SHRUNK = 8
"""The image files are this much smaller than what the detector is shown: nothing is seen in them."""


def object_boxes(count: int) -> Tensor:
    """(N, 4) cxcywh in 0..1: side by side on a grid, of several sizes."""
    side = int(np.ceil(count**0.5))
    rows = [
        ((at % side + 0.5) / side, (at // side + 0.5) / side, (0.4 + 0.1 * (at % 5)) / side, 0.6 / side)
        for at in range(count)
    ]
    return torch.tensor(rows)


class RandomDetector:
    """Its maps are noise, its first boxes are those of the objects."""

    def __init__(self, name: str, *, size: tuple[int, int], objects: int) -> None:
        inputs = SHAPES[name]
        self.objects = object_boxes(objects)
        self.generator = torch.Generator().manual_seed(0)
        self.spec = DetectorSpec(
            name=f"random-{name}",
            family="random",
            weights_sha256="0" * 64,
            input=InputRule(resize="stretch", size=size),
            query_dim=inputs.query_dim,
            num_queries=QUERIES,
            num_labels=inputs.num_classes,
            label_names={label: f"class {label}" for label in range(inputs.num_classes)},
            c1=inputs.c1,
            encoder_levels=inputs.levels,
            encoder_layers=(1,),
        )

    def to(self, device: torch.device | str) -> RandomDetector:
        """It computes nothing, so it stays where it is."""
        return self

    def __call__(self, images: Tensor) -> DetectorOutput:
        """As a detector answers."""
        batch, _, height, width = images.shape

        def noise(*shape: int) -> Tensor:
            return torch.randn(batch, *shape, generator=self.generator)

        def of(channels: int, stride: int) -> Tensor:
            return noise(channels, -(-height // stride), -(-width // stride))

        boxes = noise(QUERIES, 4).sigmoid() * 0.4 + 0.1
        boxes[:, : len(self.objects)] = self.objects
        scores = torch.rand(batch, QUERIES, self.spec.num_labels, generator=self.generator) * 0.1
        places = torch.arange(len(self.objects))
        scores[:, places, places % self.spec.num_labels] = 0.9
        c1 = self.spec.c1
        return DetectorOutput(
            queries=noise(QUERIES, self.spec.query_dim),
            boxes=boxes,
            scores=scores,
            labels=torch.arange(self.spec.num_labels),
            c1=None if c1 is None else of(c1.channels, c1.stride),
            encoder={1: [of(level.channels, level.stride) for level in self.spec.encoder_levels]},
        )


def write_pictures(
    data: Path, *, size: tuple[int, int], objects: int, images: int, categories: int
) -> tuple[Path, Path]:
    """Plain pictures of `size` (height, width) with so many rectangles as objects each: their folder, and their file.

    Args:
        categories: so many, with ids from 0; objects take them in turn.
    """
    data.mkdir(parents=True, exist_ok=True)
    height, width = size
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        Image.new("RGB", (width, height), (number % 256, 128, 128)).save(data / f"{number}.png")
        pictures.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for at, (cx, cy, w, h) in enumerate(object_boxes(objects).tolist()):
            x, y, right, low = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": at % categories,
                    "bbox": [x, y, right - x, low - y],
                    "area": (right - x) * (low - y),
                    "iscrowd": 0,
                    "segmentation": [[x, y, right, y, right, low, x, low]],
                }
            )
    named = [{"id": at, "name": f"class {at}"} for at in range(categories)]
    file = data / "annotations.json"
    file.write_text(json.dumps({"images": pictures, "annotations": annotations, "categories": named}))
    return data, file


def random_cache(
    folder: Path, *, shapes: str, size: tuple[int, int], objects: int, images: int, precision: Precision = "float16"
) -> Path:
    """A cache of so many images of `size` (height, width) with so many objects each; what is there is kept.

    Args:
        folder: where it lies, and the images.
        shapes: a name of `SHAPES`.
    """
    kind = "" if precision == "float16" else f"-{precision}"
    out = folder / f"{shapes}-{size[0]}x{size[1]}-{objects}-{images}{kind}.zarr"
    data, file = write_pictures(
        folder / f"{out.stem}-images",
        size=(size[0] // SHRUNK, size[1] // SHRUNK),
        objects=objects,
        images=images,
        categories=SHAPES[shapes].num_classes,
    )
    detector = RandomDetector(shapes, size=size, objects=objects)
    extract_features(detector=detector, images=data, annotations=file, out=out, batch_size=1, precision=precision)
    return out
