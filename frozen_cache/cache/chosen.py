"""Views of caches, chosen to become another cache: their order, what they are counted as, and writing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from frozen_cache.cache.assemble import write_copied
from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.cache.stem_files import copy_stem
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.data.choices import AnnotationCounts
from frozen_cache.data.supervision import Kind, Supervision
from frozen_cache.progress import progress_bar
from frozen_cache.remote import CachePath


@dataclass(frozen=True)
class Source:
    """A cache from which views are taken, and how its numbers are changed on the way."""

    reader: CacheReader
    label_of: np.ndarray
    """(categories,) int64: index of a category of the source -> its index in the new cache."""
    annotations_from: int = 0
    """Added to its annotation ids."""
    points: int | None = None
    """Of the new cache: room for points of an object."""

    @classmethod
    def of(
        cls,
        reader: CacheReader,
        categories: Sequence[int] | None = None,
        *,
        annotations_from: int = 0,
        points: int | None = None,
    ) -> Source:
        """With the new cache's category ids, and its room for points; None where they are the source's."""
        own = [category["id"] for category in reader.attributes.categories]
        place = {key: at for at, key in enumerate(own if categories is None else categories)}
        return cls(reader, np.array([place[key] for key in own], dtype=np.int64), annotations_from, points)

    def changed(self, array: str, values: np.ndarray) -> np.ndarray:
        """What the new cache has of a view's part of an array."""
        if array == "rows":
            values = values.copy()
            values[:, 5] = self.label_of[values[:, 5].astype(np.int64)]
        elif array == "truth/objects":
            values = values.copy()
            values[:, 0] += self.annotations_from
            values[:, 1] = self.label_of[values[:, 1]]
        elif array == "truth/supervision" and self.points is not None:
            values = Supervision.from_array(values).to_array(self.points)
        return values


@dataclass(frozen=True)
class ChosenView:
    """A view of a source."""

    source: Source
    index: int
    """In the source's reader."""

    @property
    def key(self) -> tuple[int, int]:
        """(image id, view)."""
        return self.source.reader.views[self.index]

    @property
    def order(self) -> tuple[tuple[int, int], int, int]:
        """By which a cache has its views: resized size, image id, view."""
        return (self.source.reader.resized_size(self.index), *self.key)

    def opened(self) -> tuple[SegmentReader, int]:
        """The segment and row where it is stored."""
        return self.source.reader.place(self.index)

    def objects(self) -> np.ndarray:
        """(objects, 5) int64, its part of `truth/objects` as the new cache has it."""
        segment, row = self.opened()
        return self.source.changed("truth/objects", segment.stored("truth/objects", row))

    def kinds(self) -> np.ndarray:
        """(objects,) of `Kind`."""
        segment, row = self.opened()
        return segment.stored("truth/supervision", row)[:, 0]


def counted(views: Iterable[ChosenView], category_ids: Sequence[int]) -> AnnotationCounts:
    """The objects of the plain views."""
    per_category: Counter[int] = Counter()
    crowds = 0
    kinds: Counter[int] = Counter()
    for view in views:
        if view.key[1] == 0:
            objects = view.objects()
            crowds += int(objects[:, 2].sum())
            kinds.update(view.kinds().tolist())
            per_category.update(category_ids[at] for at in objects[objects[:, 2] == 0, 1].tolist())
    return AnnotationCounts(
        objects=per_category.total(),
        crowds=crowds,
        per_category=dict(sorted(per_category.items())),
        points_alone=kinds[Kind.POINTS],
        boxes_alone=kinds[Kind.BOX],
    )


def write_chosen(out: CachePath, attributes: CacheAttributes, views: Iterable[ChosenView], *, desc: str) -> int:
    """Make the cache `out` of these views, or what is still open of it; returns how many segments stay open.

    Raises:
        UserError: `out` was made of something else.
        DamagedCacheError: a view of a source is not what was written.
    """
    ordered = _dealt(views, whole_images=attributes.stem is not None)
    size = attributes.views_per_segment
    writer = CacheWriter(out, attributes)
    try:
        copy_stem(out, ordered[0].source.reader.path, attributes.stem)
        with progress_bar(total=len(ordered), desc=desc, unit="view") as bar:
            for segment in range(attributes.segment_count):
                part = sorted(ordered[segment * size : (segment + 1) * size], key=lambda view: view.order)
                if not writer.is_committed(segment) and writer.claim(segment):
                    with writer.place(segment) as place:
                        place.record = write_copied(
                            place.folder,
                            [view.opened() for view in part],
                            attributes,
                            segment=segment,
                            name=place.name,
                            change=_change(part),
                        )
                bar.update(len(part))
        return len(writer.pending())
    finally:
        writer.close()


def _dealt(views: Iterable[ChosenView], *, whole_images: bool) -> list[ChosenView]:
    """Views in the order in which a cache deals them out, as `dealing.in_order` does."""
    ordered = sorted(views, key=lambda view: view.order)
    if not whole_images:
        return ordered
    first = {view.key[0]: view.order[0] for view in sorted(ordered, key=lambda view: view.key, reverse=True)}
    return sorted(ordered, key=lambda view: (first[view.key[0]], *view.key))


def _change(part: list[ChosenView]) -> Callable[[str, int, np.ndarray], np.ndarray]:
    return lambda array, place, values: part[place].source.changed(array, values)
