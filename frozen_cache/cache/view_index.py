"""What the ledger says of each view, in arrays: a cache of COCO has 118,000 views, and each worker opens it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from frozen_cache.cache.ledger import BrokenImage, SegmentRecord


class ViewIndex(Sequence[tuple[int, int]]):
    """The V views of a cache, segment by segment; as a sequence, (image id, view index) of each."""

    def __init__(
        self,
        *,
        segments: np.ndarray,
        starts: np.ndarray,
        columns: np.ndarray,
        shapes: np.ndarray,
        broken: list[BrokenImage],
    ) -> None:
        self._segments = segments
        """(S,) int64 numbers of the segments."""
        self._starts = starts
        """(S + 1,) int64, the first view of each segment."""
        self._columns = columns
        """(V, 5) int64: image id, view index, resized height and width, matched objects."""
        self._shapes = shapes
        """(V, M, 3) int32: C, H, W of C1 (where there is one) and of each encoder level."""
        self.broken = broken
        """Images that were left out, each once."""

    @classmethod
    def build(cls, segments: Iterable[int], records: Iterable[SegmentRecord]) -> ViewIndex:
        """From the lines of the ledger, in the order of `segments`; they are not kept."""
        counts, columns, shapes = [], [], []
        broken: dict[int, BrokenImage] = {}
        for record in records:
            counts.append(len(record.image_ids))
            columns.append(_columns(record))
            if record.shapes:
                shapes.append(np.array(record.shapes, dtype=np.int32))
            broken |= {image.image_id: image for image in record.broken}
        return cls(
            segments=np.array(list(segments), dtype=np.int64),
            starts=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            columns=np.concatenate(columns) if columns else np.zeros((0, 5), dtype=np.int64),
            shapes=np.concatenate(shapes) if shapes else np.zeros((0, 0, 3), dtype=np.int32),
            broken=list(broken.values()),
        )

    def __len__(self) -> int:
        return len(self._columns)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        """(image id, view index)."""
        if isinstance(index, slice):
            return [(image, view) for image, view in self._columns[index, :2].tolist()]
        image, view = self._columns[index, :2].tolist()
        return image, view

    def place(self, index: int) -> tuple[int, int]:
        """(segment's number, row in it) of a view."""
        index = range(len(self))[index]
        at = int(np.searchsorted(self._starts, index, side="right")) - 1
        return int(self._segments[at]), index - int(self._starts[at])

    def resized_size(self, index: int) -> tuple[int, int]:
        """(height, width) of the detector's input, in pixels."""
        height, width = self._columns[index, 2:4].tolist()
        return height, width

    def matched(self, index: int) -> int:
        """Objects that have a matched query."""
        return int(self._columns[index, 4])

    def shapes(self, index: int) -> tuple[tuple[int, int, int], ...]:
        """(C, H, W) of each map."""
        return tuple((channels, height, width) for channels, height, width in self._shapes[index].tolist())

    def changed(self, record: SegmentRecord) -> bool:
        """Whether a segment's line has other views than those that were indexed."""
        at = int(np.searchsorted(self._segments, record.segment))
        part = self._columns[self._starts[at] : self._starts[at + 1]]
        return not np.array_equal(part, _columns(record))


def _columns(record: SegmentRecord) -> np.ndarray:
    """(views, 5) int64."""
    columns = np.empty((len(record.image_ids), 5), dtype=np.int64)
    columns[:, 0], columns[:, 1] = record.image_ids, record.view_indices
    columns[:, 2:4] = np.array(record.resized_sizes, dtype=np.int64).reshape(-1, 2)
    columns[:, 4] = record.matched
    return columns
