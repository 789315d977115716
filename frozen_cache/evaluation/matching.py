"""COCO's matching, one image at a time: what AP needs of an image is kept, a few kB, and the image forgotten."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frozen_cache.evaluation.boundary import BoundaryEval

Kind = Literal["bbox", "segm", "boundary"]
"""`boundary`: masks, matched by the smaller of mask IoU and boundary IoU."""
AREAS, THRESHOLDS = 4, 10
"""COCO's: all, small, medium, large; IoU 0.5 to 0.95."""


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """What `COCOeval.accumulate` reads of an image, for C categories, A ranges of areas and T IoU thresholds; D_c
    detections and G_c objects of each category, one category after the other."""

    categories: np.ndarray
    """(C,) int64 ids, ascending."""
    detections: np.ndarray
    """(C,) int32: D_c."""
    objects: np.ndarray
    """(C,) int32: G_c."""
    scores: np.ndarray
    """(sum of D_c,) float64, falling within a category."""
    matched: bytes
    """(A, T, sum of D_c) bits: matched at that IoU."""
    ignored: bytes
    """(A, T, sum of D_c) bits: to be left aside."""
    absent: bytes
    """(A, sum of G_c) bits: objects to be left aside."""

    def entries(self, category: int) -> list[dict[str, Any]] | None:
        """A entries of `evalImgs` for one category; None where the image has nothing of it."""
        place = int(np.searchsorted(self.categories, category))
        if place == len(self.categories) or self.categories[place] != category:
            return None
        ends, object_ends = np.cumsum(self.detections), np.cumsum(self.objects)
        found = slice(ends[place] - self.detections[place], ends[place])
        things = slice(object_ends[place] - self.objects[place], object_ends[place])
        matched, ignored = (
            _unpacked(bits, (AREAS, THRESHOLDS, len(self.scores)))[..., found] for bits in (self.matched, self.ignored)
        )
        absent = _unpacked(self.absent, (AREAS, int(self.objects.sum())))[:, things]
        return [
            {"dtScores": self.scores[found], "dtMatches": hits, "dtIgnore": aside, "gtIgnore": gone}
            for hits, aside, gone in zip(matched, ignored, absent, strict=True)
        ]


def match_image(
    image: dict[str, Any], truth: list[dict[str, Any]], results: list[dict[str, Any]], kind: Kind
) -> ImageMatches:
    """Match the results of one image with its ground truth (pycocotools).

    Args:
        image: with `id`, `height`, `width`.
        truth: its COCO annotations.
        results: its COCO results (category_id, score, and bbox xywh in pixels or segmentation RLE).
    """
    categories = sorted({entry["category_id"] for entry in (*truth, *results)})
    coco = coco_in_memory({"images": [image], "annotations": truth, "categories": [{"id": at} for at in categories]})
    evaluated_image = evaluated(coco, results, kind).evalImgs if categories else []
    by_category = [evaluated_image[start : start + AREAS] for start in range(0, len(evaluated_image), AREAS)]
    scores = [np.asarray(entries[0]["dtScores"], dtype=np.float64) for entries in by_category]
    return ImageMatches(
        categories=np.array(categories, dtype=np.int64),
        detections=np.array([len(part) for part in scores], dtype=np.int32),
        objects=np.array([len(entries[0]["gtIgnore"]) for entries in by_category], dtype=np.int32),
        scores=np.concatenate([*scores, np.zeros(0)]),
        matched=_packed(by_category, "dtMatches"),
        ignored=_packed(by_category, "dtIgnore"),
        absent=_packed(by_category, "gtIgnore"),
    )


def joined(images: Mapping[int, ImageMatches], categories: Iterable[int]) -> COCOeval:
    """All images' matches as a COCOeval that has accumulated them, as if it had matched them at once."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(iouType="segm")  # the default ranges and thresholds are those of every kind
        ids = sorted(categories)
        parts = [_accumulated(images, category) for category in ids]
        evaluator.params.imgIds, evaluator.params.catIds = sorted(images), ids
        evaluator.eval = {
            name: np.concatenate([part[name] for part in parts], axis=-3) for name in ("precision", "recall", "scores")
        }
        evaluator.summarize()
    return evaluator


def _accumulated(images: Mapping[int, ImageMatches], category: int) -> dict[str, np.ndarray]:
    """What COCOeval accumulates of one category: its entries alone are in memory at a time."""
    evaluator = COCOeval(iouType="segm")
    found = {image: entries for image in sorted(images) if (entries := images[image].entries(category)) is not None}
    evaluator.params.imgIds, evaluator.params.catIds = list(found), [category]
    evaluator.evalImgs = [entries[area] for area in range(AREAS) for entries in found.values()] or [None]
    evaluator._paramsEval = copy.deepcopy(evaluator.params)
    evaluator.accumulate()
    return evaluator.eval


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


def evaluated(truth: COCO, results: Sequence[dict[str, Any]], kind: Kind) -> COCOeval:
    """COCOeval after `evaluate`: detections and objects matched in each image."""
    with contextlib.redirect_stdout(io.StringIO()):
        # loadRes writes into the dicts that it is given, and cannot take an empty list.
        found = (
            truth.loadRes([dict(entry) for entry in results])
            if results
            else coco_in_memory({**truth.dataset, "annotations": []})
        )
        evaluator = BoundaryEval(truth, found) if kind == "boundary" else COCOeval(truth, found, kind)
        evaluator.evaluate()
    return evaluator


def _packed(by_category: list[list[dict[str, Any]]], key: str) -> bytes:
    """One entry's values behind the other, areas first, as bits."""
    values = [np.stack([np.asarray(entry[key]) for entry in entries]) != 0 for entries in by_category]
    return np.packbits(np.concatenate(values, axis=-1)).tobytes() if values else b""


def _unpacked(bits: bytes, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).reshape(shape).astype(bool)
