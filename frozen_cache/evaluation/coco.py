"""COCO metrics with pycocotools, from ground truth held in memory."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_in_memory(dataset: dict[str, Any]) -> COCO:
    """A `COCO` object of a data set in COCO's JSON layout (images, annotations, categories)."""
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def coco_metrics(truth: COCO, results: list[dict[str, Any]], kind: Literal["bbox", "segm"]) -> dict[str, float]:
    """AP, AP50, AP75, APs, APm, APl in 0..1; -1 where there is no object of that size, 0 for no results at all.

    Args:
        results: COCO result dicts (image_id, category_id, score, and bbox xywh in pixels or segmentation RLE).
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # loadRes writes into the dicts that it is given, and cannot take an empty list.
        found = (
            truth.loadRes(copy.deepcopy(results)) if results else coco_in_memory({**truth.dataset, "annotations": []})
        )
        evaluator = COCOeval(truth, found, kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return {name: float(np.round(value, 6)) for name, value in zip(METRICS, evaluator.stats[:6], strict=True)}
