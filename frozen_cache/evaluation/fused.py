"""Test-time augmentation: detections of all views of an image fused, and masks of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch

from frozen_cache.boxes import carried
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError
from frozen_cache.evaluation.averaging import shown
from frozen_cache.evaluation.fusion import FusedView, fuse
from frozen_cache.evaluation.segmenters import AroundSegmenter, Segmentation


class FusedSegmenter(AroundSegmenter):
    """A segmenter's masks of fused detections (`fusion.fuse`): each member's query segments the fused box in its own
    view, and the probabilities are averaged cell by cell. Cells beyond a view do not count there."""

    @property
    def mask_depends_on_query_alone(self) -> bool:
        """Whether that is so of the segmenter."""
        return getattr(self.segmenter, "mask_depends_on_query_alone", False)

    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the selected detections of a `FusedView`."""
        if not isinstance(view, FusedView):
            raise TypeError(f"image {view.image_id}: give a fused view")
        count, boxes = view.selected, view.boxes[: view.selected]
        masks = cells = torch.zeros(count, 1, 1)
        scores, times, windows = torch.zeros(count), torch.zeros(count), boxes.clone()
        for number, source in enumerate(view.sources):
            rows = (view.members[:count, number] >= 0).nonzero()[:, 0]
            if not len(rows):
                continue
            there = carried(boxes[rows], source.transform)
            asked = source.take(view.members[rows, number])
            found = self.segmenter(replace(asked, boxes=there, labels=view.labels[rows], scores=view.scores[rows]))
            if masks.shape[-1] == 1:
                masks, cells = (torch.zeros(count, *found.masks.shape[1:]) for _ in range(2))
            own, seen = shown(found, source.transform)
            masks[rows] += own
            cells[rows] += seen
            scores[rows] += found.scores
            times[rows] += 1
            # What is covered is the box about its own centre, as large in each view.
            windows[rows] = torch.cat([boxes[rows, :2], boxes[rows, 2:] * (found.boxes[:, 2:] / there[:, 2:])], dim=1)
        return Segmentation(masks=masks / cells.clamp(min=1), boxes=windows, scores=scores / times.clamp(min=1))


class FusedViews:
    """The images of a cache of test-time augmentation, each as one view with fused detections (`fusion.fuse`)."""

    def __init__(self, reader: CacheReader) -> None:
        if not reader.attributes.tta:
            raise UserError(f"--tta, but {reader.path} has other views: extract them with --tta")
        self.path, self.attributes = reader.path, reader.attributes
        self._reader = reader
        places: dict[int, dict[int, int]] = defaultdict(dict)
        for at, (image, number) in enumerate(reader.views):
            places[image][number] = at
        self.views = [(image, 0) for image, number in reader.views if number == 0]
        self._places = [[places[image][number] for number in sorted(places[image])] for image, _ in self.views]

    def read(
        self,
        index: int,
        *,
        encoder_layers: Sequence[int] | None = None,
        c1: bool = True,
        device: torch.device | None = None,
        close_up: bool = False,
    ) -> FusedView:
        """One image, its views with their maps as float32 on a device."""
        plain, *others = (
            self._reader.read(at, encoder_layers=encoder_layers, c1=c1, device=device, close_up=close_up)
            for at in self._places[index]
        )
        return fuse(plain, others)
