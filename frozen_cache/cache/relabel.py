"""New ground truth on stored views: other masks, other categories of the same detector labels, matched anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from frozen_cache.cache.assemble import write_linked
from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.collect import LabelTable, match_objects
from frozen_cache.cache.layout import OFFSET_COLUMNS
from frozen_cache.cache.ledger import SegmentRecord
from frozen_cache.cache.segment_reader import SegmentReader
from frozen_cache.cache.segment_writer import row_array, truth_arrays, view_row
from frozen_cache.cache.view import CachedView
from frozen_cache.data.coco import CocoImage
from frozen_cache.data.fingerprint import annotation_sum
from frozen_cache.data.truth import GroundTruth, mask_boxes, view_truth


@dataclass(frozen=True)
class Relabelling:
    """From the categories of a cache to others."""

    attributes: CacheAttributes
    """Of the cache that is made."""
    label_of: Tensor
    """(old categories,) int64 index of the new category of the same detector label; -1 for none."""
    table: LabelTable
    """Its columns are the new categories; those without a label stand for none."""
    images: dict[int, CocoImage]
    """By id, with their annotations."""
    boxed: dict[int, CocoImage]
    """The same with their annotations as they were before a model gave masks to boxes: plain views are matched by these
    boxes, which somebody has drawn."""

    @classmethod
    def build(
        cls,
        attributes: CacheAttributes,
        old: CacheAttributes,
        images: dict[int, CocoImage],
        *,
        boxed: dict[int, CocoImage] | None = None,
    ) -> Relabelling:
        """Of a cache with attributes `old`; each detector label of one is known to be one of the other, or of none."""
        index = {category["id"]: place for place, category in enumerate(attributes.categories)}
        label_of = torch.full((len(old.categories),), -1)
        place_of = {category["id"]: place for place, category in enumerate(old.categories)}
        for label, category in old.label_to_category.items():
            label_of[place_of[category]] = index.get(attributes.label_to_category.get(label, -1), -1)
        places = torch.arange(len(index))
        labelled = torch.tensor([key in attributes.label_to_category.values() for key in index], dtype=torch.bool)
        columns = torch.where(labelled, places, -1)
        return cls(attributes, label_of, LabelTable(columns, columns), images, boxed or {})

    def view(self, view: CachedView) -> CachedView:
        """A view with its new ground truth, its maps left aside.

        Rows of labels that are no category now are dropped. Where the objects that are matched are the same as
        before, so are their matches. Else they are matched among the stored queries; a score that is not stored is
        taken for the highest that it can have had.
        """
        index = {category["id"]: place for place, category in enumerate(self.attributes.categories)}
        truth = view_truth(self.images[view.image_id], view.transform, index)
        boxed = self.boxed.get(view.image_id) if view.transform.is_plain else None
        targets = truth if boxed is None else view_truth(boxed, view.transform, index)
        labels = self.label_of[view.labels]
        if (labels >= 0).all() and (match := self._kept_match(view, targets)) is not None:
            return replace(view, labels=labels, truth=replace(truth, match=match))
        kept = (labels >= 0).nonzero()[:, 0].tolist()
        query_of, first = _queries(view)
        scores = self._scores(view, labels, query_of, len(first))
        matched = match_objects(
            scores, view.boxes[first], targets, view.transform, self.table, focal=not self._one_label
        )
        rows = [(row, int(query_of[row]), int(labels[row]), float(view.scores[row])) for row in kept]
        match = np.full(len(truth.boxes), -1, dtype=np.int64)
        for place, (query, category) in matched.items():
            found = [at for at, row in enumerate(rows) if row[1] == query]
            exact = [at for at in found if rows[at][2] == category]
            if not found:
                rows.append((int(first[query]), query, category, float(scores[query, category])))
                found = [len(rows) - 1]
            match[place] = (exact or found)[0]
        source = torch.tensor([row[0] for row in rows]).long()
        return replace(
            view,
            selected=int((labels[: view.selected] >= 0).sum()),
            queries=view.queries[source],
            boxes=view.boxes[source],
            scores=torch.tensor([row[3] for row in rows], dtype=torch.float32),
            labels=torch.tensor([row[2] for row in rows]).long(),
            truth=replace(truth, match=match),
        )

    @property
    def _one_label(self) -> bool:
        return self.attributes.detector.one_label_per_query

    def _kept_match(self, view: CachedView, truth: GroundTruth) -> np.ndarray | None:
        """(objects,) the matches of before, if they were made of the same boxes and labels; None if not."""
        before, old_places = self._targets(view.truth, self.label_of.numpy()[view.truth.categories])
        now, places = self._targets(truth, truth.categories)
        others = np.delete(view.truth.match, old_places)
        if not np.array_equal(before, now) or (others >= 0).any():
            return None
        match = np.full(len(truth.boxes), -1, dtype=np.int64)
        match[places] = view.truth.match[old_places]
        return match

    def _targets(self, truth: GroundTruth, categories: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 5) category and box of the objects that are matched, and their (N,) places."""
        labelled = (categories >= 0) & (self.table.column_of_category.numpy()[categories] >= 0)
        places = np.flatnonzero(labelled & ~truth.crowd)
        boxes = mask_boxes(truth.masks)[places]
        return np.concatenate([categories[places, None], boxes], axis=1), places

    def _scores(self, view: CachedView, labels: Tensor, query_of: Tensor, queries: int) -> Tensor:
        """(Q, new categories) float32 of the stored queries."""
        selected = view.scores[: view.selected]
        lowest = float(selected.min()) if view.selected == self.attributes.top_k else 0.0
        bound = torch.full((queries,), lowest)
        if self._one_label:
            own = torch.zeros(queries).scatter_reduce(0, query_of, view.scores, "amax")
            behind = torch.ones(queries, dtype=torch.bool)
            behind[query_of[: view.selected]] = False
            bound = torch.where(behind, torch.full_like(own, lowest), own).minimum(1 - own)
        scores = bound[:, None].expand(-1, len(self.attributes.categories)).clone()
        known = labels >= 0
        scores[query_of[known], labels[known]] = view.scores[known]
        return scores


def _queries(view: CachedView) -> tuple[Tensor, Tensor]:
    """(N,) int64, the query of each row, and (Q,) int64, the first row of each query: rows that share all numbers."""
    rows = torch.cat([view.boxes, view.queries], dim=1).numpy()
    _, first, query_of = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return torch.from_numpy(rank[query_of.reshape(-1)]), torch.from_numpy(first[order])


def relabel_segment(folder: Path, source: SegmentReader, relabelling: Relabelling, *, name: str) -> SegmentRecord:
    """Make a segment in `folder` of `source` with new ground truth; all maps are linked, not copied.

    Args:
        name: that the folder will have.

    Raises:
        DamagedCacheError: what is stored of a view is not what was written.
    """
    old, attributes = source.record, relabelling.attributes
    record = old.model_copy(update={"cache_fingerprint": attributes.fingerprint, "folder": name})
    offsets = source.stored("offsets").copy()
    parts: dict[str, list[np.ndarray]] = {}
    steps = np.diff(offsets, axis=0)
    matched = []
    for row in range(len(old.image_ids)):
        view = relabelling.view(source.read(row, layers=(), c1=False).rows)
        arrays = {"views": np.array([view_row(view)], dtype=np.int64), "rows": row_array(view)}
        arrays |= truth_arrays(view.truth, points=attributes.data.points)
        for array, values in arrays.items():
            parts.setdefault(array, []).append(values)
        for column, array in (("rows", "rows"), ("objects", "truth/objects"), ("rle", "truth/rle")):
            steps[row, OFFSET_COLUMNS.index(column)] = len(arrays[array])
        matched.append(int((view.truth.match >= 0).sum()))
    offsets[1:] = np.cumsum(steps, axis=0)
    if attributes.format_version > 1:
        sums = tuple(annotation_sum(relabelling.images[image]) for image in old.image_ids)
        record = record.model_copy(update={"annotation_sums": sums})
    record = record.model_copy(update={"matched": tuple(matched)})
    return write_linked(folder, source, attributes, record=record, arrays=parts, offsets=offsets)
