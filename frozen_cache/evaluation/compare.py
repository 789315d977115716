"""Several results on one ground truth: AP of each, and how sure the differences are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from frozen_cache.data.numbers import is_finite_number
from frozen_cache.data.segmentation import check_segmentation
from frozen_cache.errors import UserError
from frozen_cache.evaluation.bootstrap import DRAWS, Interval, draw_images, interval, tally_results
from frozen_cache.evaluation.coco import coco_scores


@dataclass(frozen=True)
class Compared:
    """One set of mask results."""

    name: str
    metrics: dict[str, float]
    ap: Interval
    """AP and where 95 % of the AP of drawn images lie."""
    difference: Interval | None
    """AP minus that of the first one, on the same draws; None for the first."""
    classes: dict[int, float]
    """AP by category id; -1 where there is no object."""


def read_results(path: Path) -> list[dict[str, Any]]:
    """The mask results in a folder of `evaluate`, or in a COCO result file of any tool.

    Raises:
        UserError: there are none.
    """
    file = path / "segm_results.json" if path.is_dir() else path
    try:
        results = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"--compare {path}: there is no {file}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"--compare {file} cannot be read as JSON: {error}") from None
    if not isinstance(results, list):
        raise UserError(f"--compare {file} is not a COCO result file: it holds no list")
    for at, entry in enumerate(results):
        missing = {"image_id", "category_id", "segmentation", "score"} - set(entry if isinstance(entry, dict) else ())
        if missing:
            raise UserError(f"--compare {file}: entry {at} has no `{min(missing)}`")
    return results


def check_results(name: str, results: list[dict[str, Any]], truth: COCO) -> None:
    """UserError where `results` are of images or categories that `truth` does not have, or no scored masks of them."""
    for at, entry in enumerate(results):
        for key, known in (("image_id", truth.imgs), ("category_id", truth.cats)):
            if not isinstance(entry[key], int | float) or entry[key] not in known:
                raise UserError(f"--compare {name}: entry {at} has {key} {entry[key]}, which the cache does not have")
        if not is_finite_number(entry["score"]):
            raise UserError(f"--compare {name}: entry {at} has the score {entry['score']!r:.60}, which is no number")
        image, mask = truth.imgs[entry["image_id"]], entry["segmentation"]
        if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
            raise UserError(f"--compare {name}: entry {at} has no compressed RLE as its segmentation")
        try:
            check_segmentation(mask, height=image["height"], width=image["width"])
        except ValueError as error:
            raise UserError(f"--compare {name}: entry {at}: {error}") from None


def compare(truth: COCO, named: dict[str, list[dict[str, Any]]], *, draws: int = DRAWS) -> list[Compared]:
    """Mask AP of each set of results; the first is what the others are compared with."""
    counts = draw_images(len(truth.imgs), draws=draws)
    rows: list[Compared] = []
    first: tuple[float, np.ndarray] | None = None
    for name, results in named.items():
        scores = coco_scores(truth, results, "segm")
        metrics, classes = scores.metrics, {entry.id: entry.metrics["AP"] for entry in scores.classes}
        drawn = tally_results(truth, results, "segm").average_precision(counts)
        if first is None:
            first, difference = (metrics["AP"], drawn), None
        else:
            difference = interval(metrics["AP"] - first[0], drawn - first[1])
        rows.append(Compared(name, metrics, interval(metrics["AP"], drawn), difference, classes))
    return rows
