"""One image's masks pasted, put into run lengths, compared with the ground truth and judged: work for another process,
so nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from frozen_cache.evaluation.matching import ImageMatches, Kind, match_image
from frozen_cache.evaluation.mistakes import ImageVerdict, judge_image
from frozen_cache.evaluation.object_iou import ObjectIou, compare_object
from frozen_cache.finite_json import finite_json
from frozen_cache.inference.instances import Instances


@dataclass(frozen=True)
class MatchedMasks:
    """The masks of the queries that are matched to objects."""

    objects: np.ndarray
    """(M,) int64 places in the image's annotations."""
    rows: np.ndarray
    """(M,) int64 rows of the task's instances; those behind the last are of `others`."""
    others: Instances | None
    """What was matched without being selected."""


@dataclass(frozen=True)
class ImageTask:
    """What was found in an image, and what is there."""

    image: dict[str, Any]
    """COCO's: `id`, `height`, `width`."""
    truth: list[dict[str, Any]]
    """COCO annotations."""
    instances: Instances
    kinds: tuple[Kind, ...]
    """What to match by pycocotools."""
    matched: MatchedMasks | None = None
    """To compare object by object; None for not."""
    rungs: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Other COCO mask results of the image, to be matched too."""


@dataclass(frozen=True)
class ImageOutcome:
    """What an evaluation keeps of an image."""

    image: dict[str, Any]
    truth: list[dict[str, Any]]
    texts: dict[str, str]
    """`segm`, `bbox` -> JSON list of COCO results."""
    matches: dict[str, ImageMatches]
    """Kind of the task -> matches."""
    objects: list[ObjectIou]
    verdict: ImageVerdict
    rungs: dict[str, ImageMatches]


def image_outcome(task: ImageTask) -> ImageOutcome:
    """All that is to be done for an image once its masks are predicted.

    Raises:
        NotFiniteError: a number of its results.
    """
    number = task.image["id"]
    masks, boxes = task.instances.to_coco(number, kind="segm"), task.instances.to_coco(number, kind="bbox")
    results: dict[Kind, list[dict[str, Any]]] = {"segm": masks, "bbox": boxes}
    both = [mask | {"bbox": box["bbox"]} for mask, box in zip(masks, boxes, strict=True)]
    return ImageOutcome(
        image=task.image,
        truth=task.truth,
        texts={
            kind: finite_json(found, path=Path(f"image {number}'s part of {kind}_results.json"))
            for kind, found in results.items()
        },
        matches={kind: match_image(task.image, task.truth, results.get(kind, masks), kind) for kind in task.kinds},
        objects=[] if task.matched is None else _object_ious(task, task.matched),
        verdict=judge_image(number, both, task.truth),
        rungs={rung: match_image(task.image, task.truth, found, "segm") for rung, found in task.rungs.items()},
    )


def _object_ious(task: ImageTask, matched: MatchedMasks) -> list[ObjectIou]:
    parts = [task.instances] if matched.others is None else [task.instances, matched.others]
    rles = [rle for part in parts for rle in part.rles]
    boxes = np.concatenate([part.mask_boxes for part in parts])
    return [
        compare_object(task.truth[place], rles[row], boxes[row].tolist())
        for place, row in zip(matched.objects, matched.rows, strict=True)
    ]
