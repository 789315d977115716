"""The thread that turns detector outputs into segments while the detector works on."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from contextvars import copy_context
from queue import Queue
from types import TracebackType
from typing import Protocol

from frozen_cache.cache.collect import LabelTable, collect_view
from frozen_cache.cache.segment_writer import SegmentWriter
from frozen_cache.cache.writer import CacheWriter
from frozen_cache.data.batches import PlannedView, ViewBatch
from frozen_cache.data.copy_paste import Pasted, pasted_objects
from frozen_cache.data.fingerprint import annotation_sum
from frozen_cache.data.truth import view_truth
from frozen_cache.detectors.output import DetectorOutput
from frozen_cache.progress import progress_bar

Item = tuple[ViewBatch, DetectorOutput | None]


class Watch(Protocol):
    """Is told how the recording goes, in the writing thread; what it raises ends it."""

    def added(self, views: list[PlannedView]) -> None:
        """A batch has been handed to the segment's writer."""

    def committed(self, segment: int) -> None:
        """A segment stands in the ledger."""


class Recorder:
    """Takes batches in the order of their segments and commits each segment after its last batch.

    Used as a context: leaving it well waits until all is committed; leaving it by an exception drops the segment in
    progress. An error of the writing thread is raised by the next `put`, or on leaving.
    """

    def __init__(
        self, writer: CacheWriter, *, category_ids: list[int], total: int, waiting: int = 2, watch: Watch | None = None
    ) -> None:
        self._writer = writer
        self._ids = category_ids
        self._total = total
        self._watch = watch
        self._queue: Queue[Item | None] = Queue(maxsize=waiting)
        self._stop = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._table: LabelTable | None = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), name="cache-writer", daemon=True)
        self.views = 0
        """Views written."""
        self.broken: set[int] = set()
        """Ids of images that could not be read."""
        self.pasted = 0
        """Objects of other images pasted into views."""
        self.covered = 0
        """Objects dropped, as pasted ones cover them."""

    def put(self, batch: ViewBatch, output: DetectorOutput | None) -> None:
        """Hand a batch over; waits while the writer is behind."""
        self._raise()
        self._queue.put((batch, output))

    def __enter__(self) -> Recorder:
        self._bar = progress_bar(total=self._total, unit="img", desc="extract", smoothing=0.05)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stop.set()
        self._queue.put(None)
        self._thread.join()
        self._bar.close()
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (item := self._next()) is not None and not self._stop.is_set():
                self._segment(item)
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error
        while not self._ended:  # let go of whoever waits in `put`
            self._next()

    def _next(self) -> Item | None:
        item = self._queue.get()
        self._ended = item is None
        return item

    def _segment(self, first: Item) -> None:
        context: AbstractContextManager[SegmentWriter] = self._writer.segment(first[0].segment)
        item: Item | None = first
        with context as segment:
            while True:
                if item is None or self._stop.is_set():
                    raise _Stopped
                batch, output = item
                self._add(segment, batch, output)
                if self._watch is not None:
                    self._watch.added(batch.views)
                if batch.last:
                    break
                item = self._next()
        if self._watch is not None:
            self._watch.committed(first[0].segment)

    def _add(self, segment: SegmentWriter, batch: ViewBatch, output: DetectorOutput | None) -> None:
        attributes = self._writer.attributes
        for image, error in batch.broken:
            segment.add_broken(image.id, str(error))
            self.broken.add(image.id)
            self._bar.update()
        index = {category: place for place, category in enumerate(self._ids)}
        for place, view in enumerate(batch.views):
            assert output is not None
            shown = Pasted(view.image) if view.paste is None else pasted_objects(view.image, view.paste)
            self.pasted += shown.added
            self.covered += shown.covered
            if self._table is None:
                self._table = LabelTable.build(output.labels, attributes.label_to_category, self._ids)
            segment.append(
                collect_view(
                    output,
                    place,
                    image_id=view.image.id,
                    view=view.view,
                    transform=view.transform,
                    truth=view_truth(shown.image, view.transform, index),
                    table=self._table,
                    top_k=attributes.top_k,
                    one_label_per_query=attributes.detector.one_label_per_query,
                ),
                image_crc=batch.crcs[place],
                image_file=None if attributes.stem is None else batch.files[place],
                annotation_sum=annotation_sum(view.image),
            )
            self.views += 1
            self._bar.update()


class _Stopped(Exception):  # noqa: N818
    """The run ends early; no error of its own."""
