"""Evaluation of a segmenter on a cache: COCO results of its plain views, and their metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from pycocotools.coco import COCO
from torchvision.ops import box_convert

from frozen_cache.cache.attributes import Category
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.coco import CocoScores, coco_in_memory, coco_metrics, coco_scores
from frozen_cache.evaluation.ladder import ladder_results
from frozen_cache.evaluation.matched_iou import ObjectIou, view_object_ious
from frozen_cache.evaluation.segmenters import Segmentation, Segmenter
from frozen_cache.inference.instances import Instances
from frozen_cache.progress import progress_bar


@dataclass(frozen=True)
class Evaluation:
    """COCO scores by kind (`segm`, `bbox`, `boundary`), and result dicts of the first two."""

    scores: dict[str, CocoScores]
    results: dict[str, list[dict[str, Any]]]
    truth: COCO
    """The cached ground truth."""
    objects: list[ObjectIou]
    """Of the objects with a matched query; empty unless asked for."""
    ladder: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics of the masks with one thing put right at a time (`RUNGS`); empty unless asked for."""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """AP and AR by kind: `segm`, `bbox`, `boundary`."""
        return {kind: scores.metrics for kind, scores in self.scores.items()}


def evaluate_cache(
    reader: CacheReader, segmenter: Segmenter, *, object_ious: bool = False, ladder: bool = False
) -> Evaluation:
    """Segment every image's plain view and compare with the cached ground truth (pycocotools).

    Args:
        object_ious: also measure each object's mask in its matched box.
        ladder: also put one thing right at a time (`frozen_cache.evaluation.ladder`).
    """
    layer = segmenter.encoder_layer
    plain = [at for at, (_, view) in enumerate(reader.views) if view == 0]
    categories = [category["id"] for category in reader.attributes.categories]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: dict[str, list[dict[str, Any]]] = {"segm": [], "bbox": []}
    objects: list[ObjectIou] = []
    rungs: dict[str, list[dict[str, Any]]] = {}
    bar = progress_bar(total=len(plain), desc="evaluate", unit="img", leave=False)
    for at in plain:
        view = reader.read(
            at, encoder_layers=() if layer is None else (layer,), c1=layer is not None, device=segmenter.device
        )
        height, width = view.transform.original_size
        images.append({"id": view.image_id, "height": height, "width": width})
        annotations += truth_annotations(view, categories)
        segmentation = segmenter(view)
        found = view_results(view, segmentation, categories)
        results["segm"] += found["segm"]
        results["bbox"] += found["bbox"]
        if object_ious:
            objects += view_object_ious(view, segmenter, segmentation)
        if ladder:
            for rung, entries in ladder_results(view, segmenter, segmentation, categories).items():
                rungs.setdefault(rung, []).extend(entries)
        bar.update()
    bar.close()
    named = list(reader.attributes.categories)
    truth = coco_in_memory({"images": images, "annotations": annotations, "categories": named})
    scores = {
        "segm": coco_scores(truth, results["segm"], "segm"),
        "bbox": coco_scores(truth, results["bbox"], "bbox"),
        "boundary": coco_scores(truth, results["segm"], "boundary"),
    }
    return Evaluation(
        scores=scores,
        results=results,
        truth=truth,
        objects=objects,
        ladder={rung: coco_metrics(truth, entries, "segm") for rung, entries in rungs.items()},
    )


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
