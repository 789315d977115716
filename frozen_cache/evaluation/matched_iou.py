"""The masks that the queries matched to objects get, and their mean IoU: steadier than AP where images are few."""

from __future__ import annotations

import numpy as np
import torch

from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.nameless import view_instances
from frozen_cache.evaluation.object_iou import ObjectIou, compare_object
from frozen_cache.evaluation.segmenters import Segmentation, Segmenter, read_for
from frozen_cache.evaluation.truth import truth_annotations
from frozen_cache.inference.instances import Instances


def matched_iou(reader: CacheReader, segmenter: Segmenter) -> float:
    """Mean over all objects with a matched query, in all plain views, of the IoU of its mask with the object, in 0..1.

    Class scores play no part, so it measures masks alone; nan where nothing is matched.
    """
    found: list[ObjectIou] = []
    for at, (_, number) in enumerate(reader.views):
        if number == 0:
            found += view_object_ious(read_for(segmenter, reader, at), segmenter)
    return sum(entry.iou for entry in found) / len(found) if found else float("nan")


def instances_of_rows(view: CachedView, segmenter: Segmenter, rows: np.ndarray) -> Instances:
    """What a segmenter makes of some rows of a view, (M,) int64, selected or not: M nameless instances."""
    taken = view.take(torch.from_numpy(rows))
    return nameless_instances(taken, segmenter(taken))


def nameless_instances(view: CachedView, found: Segmentation) -> Instances:
    """What was found for the selected pairs of a view, as instances whose categories are indices."""
    return view_instances(view, found, range(int(view.labels.max()) + 1))


def view_object_ious(view: CachedView, segmenter: Segmenter) -> list[ObjectIou]:
    """The objects of a view that have a matched query."""
    objects = (view.truth.match >= 0).nonzero()[0]
    if not len(objects):
        return []
    instances = instances_of_rows(view, segmenter, view.truth.match[objects])
    truth = truth_annotations(view, list(range(int(view.truth.categories.max()) + 1)))
    return [
        compare_object(truth[place], rle, box)
        for place, rle, box in zip(objects, instances.rles, instances.mask_boxes.tolist(), strict=True)
    ]
