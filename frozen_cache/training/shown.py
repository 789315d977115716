"""Views as a detector in the loop is shown them, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from torch import Tensor

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.collect import LabelTable, collect_view
from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform
from frozen_cache.detectors.output import DetectorOutput


@dataclass(frozen=True)
class ShownView:
    """One view of one image, before the detector has seen it."""

    image_id: int
    view: int
    transform: ViewTransform
    truth: GroundTruth
    """None matched yet."""
    pixels: Tensor
    """(3, H, W) in 0..255, of the detector's input."""


def same_sized(views: Sequence[ShownView], *, most: int) -> list[list[ShownView]]:
    """Neighbours of equal size, which the detector sees together without any padding.

    Args:
        most: pixels of such a batch; a single view may have more.
    """
    batches = []
    for shape, run in groupby(views, key=lambda view: view.pixels.shape):
        members, count = list(run), max(1, most // shape[1:].numel())
        batches += [members[at : at + count] for at in range(0, len(members), count)]
    return batches


def collected(output: DetectorOutput, shown: Sequence[ShownView], attributes: CacheAttributes) -> list[CachedView]:
    """What a cache of these attributes would hold of each view of a batch; gradients stay where there are any.

    Args:
        output: for `shown` in this order, its boxes and scores on the CPU.
    """
    table = LabelTable.build(
        output.labels, attributes.label_to_category, [category["id"] for category in attributes.categories]
    )
    return [
        collect_view(
            output,
            at,
            image_id=view.image_id,
            view=view.view,
            transform=view.transform,
            truth=view.truth,
            table=table,
            top_k=attributes.top_k,
            one_label_per_query=attributes.detector.one_label_per_query,
        )
        for at, view in enumerate(shown)
    ]


def without_maps(view: CachedView) -> CachedView:
    """Its rows alone."""
    return replace(view, c1=None, encoder={})
