"""`metrics.json` of an evaluation: what was evaluated, by what, and every figure; plain JSON values."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from frozen_cache.evaluation.evaluate import EvaluatedViews, Evaluation
from frozen_cache.evaluation.mistakes import THRESHOLD, count_kinds
from frozen_cache.evaluation.object_iou import EDGE, edge_iou_by_size, mean_iou_by_size


def summary(evaluation: Evaluation, reader: EvaluatedViews, *, of: dict[str, Any]) -> dict[str, Any]:
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
            **({"masks_from": [str(by) for by in attributes.data.masks_from]} if attributes.data.masks_from else {}),
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
        "mistakes": {"threshold": THRESHOLD} | count_kinds(evaluation.verdicts),
        "classes": [
            {"id": mask.id, "name": mask.name, "objects": mask.objects, "segm": mask.metrics, "bbox": box.metrics}
            for mask, box in zip(masks.classes, boxes.classes, strict=True)
        ],
        "precision": {"segm": masks.precision, "bbox": boxes.precision},
    }
