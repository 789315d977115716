"""The ground truth of several views of a segment, read together: what it needs of a disk, it needs once."""

from __future__ import annotations

import threading

import numpy as np

from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.layout import OBJECT_COLUMNS
from frozen_cache.data.rle import check_masks
from frozen_cache.data.supervision import Supervision
from frozen_cache.data.truth import GroundTruth

TRUTH_BYTES = 256 << 20
"""That a reader keeps of all segments; COCO's train2017 has 170 MB. What is beyond is read view by view."""


class TruthRoom:
    """So many bytes for what readers of segments keep. Safe in several threads."""

    def __init__(self, size: int = TRUTH_BYTES) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes, which are gone then."""
        with self._lock:
            fits = size <= self._left
            self._left -= size if fits else 0
            return fits


class TruthTable:
    """The objects of V views, checked."""

    def __init__(
        self,
        *,
        objects: np.ndarray,
        boxes: np.ndarray,
        rle: np.ndarray,
        supervision: np.ndarray | None,
        starts: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        """
        Args:
            objects, boxes, rle, supervision: the arrays of `truth/` as they are stored, from the first view on to the
                last; no supervision where all objects of the cache have masks.
            starts: (V + 1, 2) int64, the first object and the first byte of RLE of each view, and where the last ends.
            sizes: (V, 2) int64, (height, width) of each view's crop frame.

        Raises:
            NotWhole, ValueError: they contradict each other, or a mask is none.
        """
        self._starts = starts - starts[0]
        self._columns = dict(zip(OBJECT_COLUMNS, np.ascontiguousarray(objects.T), strict=True))
        self._boxes, self._rle, self._sizes = boxes, rle.tobytes(), sizes
        self._supervision = None if supervision is None else Supervision.from_array(supervision)
        lengths = self._columns["rle_bytes"]
        self._ends = np.concatenate([[0], np.cumsum(lengths)])
        if (lengths < 0).any() or (self._ends[self._starts[:, 0]] != self._starts[:, 1]).any():
            raise NotWhole("its masks are not cut as its objects say")
        frames = np.repeat(sizes, np.diff(self._starts[:, 0]), axis=0)
        check_masks(self._rle, lengths, frames[:, 0], frames[:, 1])  # pycocotools would write past its buffer

    def view(self, place: int) -> GroundTruth:
        """Of one view, in memory of its own."""
        (start, _), (stop, _) = self._starts[place : place + 2].tolist()
        span, size = slice(start, stop), self._sizes[place].tolist()
        ends = self._ends[start : stop + 1].tolist()
        boxes = self._boxes[span]
        known = self._supervision
        return GroundTruth(
            boxes=boxes[:, :4].copy(),
            categories=self._columns["category"][span].copy(),
            crowd=self._columns["crowd"][span].astype(bool),
            areas=boxes[:, 4].copy(),
            masks=[{"size": list(size), "counts": self._rle[ends[at] : ends[at + 1]]} for at in range(stop - start)],
            annotation_ids=self._columns["annotation_id"][span].copy(),
            match=self._columns["match"][span].copy(),
            supervision=None if known is None else Supervision(known.kinds[span].copy(), known.points[span].copy()),
        )
