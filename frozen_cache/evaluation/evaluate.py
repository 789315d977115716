"""Evaluation of a segmenter on a cache: COCO results of its plain views, and their metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torchvision.ops import box_convert

from frozen_cache.cache.attributes import Category
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.coco import coco_in_memory, coco_metrics
from frozen_cache.evaluation.segmenters import Segmentation, Segmenter
from frozen_cache.inference.instances import Instances
from frozen_cache.progress import progress_bar


@dataclass(frozen=True)
class Evaluation:
    """COCO metrics and result dicts, by kind (`segm`, `bbox`)."""

    metrics: dict[str, dict[str, float]]
    results: dict[str, list[dict[str, Any]]]


def evaluate_cache(reader: CacheReader, segmenter: Segmenter) -> Evaluation:
    """Segment every image's plain view and compare with the cached ground truth (pycocotools)."""
    layer = segmenter.encoder_layer
    plain = [at for at, (_, view) in enumerate(reader.views) if view == 0]
    categories = [category["id"] for category in reader.attributes.categories]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: dict[str, list[dict[str, Any]]] = {"segm": [], "bbox": []}
    bar = progress_bar(total=len(plain), desc="evaluate", unit="img", leave=False)
    for at in plain:
        view = reader.read(
            at, encoder_layers=() if layer is None else (layer,), c1=layer is not None, dtype=torch.float32
        )
        height, width = view.transform.original_size
        images.append({"id": view.image_id, "height": height, "width": width})
        annotations += truth_annotations(view, categories)
        found = view_results(view, segmenter(view), categories)
        results["segm"] += found["segm"]
        results["bbox"] += found["bbox"]
        bar.update()
    bar.close()
    named = list(reader.attributes.categories)
    truth = coco_in_memory({"images": images, "annotations": annotations, "categories": named})
    metrics = {
        "segm": coco_metrics(truth, results["segm"], "segm"),
        "bbox": coco_metrics(truth, results["bbox"], "bbox"),
    }
    return Evaluation(metrics=metrics, results=results)


def truth_annotations(view: CachedView, categories: list[int]) -> list[dict[str, Any]]:
    """The view's ground truth as COCO annotations, under its own annotation ids."""
    boxes = box_convert(torch.from_numpy(view.truth.boxes).double(), "xyxy", "xywh").tolist()
    return [
        {
            "id": int(view.truth.annotation_ids[at]),
            "image_id": view.image_id,
            "category_id": categories[int(view.truth.categories[at])],
            "bbox": boxes[at],
            "area": float(view.truth.areas[at]),
            "iscrowd": int(view.truth.crowd[at]),
            "segmentation": view.truth.masks[at],
        }
        for at in range(len(boxes))
    ]


def view_results(view: CachedView, found: Segmentation, categories: list[int]) -> dict[str, list[dict[str, Any]]]:
    """COCO result dicts of one plain view: `bbox` with the detector's scores, `segm` with the masks' scores."""
    nameless: list[Category] = [{"id": category, "name": ""} for category in categories]
    instances = Instances.of_view(view, found, nameless)
    return {
        "bbox": instances.to_coco(view.image_id, kind="bbox"),
        "segm": instances.to_coco(view.image_id, kind="segm"),
    }
