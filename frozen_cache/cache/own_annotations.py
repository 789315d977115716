"""The annotations that a cache was made with, as far as it keeps them: those of its plain views."""

from __future__ import annotations

from frozen_cache.cache.reader import CacheReader
from frozen_cache.data.annotation import CocoAnnotation
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.supervision import NO_POINT, Kind
from frozen_cache.data.truth import GroundTruth


def own_annotations(reader: CacheReader) -> list[CocoImage]:
    """The images of a cache by rising id, with their annotations; without file names, which it does not keep.

    `view_truth` gives from them what the cache has.
    """
    categories = [category["id"] for category in reader.attributes.categories]
    found = []
    for index, (image_id, number) in enumerate(reader.views):
        if number == 0:
            view = reader.read_stored(index, encoder_layers=(), c1=False).rows
            height, width = view.transform.original_size
            found.append(CocoImage(image_id, "", height, width, _annotations(view.truth, categories)))
    return sorted(found, key=lambda image: image.id)


def _annotations(truth: GroundTruth, categories: list[int]) -> list[CocoAnnotation]:
    kinds, points = [int(Kind.MASK)] * len(truth.boxes), None
    if truth.supervision is not None:
        kinds, points = truth.supervision.kinds.tolist(), truth.supervision.points
    found = []
    for at, (x0, y0, x1, y1) in enumerate(truth.boxes.tolist()):
        there = [] if points is None else points[at][points[at, :, 2] != NO_POINT].tolist()
        found.append(
            CocoAnnotation(
                id=int(truth.annotation_ids[at]),
                category_id=categories[int(truth.categories[at])],
                bbox=(x0, y0, x1 - x0, y1 - y0),
                area=float(truth.areas[at]),
                crowd=bool(truth.crowd[at]),
                rle=truth.masks[at],
                kind=Kind(kinds[at]),
                points=tuple((x, y, int(label)) for x, y, label in there),
            )
        )
    return found
