"""Selection of the (query, label) pairs that a DETR returns as its detections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SelectedPairs:
    """The K best (query, label) pairs of one image, by falling score."""

    query_index: Tensor
    """(K,) int64 into the image's Q queries."""
    column: Tensor
    """(K,) int64 into the score columns."""
    scores: Tensor
    """(K,) float32."""


def select_pairs(
    scores: Tensor, *, k: int, one_label_per_query: bool = False, columns: Tensor | None = None
) -> SelectedPairs:
    """Pick the k best pairs of one image, as the families' own post-processing does.

    Args:
        scores: (Q, C) class probabilities.
        k: pairs to keep; fewer come back where Q * C (or Q) is smaller.
        one_label_per_query: each query competes with its best label only (softmax families).
        columns: (C,) bool, the columns that may win; labels that the data set does not know take no place.
    """
    if columns is not None:
        scores = scores.masked_fill(~columns, -1.0)
    if one_label_per_query:
        best, column = scores.max(dim=1)
        values, query_index = best.topk(min(k, len(best)))
        chosen = column[query_index]
    else:
        values, flat = scores.flatten().topk(min(k, scores.numel()))
        query_index, chosen = flat // scores.shape[1], flat % scores.shape[1]
    kept = values >= 0
    return SelectedPairs(query_index=query_index[kept], column=chosen[kept], scores=values[kept].float())


def columns_to_keep(labels: Tensor, label_to_category: dict[int, int]) -> Tensor:
    """(C,) bool: the score columns whose label the data set has a category for."""
    return torch.tensor([int(label) in label_to_category for label in labels], dtype=torch.bool, device=labels.device)
