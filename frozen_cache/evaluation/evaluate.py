"""Evaluation of a segmenter on a cache: COCO results of its plain views, and their metrics.

Images are worked off as they come: threads of this process read and predict, other processes paste, compare and match,
results go to disk, and of each image a few kB of figures stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pycocotools.coco import COCO

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.ahead import ahead, chosen_threads
from frozen_cache.evaluation.coco import CocoScores, scores_of
from frozen_cache.evaluation.dealt import dealt
from frozen_cache.evaluation.fused import FusedViews
from frozen_cache.evaluation.ladder import ladder_results
from frozen_cache.evaluation.matched_iou import instances_of_rows, nameless_instances
from frozen_cache.evaluation.matching import ImageMatches, Kind, coco_in_memory, joined
from frozen_cache.evaluation.mistakes import ImageVerdict
from frozen_cache.evaluation.nameless import view_instances
from frozen_cache.evaluation.object_iou import ObjectIou
from frozen_cache.evaluation.outcome import ImageOutcome, ImageTask, MatchedMasks, image_outcome
from frozen_cache.evaluation.result_store import ResultStore
from frozen_cache.evaluation.scorers import CocoApi, make_scorer
from frozen_cache.evaluation.segmenters import ReadableViews, Segmentation, Segmenter, read_for
from frozen_cache.evaluation.spread import chosen_workers, spread
from frozen_cache.evaluation.truth import truth_annotations
from frozen_cache.inference.instances import Instances
from frozen_cache.progress import progress_bar


class EvaluatedViews(ReadableViews, Protocol):
    """What is evaluated: a cache, or images that a detector sees only then."""

    @property
    def path(self) -> object:
        """Where it is, for people."""
        ...

    @property
    def attributes(self) -> CacheAttributes:
        """The cache's; in the loop, of the cache that would be."""
        ...

    @property
    def views(self) -> Sequence[tuple[int, int]]:
        """(image id, view index) of each view."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """COCO scores by kind (`segm`, `bbox`, `boundary`), and what they were made of."""

    scores: dict[str, CocoScores]
    results: ResultStore
    """COCO results, `segm` and `bbox`, on disk."""
    truth: COCO
    """The cached ground truth."""
    objects: list[ObjectIou]
    """Of the objects with a matched query; empty unless asked for."""
    verdicts: list[ImageVerdict]
    """Every image's, in the order of the cache."""
    ladder: dict[str, dict[str, float]]
    """Metrics of the masks with one thing put right at a time (`RUNGS`); empty unless asked for."""

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """AP and AR by kind: `segm`, `bbox`, `boundary`."""
        return {kind: scores.metrics for kind, scores in self.scores.items()}


def evaluate_cache(
    reader: EvaluatedViews,
    segmenter: Segmenter,
    *,
    object_ious: bool = False,
    ladder: bool = False,
    coco_api: CocoApi = "pycocotools",
    workers: int | None = None,
    folder: Path | None = None,
    share: tuple[int, int] = (0, 1),
    threshold: float = 0.0,
) -> Evaluation:
    """Segment every image's plain view and compare with the cached ground truth.

    Args:
        object_ious: also measure each object's mask in its matched box.
        ladder: also put one thing right at a time (`frozen_cache.evaluation.ladder`).
        coco_api: what matches boxes and masks and computes AP.
        workers: processes that paste, compare and match; 0 for this one alone, None for as many as pay.
        folder: where results lie meanwhile; None for the system's place for such files.
        share: (this process, processes) of a run whose processes all call this: each reads and segments its part, the
            first gets the evaluation, the others one of no images.
        threshold: detections whose boxes have a lower score are left out, and get no mask.

    Raises:
        UserError: hotcoco is asked for and not installed.
        NotFiniteError: a number among the results.
    """
    named = list(reader.attributes.categories)
    scorer = make_scorer(coco_api, named)
    results = ResultStore(folder)
    plain = [at for at, (_, view) in enumerate(reader.views) if view == 0]
    workers = chosen_workers(len(plain), processes=share[1]) if workers is None else min(workers, len(plain))
    # With the detector in the loop, it is the detector that PyTorch's threads are for.
    threads = chosen_threads(segmenter.device) if isinstance(reader, CacheReader | FusedViews) else 1
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    objects: list[ObjectIou] = []
    verdicts: list[ImageVerdict] = []
    rungs: dict[str, dict[int, ImageMatches]] = {}

    def task(place: int) -> ImageTask:
        view = _above(read_for(segmenter, reader, place), threshold)
        return _task(reader, segmenter, view, scorer.matched, object_ious=object_ious, ladder=ladder)

    def outcomes(places: list[int]) -> Iterator[ImageOutcome]:
        return spread(image_outcome, ahead(task, places, threads=threads), workers=workers)

    with progress_bar(total=len(plain), desc="evaluate", unit="img", leave=False, shown=share[0] == 0) as bar:
        for outcome in dealt(outcomes, plain, share=share):
            images.append(outcome.image)
            annotations += outcome.truth
            results.add(outcome.image["id"], outcome.texts)
            scorer.add(outcome)
            objects += outcome.objects
            verdicts.append(outcome.verdict)
            for rung, matches in outcome.rungs.items():
                rungs.setdefault(rung, {})[outcome.image["id"]] = matches
            bar.update()
    scores = scorer.scores()
    counts = {entry.id: entry.objects for entry in scores["segm"].classes}
    return Evaluation(
        scores=scores,
        results=results,
        truth=coco_in_memory({"images": images, "annotations": annotations, "categories": named}),
        objects=objects,
        verdicts=verdicts,
        ladder={rung: scores_of(joined(matches, counts), named, counts).metrics for rung, matches in rungs.items()},
    )


def _task(
    reader: EvaluatedViews,
    segmenter: Segmenter,
    view: CachedView,
    kinds: tuple[Kind, ...],
    *,
    object_ious: bool,
    ladder: bool,
) -> ImageTask:
    """An image segmented."""
    categories = [category["id"] for category in reader.attributes.categories]
    behind = _behind(view) if object_ious else np.zeros(0, dtype=np.int64)
    segmentation, others = _segmented(view, segmenter, behind)
    height, width = view.transform.original_size
    return ImageTask(
        image={"id": view.image_id, "height": height, "width": width},
        truth=truth_annotations(view, categories),
        instances=view_instances(view, segmentation, categories),
        kinds=kinds,
        matched=_matched(view, behind, others) if object_ious else None,
        rungs=ladder_results(view, segmenter, segmentation, categories) if ladder else {},
    )


def _above(view: CachedView, threshold: float) -> CachedView:
    """The view with those detections only; what was matched stays behind them."""
    return replace(view, selected=int((view.scores[: view.selected] >= threshold).sum())) if threshold else view


def _behind(view: CachedView) -> np.ndarray:
    """(M,) int64 rows of the queries that are matched without being selected."""
    rows = view.truth.match
    return np.unique(rows[rows >= view.selected])


def _segmented(view: CachedView, segmenter: Segmenter, behind: np.ndarray) -> tuple[Segmentation, Instances | None]:
    """The masks of the selected pairs, and of the rows behind them: in one go where masks do not know of each other."""
    if not len(behind):
        return segmenter(view), None
    if not getattr(segmenter, "mask_depends_on_query_alone", False):
        return segmenter(view), instances_of_rows(view, segmenter, behind)
    rows = torch.cat([torch.arange(view.selected), torch.from_numpy(behind)])
    found = segmenter(view.take(rows))
    return found[: view.selected], nameless_instances(view.take(rows[view.selected :]), found[view.selected :])


def _matched(view: CachedView, behind: np.ndarray, others: Instances | None) -> MatchedMasks:
    """Where the masks of the matched queries are: among the selected ones, or among those behind."""
    objects = (view.truth.match >= 0).nonzero()[0]
    rows = view.truth.match[objects]
    place = view.selected + np.searchsorted(behind, rows)
    return MatchedMasks(objects=objects, rows=np.where(rows < view.selected, rows, place), others=others)
