"""Masks averaged with no training: over heads, over sides of the RoI, over the cached views of an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from frozen_cache.boxes import carried
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.data.view import ViewTransform
from frozen_cache.errors import UserError
from frozen_cache.evaluation.segmenters import AroundSegmenter, FeatureSegmenter, Segmentation, Segmenter, read_for
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.masks.resample import cell_centres, resampled

SAME_IOU = 0.5
"""From which IoU on the boxes of two views are taken for one thing."""


def head_segmenter(
    heads: Sequence[MaskHead],
    *,
    encoder_layer: int,
    device: torch.device,
    roi_sizes: Sequence[int] = (),
    half: torch.dtype | None = None,
) -> FeatureSegmenter | MeanSegmenter:
    """The mean of heads that read one encoder layer, each at each of `roi_sizes` (none: at its own).

    Args:
        half: what autocast computes them in; None for float32.

    Raises:
        UserError: a head whose weights are bound to its own RoI size.
    """
    sized = [head.at_roi_size(size) for head in heads for size in roi_sizes] if roi_sizes else list(heads)
    members = [FeatureSegmenter(head, encoder_layer=encoder_layer, device=device, half=half) for head in sized]
    return members[0] if len(members) == 1 else MeanSegmenter(members)


class MeanSegmenter:
    """The mean of the probabilities of several heads, on the finest of their cells and the largest of what they cover;
    the mean of their scores."""

    def __init__(self, members: Sequence[FeatureSegmenter]) -> None:
        self.members = list(members)
        self.encoder_layer = members[0].encoder_layer
        self.device = members[0].device

    @property
    def mask_depends_on_query_alone(self) -> bool:
        """Whether that is so of all of them."""
        return all(member.mask_depends_on_query_alone for member in self.members)

    @property
    def zooms(self) -> bool:
        """Whether one of them does."""
        return any(member.zooms for member in self.members)

    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the view's selected pairs."""
        found = [member(view) for member in self.members]
        side = max(each.masks.shape[-1] for each in found)
        widest = max(found, key=lambda each: float(each.boxes[:, 2:].sum())).boxes
        masks = [resampled(each.masks, each.boxes, onto_cxcywh=widest, side=side) for each in found]
        return Segmentation(
            masks=torch.stack(masks).mean(0), boxes=widest, scores=torch.stack([each.scores for each in found]).mean(0)
        )


class ViewsSegmenter(AroundSegmenter):
    """A segmenter's masks of an image's plain view, averaged with those in further cached views (`mean_of_views`).

    Args:
        segmenter: any that reads features.
        reader: of the cache that the views come from.
        views: of each image, the plain one included.
    """

    def __init__(self, segmenter: Segmenter, reader: CacheReader, *, views: int) -> None:
        super().__init__(segmenter)
        self.reader = reader
        self._further: dict[int, list[int]] = defaultdict(list)
        for at, (image, number) in enumerate(reader.views):
            if 0 < number < views:
                self._further[image].append(at)
        fewest = min((len(self._further[image]) + 1 for image, number in reader.views if number == 0), default=views)
        if fewest < views:
            raise UserError(
                f"--views {views}, but {reader.path} has an image with {fewest} alone: extract it with --views {views}"
            )

    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the plain view's selected pairs."""
        others = (read_for(self.segmenter, self.reader, at) for at in self._further[view.image_id])
        return mean_of_views(self.segmenter, view, others)


def mean_of_views(segmenter: Segmenter, view: CachedView, others: Iterable[CachedView]) -> Segmentation:
    """A segmenter's masks of an image's plain view, averaged with those that it gives the same boxes in other views.

    A detection of the plain view meets in another view the one of its own label whose box overlaps its own the most,
    by an IoU of at least SAME_IOU: that one's query segments the plain view's box there. Where there is none, or where
    a cell of the mask lies outside of the view, the others count alone. Scores are averaged likewise.
    """
    plain = segmenter(view)
    masks, scores = plain.masks.clone(), plain.scores.clone()
    cells, times = torch.ones_like(masks), torch.ones_like(scores)
    for other in others:
        boxes = carried(view.boxes[: view.selected], other.transform)
        rows, partners = _same(view, boxes, other)
        if not len(rows):
            continue
        asked = replace(other.take(partners), boxes=boxes[rows], labels=view.labels[rows], scores=view.scores[rows])
        found = segmenter(asked)
        there, seen = shown(found, other.transform)
        masks[rows] += there
        cells[rows] += seen
        scores[rows] += found.scores
        times[rows] += 1
    return Segmentation(masks=masks / cells, boxes=plain.boxes, scores=scores / times)


def _same(view: CachedView, boxes: Tensor, other: CachedView) -> tuple[Tensor, Tensor]:
    """Rows of the view that have a partner among the other view's selected pairs, and these; `boxes` (K, 4) are the
    view's, as they lie in the other one."""
    if not view.selected or not other.selected:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    overlap = box_iou(*(box_convert(each, "cxcywh", "xyxy") for each in (boxes, other.boxes[: other.selected])))
    best, partner = (overlap * (view.labels[: view.selected, None] == other.labels[: other.selected])).max(1)
    rows = (best >= SAME_IOU).nonzero()[:, 0]
    return rows, partner[rows]


def shown(found: Segmentation, view: ViewTransform) -> tuple[Tensor, Tensor]:
    """What a view's masks add to the plain view's: (N, R, R) probabilities of the cells whose centres lie within the
    view, 0 elsewhere, and 1 and 0 for these; mirrored where the view is."""
    centres = cell_centres(found.boxes, found.masks.shape[-1])
    seen = ((centres >= 0) & (centres <= 1)).all(-1).to(found.masks.dtype)
    there = found.masks * seen
    return (there.flip(-1), seen.flip(-1)) if view.flip else (there, seen)
