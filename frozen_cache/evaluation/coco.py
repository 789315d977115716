"""COCO metrics with pycocotools, from ground truth held in memory: overall, by class, and precision over recall."""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frozen_cache.evaluation.boundary import BoundaryEval

Kind = Literal["bbox", "segm", "boundary"]
"""`boundary`: masks, matched by the smaller of mask IoU and boundary IoU."""
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_AREAS = {"s": 1, "m": 2, "l": 3}


@dataclass(frozen=True)
class ClassScores:
    """One category. Values in 0..1; -1 where there is no object (of that size)."""

    id: int
    name: str
    objects: int
    """Annotated ones, crowds left aside."""
    metrics: dict[str, float]
    """METRICS, and AR100."""


@dataclass(frozen=True)
class CocoScores:
    """What COCOeval says about one set of results."""

    metrics: dict[str, float]
    """METRICS and RECALLS in 0..1; -1 where there is no object of that size, 0 for no results at all."""
    classes: list[ClassScores]
    precision: dict[str, list[float]]
    """`mean` (over IoU 0.5 to 0.95), `0.50`, `0.75` -> precision at recall 0, 0.01 ... 1, mean over classes."""


def coco_in_memory(dataset: dict[str, Any]) -> COCO:
    """A `COCO` object of a data set in COCO's JSON layout (images, annotations, categories).

    Annotations are numbered anew, from 1: pycocotools takes the id 0 for "no match".
    """
    coco = COCO()
    annotations = [annotation | {"id": number} for number, annotation in enumerate(dataset["annotations"], 1)]
    coco.dataset = {**dataset, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def coco_metrics(truth: COCO, results: list[dict[str, Any]], kind: Kind) -> dict[str, float]:
    """METRICS and RECALLS of `results`, as `coco_scores` gives them."""
    return coco_scores(truth, results, kind).metrics


def coco_scores(truth: COCO, results: list[dict[str, Any]], kind: Kind) -> CocoScores:
    """Everything that pycocotools measures.

    Args:
        results: COCO result dicts (image_id, category_id, score, and bbox xywh in pixels or segmentation RLE).
    """
    evaluator = evaluated(truth, results, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
        evaluator.summarize()
    return CocoScores(
        metrics={
            name: float(np.round(value, 6)) for name, value in zip(METRICS + RECALLS, evaluator.stats, strict=True)
        },
        classes=_classes(truth, evaluator),
        precision=_precision(evaluator),
    )


def evaluated(truth: COCO, results: list[dict[str, Any]], kind: Kind) -> COCOeval:
    """COCOeval after `evaluate`: detections and objects matched in each image."""
    with contextlib.redirect_stdout(io.StringIO()):
        # loadRes writes into the dicts that it is given, and cannot take an empty list.
        found = (
            truth.loadRes(copy.deepcopy(results)) if results else coco_in_memory({**truth.dataset, "annotations": []})
        )
        evaluator = BoundaryEval(truth, found) if kind == "boundary" else COCOeval(truth, found, kind)
        evaluator.evaluate()
    return evaluator


def _classes(truth: COCO, evaluator: COCOeval) -> list[ClassScores]:
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    objects = dict.fromkeys(evaluator.params.catIds, 0)
    for annotation in truth.dataset["annotations"]:
        objects[annotation["category_id"]] += not annotation.get("iscrowd", 0)
    at_50, at_75 = (int(np.argmin(np.abs(evaluator.params.iouThrs - iou))) for iou in (0.5, 0.75))
    found = []
    for index, category in enumerate(evaluator.params.catIds):
        whole = precision[:, :, index, 0, -1]
        metrics = {"AP": _mean(whole), "AP50": _mean(whole[at_50]), "AP75": _mean(whole[at_75])}
        metrics |= {f"AP{name}": _mean(precision[:, :, index, area, -1]) for name, area in _AREAS.items()}
        metrics["AR100"] = _mean(recall[:, index, 0, -1])
        name = truth.cats[category].get("name", str(category))
        found.append(ClassScores(id=int(category), name=name, objects=objects[category], metrics=metrics))
    return found


def _precision(evaluator: COCOeval) -> dict[str, list[float]]:
    curves = evaluator.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class)
    known = curves[..., curves.max(axis=(0, 1)) > -1]
    if known.shape[2] == 0:
        return {}
    by_iou = {f"{iou:.2f}": at for at, iou in enumerate(evaluator.params.iouThrs)}
    picked = {"mean": known.mean(axis=(0, 2)), **{name: known[by_iou[name]].mean(axis=1) for name in ("0.50", "0.75")}}
    return {name: [round(float(value), 5) for value in values] for name, values in picked.items()}


def _mean(values: np.ndarray) -> float:
    """Mean of what is known; -1 where nothing is."""
    known = values[values > -1]
    return float(np.round(known.mean(), 6)) if known.size else -1.0
