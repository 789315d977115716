"""From a detector's output to the views that a cache stores: selection, matching, rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth, mask_boxes
from frozen_cache.data.view import ViewTransform
from frozen_cache.detectors.output import DetectorOutput
from frozen_cache.detectors.selection import select_pairs
from frozen_cache.errors import UserError
from frozen_cache.matching import match_queries


@dataclass(frozen=True)
class LabelTable:
    """Which score column stands for which category."""

    category_of_column: Tensor
    """(C,) int64 category index, -1 for labels that the data set does not know."""
    column_of_category: Tensor
    """(number of categories,) int64 score column, -1 for categories without a label."""

    @classmethod
    def build(cls, labels: Tensor, label_to_category: dict[int, int], category_ids: list[int]) -> LabelTable:
        """From the output's labels (C,), the label map, and the category ids in the cache's order."""
        index = {category: place for place, category in enumerate(category_ids)}
        of_column = [index.get(label_to_category.get(int(label), -1), -1) for label in labels]
        of_category = [of_column.index(place) if place in of_column else -1 for place in range(len(category_ids))]
        return cls(torch.tensor(of_column), torch.tensor(of_category))


def collect_view(
    output: DetectorOutput,
    index: int,
    *,
    image_id: int,
    view: int,
    transform: ViewTransform,
    truth: GroundTruth,
    table: LabelTable,
    top_k: int,
    one_label_per_query: bool,
) -> CachedView:
    """One image of a batch as it is stored.

    Rows: the best `top_k` pairs among labels that the data set knows; behind them each matched query that no pair has,
    with the label and score of its object's category. An object's `match` prefers the pair that has its category.

    Args:
        output: on the CPU, queries, boxes and scores in float32.
        index: of the image in the batch.
    """
    queries, boxes, scores = output.queries[index], output.boxes[index], output.scores[index]
    for name, values in (("queries", queries), ("boxes", boxes), ("scores", scores)):
        if not torch.isfinite(values).all():
            raise UserError(f"image {image_id}: the detector's {name} are not finite")
    pairs = select_pairs(
        scores, k=top_k, one_label_per_query=one_label_per_query, columns=table.category_of_column >= 0
    )
    query_rows, column_rows = pairs.query_index.tolist(), pairs.column.tolist()
    matched = match_objects(scores, boxes, truth, transform, table, focal=not one_label_per_query)
    match = torch.full((len(truth.boxes),), -1, dtype=torch.int64)
    for place, (query, column) in matched.items():
        rows = [row for row, found in enumerate(query_rows) if found == query]
        exact = [row for row in rows if column_rows[row] == column]
        if not rows:
            query_rows.append(query)
            column_rows.append(column)
            rows = [len(query_rows) - 1]
        match[place] = (exact or rows)[0]
    query_index, column_index = torch.tensor(query_rows).long(), torch.tensor(column_rows).long()
    return CachedView(
        image_id=image_id,
        view=view,
        transform=transform,
        selected=len(pairs.scores),
        queries=queries[query_index],
        boxes=boxes[query_index],
        scores=scores[query_index, column_index],
        labels=table.category_of_column[column_index],
        c1=None if output.c1 is None else output.c1[index],
        encoder={layer: [level[index] for level in levels] for layer, levels in output.encoder.items()},
        truth=replace(truth, match=match.numpy()),
    )


def match_objects(
    scores: Tensor, boxes: Tensor, truth: GroundTruth, transform: ViewTransform, table: LabelTable, *, focal: bool
) -> dict[int, tuple[int, int]]:
    """Object -> (query, score column) for objects that are no crowd and have a label, by their masks' own boxes."""
    height, width = transform.crop_size
    truth_boxes = torch.from_numpy(mask_boxes(truth.masks)) / torch.tensor([width, height, width, height])
    size = truth_boxes[:, 2:] - truth_boxes[:, :2]
    columns = table.column_of_category[torch.from_numpy(truth.categories)]
    usable = (columns >= 0) & ~torch.from_numpy(truth.crowd) & (size > 0).all(dim=1)
    places = usable.nonzero()[:, 0]
    boxes_cxcywh = torch.cat([(truth_boxes[:, :2] + truth_boxes[:, 2:]) / 2, size], dim=1)
    found = match_queries(scores, boxes, columns[places], boxes_cxcywh[places], focal=focal)
    triples = zip(places.tolist(), found.tolist(), columns[places].tolist(), strict=True)
    return {place: (query, column) for place, query, column in triples if query >= 0}
