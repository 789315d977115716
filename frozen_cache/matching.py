"""Hungarian matching of ground truth to a detector's queries, as in Deformable DETR and its descendants."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def match_queries(
    scores: Tensor, boxes: Tensor, truth_columns: Tensor, truth_boxes: Tensor, *, focal: bool = True
) -> Tensor:
    """The query that each of G objects is matched to, by the cheapest one-to-one assignment.

    Cost = class + 5 L1 + 2 (-GIoU); class is 2 x the focal cost (alpha 0.25, gamma 2) for sigmoid families and minus
    the probability for softmax families. Everything is computed in float32 on the CPU.

    Args:
        scores: (Q, C) class probabilities.
        boxes: (Q, 4) cxcywh in 0..1.
        truth_columns: (G,) int64, the score column of each object's category.
        truth_boxes: (G, 4) cxcywh in 0..1.
        focal: False for softmax families.

    Returns:
        (G,) int64 query index; -1 for objects that got none because there are more of them than queries.
    """
    match = torch.full((len(truth_columns),), -1, dtype=torch.int64)
    if not len(truth_columns) or not len(scores):
        return match
    probability = scores.float()[:, truth_columns]  # (Q, G)
    if focal:
        positive = 0.25 * (1 - probability) ** 2 * -(probability + 1e-8).log()
        negative = 0.75 * probability**2 * -(1 - probability + 1e-8).log()
        class_cost = 2 * (positive - negative)
    else:
        class_cost = -probability
    boxes, truth_boxes = boxes.float(), truth_boxes.float()
    cost = class_cost + 5 * torch.cdist(boxes, truth_boxes, p=1) - 2 * generalised_iou(boxes, truth_boxes)
    query_index, truth_index = linear_sum_assignment(cost.numpy().astype(np.float64))
    match[torch.from_numpy(truth_index)] = torch.from_numpy(query_index)
    return match


def generalised_iou(first_cxcywh: Tensor, second_cxcywh: Tensor) -> Tensor:
    """(Q, G) GIoU of boxes (Q, 4) with boxes (G, 4); 0 instead of NaN where both are empty."""
    first, second = _corners(first_cxcywh)[:, None], _corners(second_cxcywh)[None]
    area_first = (first[..., 2:] - first[..., :2]).prod(-1)
    area_second = (second[..., 2:] - second[..., :2]).prod(-1)
    inner = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    outer = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    intersection, hull = inner.clamp(min=0).prod(-1), outer.prod(-1)
    union = area_first + area_second - intersection
    tiny = torch.finfo(torch.float32).tiny
    return intersection / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def _corners(boxes_cxcywh: Tensor) -> Tensor:
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)
