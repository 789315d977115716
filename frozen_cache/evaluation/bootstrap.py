"""How sure an AP is: the same AP on images drawn again and again, the same draws for all that is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frozen_cache.evaluation.matching import Kind, evaluated

DRAWS = 1000
LEVEL = 0.95
_AT_ONCE = 2_000_000
"""Numbers held at once in the weighted sums."""


@dataclass(frozen=True)
class _ClassTally:
    """One class's detections by falling score, and its objects."""

    image: np.ndarray
    """(D,) int64 index of each detection's image."""
    right: np.ndarray
    """(T, D) float32: 1 where the detection is right at that IoU."""
    wrong: np.ndarray
    """(T, D) float32: 1 where it is wrong; neither where it is to be ignored."""
    objects: np.ndarray
    """(I,) float32 objects of each image."""


@dataclass(frozen=True)
class Tally:
    """What AP is made of, image by image, so that images can be weighted without matching anything again."""

    image_ids: list[int]
    classes: list[_ClassTally]
    recalls: np.ndarray
    """(101,) recalls at which precision is read."""

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """AP (IoU 0.5 to 0.95, 100 detections an image) of drawn images.

        Args:
            weights: (B, I) how often each image was drawn.

        Returns:
            (B,) in 0..1; nan for a draw without any object. Equal to pycocotools' with so many copies of each image.
        """
        weights = np.asarray(weights, dtype=np.float64)
        total, classes = np.zeros(len(weights)), np.zeros(len(weights))
        for tally in self.classes:
            objects = weights @ tally.objects
            size = tally.right.size
            step = max(1, _AT_ONCE // max(size, 1))
            for start in range(0, len(weights), step):
                some = slice(start, start + step)
                total[some] += self._class_precision(tally, weights[some], objects[some])
            classes += objects > 0
        with np.errstate(invalid="ignore"):
            return np.where(classes > 0, total / classes, np.nan)

    def _class_precision(self, tally: _ClassTally, weights: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """(b,) mean precision of one class; 0 where the draw has no object of it."""
        if tally.right.shape[1] == 0:
            return np.zeros(len(weights))
        drawn = weights[:, None, tally.image]  # (b, 1, D)
        right, wrong = np.cumsum(drawn * tally.right, axis=2), np.cumsum(drawn * tally.wrong, axis=2)
        precision = right / (right + wrong + np.spacing(1))
        best = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
        # Where each recall is reached, by one sorted search for all rows: counts are whole numbers, so moving each
        # row's to a range of its own costs no digit.
        needed = np.repeat([self._needed(int(count)) for count in objects], best.shape[1], axis=0)
        rows, count = best.shape[0] * best.shape[1], best.shape[2]
        offset = (max(right.max(), needed.max()) + 1) * np.arange(rows)[:, None]
        place = np.searchsorted((right.reshape(rows, count) + offset).ravel(), (needed + offset).ravel())
        place = place.reshape(rows, -1) - count * np.arange(rows)[:, None]
        padded = np.concatenate([best.reshape(rows, count), np.zeros((rows, 1))], axis=1)
        read = np.take_along_axis(padded, place, axis=1).mean(axis=1).reshape(best.shape[:2]).mean(axis=1)
        return np.where(objects > 0, read, 0.0)

    def _needed(self, objects: int) -> np.ndarray:
        """(101,) right detections that reach each recall."""
        return np.searchsorted(np.arange(objects + 1) / max(objects, 1), self.recalls)


@dataclass(frozen=True)
class Interval:
    """A value and where 95 % of the draws lie."""

    value: float
    low: float
    high: float


def tally_results(truth: COCO, results: list[dict[str, Any]], kind: Kind) -> Tally:
    """Match once with pycocotools and keep what AP needs."""
    evaluator = evaluated(truth, results, kind)
    params = evaluator.params
    images, areas = len(params.imgIds), len(params.areaRng)
    classes = [
        _class_tally(evaluator, evaluator.evalImgs[start : start + images])  # those of all sizes come first
        for start in range(0, len(params.catIds) * areas * images, areas * images)
    ]
    return Tally(image_ids=list(params.imgIds), classes=classes, recalls=np.asarray(params.recThrs))


def draw_images(images: int, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """(draws, images) int64: how often each image is in each draw of `images` images with putting back."""
    picked = np.random.default_rng(seed).integers(0, images, (draws, images))
    return np.stack([np.bincount(row, minlength=images) for row in picked])


def interval(value: float, drawn: np.ndarray) -> Interval:
    """The percentile interval of drawn values; those without an object do not count."""
    known = drawn[~np.isnan(drawn)]
    if len(known) == 0:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _class_tally(evaluator: COCOeval, entries: list[dict[str, Any] | None]) -> _ClassTally:
    limit, thresholds = evaluator.params.maxDets[-1], len(evaluator.params.iouThrs)
    objects = np.zeros(len(entries), dtype=np.float32)
    scores, image, matched, ignored = [], [], [], []
    for at, entry in enumerate(entries):
        if entry is None:
            continue
        objects[at] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
        scores.append(np.asarray(entry["dtScores"], dtype=np.float64)[:limit])
        image.append(np.full(len(scores[-1]), at))
        matched.append(np.asarray(entry["dtMatches"]).reshape(thresholds, -1)[:, :limit] != 0)
        ignored.append(np.asarray(entry["dtIgnore"]).reshape(thresholds, -1)[:, :limit] != 0)
    if not scores:
        nothing = np.zeros((thresholds, 0), dtype=np.float32)
        return _ClassTally(image=np.zeros(0, dtype=np.int64), right=nothing, wrong=nothing, objects=objects)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hit, ignore = np.concatenate(matched, axis=1)[:, order], np.concatenate(ignored, axis=1)[:, order]
    right, wrong = (hit & ~ignore).astype(np.float32), (~hit & ~ignore).astype(np.float32)
    # Behind the last right detection no recall is reached any more.
    last = int(np.flatnonzero(right.any(axis=0)).max(initial=-1)) + 1
    return _ClassTally(
        image=np.concatenate(image)[order][:last], right=right[:, :last], wrong=wrong[:, :last], objects=objects
    )
