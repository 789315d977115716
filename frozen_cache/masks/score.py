"""Scores of masks: Eq. 2 without training, Eq. 12 with the mask scoring head."""

from __future__ import annotations

from torch import Tensor

THRESHOLD = 0.5


def mean_foreground_probability(masks: Tensor) -> Tensor:
    """Mean of the probabilities above 0.5, 0 where there is none: the mask's part of Eq. 2. (N, R, R) to (N,)."""
    foreground = (masks > THRESHOLD).to(masks.dtype)
    return (masks * foreground).sum((1, 2)) / foreground.sum((1, 2)).clamp(min=1)


def foreground_score(class_scores: Tensor, masks: Tensor) -> Tensor:
    """Eq. 2: s_i = c_i * mean(mask probability where > 0.5). Scores (N,), probabilities (N, R, R), to (N,)."""
    return class_scores * mean_foreground_probability(masks)


def predicted_iou_score(class_scores: Tensor, iou: Tensor, labels: Tensor) -> Tensor:
    """Eq. 12: s_i = c_i * iou_i of the instance's own class, held to 0..1.

    Args:
        class_scores: (N,).
        iou: (N, classes) from the mask scoring head.
        labels: (N,) int64 category index.

    Returns:
        (N,).
    """
    return class_scores * iou.gather(1, labels[:, None])[:, 0].clamp(0, 1)
