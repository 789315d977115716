"""COCO's matching, one image at a time: what AP needs of an image is kept, a few kB, and the image forgotten."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frozen_cache.evaluation.boundary import BoundaryEval

Kind = Literal["bbox", "segm", "boundary"]
"""`boundary`: masks, matched by the smaller of mask IoU and boundary IoU."""


class Match(TypedDict):
    """One image, category and range of areas: what `COCOeval.accumulate` reads of an entry of `evalImgs`."""

    dtScores: list[float]
    dtMatches: np.ndarray
    """(T, D) bool: matched at that IoU."""
    dtIgnore: np.ndarray
    """(T, D) bool: to be left aside."""
    gtIgnore: np.ndarray
    """(G,) bool."""


ImageMatches = Mapping[tuple[int, int], Match]
"""(category id, place of the range of areas) -> the match; nothing for what the image has none of."""


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
    evaluator = evaluated(coco, results, kind)
    areas = len(evaluator.params.areaRng)
    return {
        (category, area): _reduced(entry)
        for place, category in enumerate(categories)
        for area, entry in enumerate(evaluator.evalImgs[place * areas : (place + 1) * areas])
        if entry is not None
    }


def joined(images: Mapping[int, ImageMatches], categories: Iterable[int]) -> COCOeval:
    """All images' matches as a COCOeval that has accumulated them, as if it had matched them at once."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(iouType="segm")  # the default ranges and thresholds are those of every kind
        params = evaluator.params
        params.imgIds, params.catIds = sorted(images), sorted(categories)
        evaluator.evalImgs = [
            images[image].get((category, area))
            for category in params.catIds
            for area in range(len(params.areaRng))
            for image in params.imgIds
        ]
        evaluator._paramsEval = copy.deepcopy(params)
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


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


def _reduced(entry: dict[str, Any]) -> Match:
    return Match(
        dtScores=entry["dtScores"],
        dtMatches=np.asarray(entry["dtMatches"]) != 0,
        dtIgnore=np.asarray(entry["dtIgnore"], dtype=bool),
        gtIgnore=np.asarray(entry["gtIgnore"], dtype=bool),
    )
