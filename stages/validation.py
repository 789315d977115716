"""Validation while a head trains: metrics for the trainer, and what a report shows of the best one."""

from __future__ import annotations

from collections.abc import Callable

from accelerate import Accelerator

from frozen_cache.evaluation.evaluate import EvaluatedViews, Evaluation, evaluate_cache
from frozen_cache.evaluation.segmenters import FeatureSegmenter
from frozen_cache.evaluation.summary import summary
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.report.gallery import Gallery
from frozen_cache.report.page import Section
from frozen_cache.report.photographs import Photographs
from frozen_cache.report.result_sections import class_section, picture_section, precision_section


class Validation:
    """Called with a head by every process of a run, it gives COCO metrics on views; those of the first count.

    Args:
        pictures: finds the pictures for the report, once that is written.

    Attributes:
        best: the evaluation with the highest mask AP of those made here; None before the first.
    """

    def __init__(
        self,
        reader: EvaluatedViews,
        *,
        pictures: Callable[[], Photographs],
        encoder_layer: int,
        accelerator: Accelerator,
    ) -> None:
        self._reader, self._pictures, self._layer = reader, pictures, encoder_layer
        self._device = accelerator.device
        self._share = (accelerator.process_index, accelerator.num_processes)
        self.best: Evaluation | None = None

    def __call__(self, head: MaskHead) -> dict[str, dict[str, float]]:
        """AP and AR by kind: `segm`, `bbox`, `boundary`."""
        segmenter = FeatureSegmenter(head, encoder_layer=self._layer, device=self._device)
        found = evaluate_cache(self._reader, segmenter, share=self._share)
        if self.best is None or found.metrics["segm"]["AP"] > self.best.metrics["segm"]["AP"]:
            self.best = found
        return found.metrics

    def sections(self) -> list[Section]:
        """Classes, precision and pictures of the best evaluation; nothing before the first."""
        if self.best is None:
            return []
        metrics = summary(self.best, self._reader, of={})
        gallery = Gallery(self.best, self._pictures())
        return [class_section(metrics), precision_section(metrics), picture_section(gallery)]
