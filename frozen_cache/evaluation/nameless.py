"""What a segmenter found in a view, as instances with category ids and no names, from which COCO results come."""

from __future__ import annotations

from collections.abc import Iterable

from frozen_cache.cache.attributes import Category
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.segmenters import Segmentation
from frozen_cache.inference.instances import Instances


def view_instances(view: CachedView, found: Segmentation, categories: Iterable[int]) -> Instances:
    """The selected pairs of a view: COCO results `bbox` have the detector's scores, `segm` the masks'.

    Args:
        categories: id of each of the cache's categories.
    """
    nameless: list[Category] = [{"id": category, "name": ""} for category in categories]
    return Instances.of_view(view, found, nameless)
