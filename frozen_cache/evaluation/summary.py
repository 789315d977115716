"""`metrics.json` of an evaluation: what was evaluated, by what, and every figure; plain JSON values."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from frozen_cache.cache.reader import CacheReader
from frozen_cache.evaluation.evaluate import Evaluation
from frozen_cache.evaluation.matched_iou import EDGE, edge_iou_by_size, mean_iou_by_size
from frozen_cache.evaluation.mistakes import THRESHOLD, ImageVerdict, count_kinds, judge_image


def judged(evaluation: Evaluation) -> list[ImageVerdict]:
    """Every image's verdict, in the order of the cache."""
    found: dict[int, list[dict[str, Any]]] = {image: [] for image in evaluation.truth.imgs}
    # Both lists name the same pairs in the same order; the detector's own box judges the box.
    for mask, box in zip(evaluation.results["segm"], evaluation.results["bbox"], strict=True):
        found[mask["image_id"]].append(mask | {"bbox": box["bbox"]})
    return [judge_image(image, found[image], evaluation.truth.imgToAnns[image]) for image in evaluation.truth.imgs]


def summary(
    evaluation: Evaluation, verdicts: list[ImageVerdict], reader: CacheReader, *, of: dict[str, Any]
) -> dict[str, Any]:
    """The content of `metrics.json`. `of` names the head or baseline."""
    attributes = reader.attributes
    masks, boxes = evaluation.scores["segm"], evaluation.scores["bbox"]
    mask_ap, box_ap = masks.metrics["AP"], boxes.metrics["AP"]
    return {
        "of": of
        | {
            "cache": str(reader.path),
            "cache_fingerprint": attributes.fingerprint,
            "detector": attributes.detector.name,
            "annotations": attributes.data.annotations,
            "images": len(evaluation.truth.imgs),
            "objects": sum(entry.objects for entry in masks.classes),
            "version": version("frozen-cache"),
        },
        "segm": masks.metrics,
        "bbox": boxes.metrics,
        "boundary": evaluation.scores["boundary"].metrics,
        "mask_over_box": round(mask_ap / box_ap, 6) if box_ap > 0 else None,
        "mean_iou": mean_iou_by_size(evaluation.objects),
        "edge_iou": {"band": EDGE} | edge_iou_by_size(evaluation.objects),
        **({"ladder": evaluation.ladder} if evaluation.ladder else {}),
        "mistakes": {"threshold": THRESHOLD} | count_kinds(verdicts),
        "classes": [
            {"id": mask.id, "name": mask.name, "objects": mask.objects, "segm": mask.metrics, "bbox": box.metrics}
            for mask, box in zip(masks.classes, boxes.classes, strict=True)
        ],
        "precision": {"segm": masks.precision, "bbox": boxes.precision},
    }
