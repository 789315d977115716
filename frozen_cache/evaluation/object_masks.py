"""The masks that a head gives to annotated boxes: each object by the query that is matched with it, in all cached views
of its image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from frozen_cache.boxes import carried
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.averaging import shown
from frozen_cache.evaluation.segmenters import Segmenter


@dataclass(frozen=True)
class ObjectMasks:
    """Of N objects of one image."""

    places: list[int]
    """Of these among the objects that were asked for; the others have no matched query in any view."""
    masks: Tensor
    """(N, R, R) float32 probabilities, the mean of the views that show a cell."""
    boxes: Tensor
    """(N, 4) cxcywh in 0..1 of the plain view: what the masks cover."""
    scores: Tensor
    """(N,) float32: the IoU that the head predicts, or where it predicts none the mean probability of the mask (Eq. 2);
    the mean of the views."""


def object_masks(views: Iterable[CachedView], segmenter: Segmenter, *, ids: list[int], boxes: Tensor) -> ObjectMasks:
    """Segment annotated boxes, as training does with `rois.ground_truth`.

    Args:
        views: of one image, with what the segmenter reads of them and their objects matched.
        ids: of the M annotations.
        boxes: (M, 4) cxcywh in 0..1 of the plain view, with an inside.
    """
    count = len(ids)
    masks, cells = torch.zeros(count, 1, 1), torch.zeros(count, 1, 1)
    covered, scores, times = torch.zeros(count, 4), torch.zeros(count), torch.zeros(count)
    for view in views:
        row_of = dict(zip(view.truth.annotation_ids.tolist(), view.truth.match.tolist(), strict=True))
        category_of = dict(zip(view.truth.annotation_ids.tolist(), view.truth.categories.tolist(), strict=True))
        matched = [place for place, key in enumerate(ids) if row_of.get(key, -1) >= 0]
        if not matched:
            continue
        asked = view.take(torch.tensor([row_of[ids[place]] for place in matched]))
        # Scores of classes are 1, so that what is left are those of the masks.
        found = segmenter(
            replace(
                asked,
                boxes=carried(boxes[matched], view.transform),
                labels=torch.tensor([category_of[ids[place]] for place in matched]),
                scores=torch.ones(len(matched)),
            )
        )
        side = found.masks.shape[-1]
        # The plain view counts with all its cells, as in `ViewsSegmenter`.
        plain = view.transform.is_plain
        there, seen = (found.masks, torch.ones_like(found.masks)) if plain else shown(found, view.transform)
        if masks.shape[-1] != side:
            masks, cells = (part.expand(-1, side, side).clone() for part in (masks, cells))
        masks[matched] += there
        cells[matched] += seen
        scores[matched] += found.scores
        times[matched] += 1
        # What is covered is the box about its own centre, as large in each view.
        scale = found.boxes[:, 2:] / carried(boxes[matched], view.transform)[:, 2:]
        covered[matched] = torch.cat([boxes[matched, :2], boxes[matched, 2:] * scale], dim=1)
    places = times.nonzero()[:, 0]
    return ObjectMasks(
        places=places.tolist(),
        masks=(masks / cells.clamp(min=1))[places],
        boxes=covered[places],
        scores=(scores / times.clamp(min=1))[places],
    )
