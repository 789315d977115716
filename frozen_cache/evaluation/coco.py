"""COCO metrics, from matched images: overall, by class, and precision over recall."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pycocotools.coco import COCO

from frozen_cache.evaluation.matching import Kind, evaluated

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


class Accumulated(Protocol):
    """A COCOeval, of pycocotools or of hotcoco, that has accumulated and summarised."""

    params: Any

    @property
    def eval(self) -> Any:
        """`precision` (T, R, K, A, M), `recall` (T, K, A, M)."""
        ...

    @property
    def stats(self) -> Any:
        """(12,) METRICS and RECALLS."""
        ...


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
    objects = dict.fromkeys(truth.cats, 0)
    for annotation in truth.dataset["annotations"]:
        objects[annotation["category_id"]] += not annotation.get("iscrowd", 0)
    return scores_of(evaluator, list(truth.cats.values()), objects)


def scores_of(evaluator: Accumulated, categories: Sequence[Mapping[str, Any]], objects: dict[int, int]) -> CocoScores:
    """Everything that it measured.

    Args:
        categories: COCO's.
        objects: category id -> annotated objects, crowds left aside.
    """
    return CocoScores(
        metrics={
            name: float(np.round(value, 6)) for name, value in zip(METRICS + RECALLS, evaluator.stats, strict=True)
        },
        classes=_classes(
            evaluator, {entry["id"]: entry.get("name", str(entry["id"])) for entry in categories}, objects
        ),
        precision=_precision(evaluator),
    )


def _classes(evaluator: Accumulated, names: dict[int, str], objects: dict[int, int]) -> list[ClassScores]:
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    at_50, at_75 = (int(np.argmin(np.abs(np.asarray(evaluator.params.iouThrs) - iou))) for iou in (0.5, 0.75))
    found = []
    for index, category in enumerate(evaluator.params.catIds):
        whole = precision[:, :, index, 0, -1]
        metrics = {"AP": _mean(whole), "AP50": _mean(whole[at_50]), "AP75": _mean(whole[at_75])}
        metrics |= {f"AP{name}": _mean(precision[:, :, index, area, -1]) for name, area in _AREAS.items()}
        metrics["AR100"] = _mean(recall[:, index, 0, -1])
        found.append(ClassScores(id=int(category), name=names[category], objects=objects[category], metrics=metrics))
    return found


def _precision(evaluator: Accumulated) -> dict[str, list[float]]:
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
