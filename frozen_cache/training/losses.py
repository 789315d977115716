"""Mask losses of the lineage (Mask2Former's BCE and dice on points) and the mask scoring loss (Mask Scoring R-CNN)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def dice_loss(logits: Tensor, targets: Tensor, count: float | Tensor) -> Tensor:
    """Sum over N masks of 1 - (2 |x t| + 1) / (|x| + |t| + 1), over `count`.

    Args:
        logits: (N, P) before the sigmoid.
        targets: (N, P) in 0..1.
        count: what the sum is divided by, usually N over all processes.
    """
    x = logits.sigmoid()
    overlap = 2 * (x * targets).sum(-1)
    return (1 - (overlap + 1) / (x.sum(-1) + targets.sum(-1) + 1)).sum() / count


def bce_loss(logits: Tensor, targets: Tensor, count: float | Tensor) -> Tensor:
    """Sum over N masks of the mean binary cross-entropy of their points, over `count`. Shapes as in `dice_loss`."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1).sum() / count


def scoring_loss(predicted: Tensor, labels: Tensor, iou: Tensor, count: float | Tensor) -> Tensor:
    """Squared error of the predicted mask IoU of each object's own class (Eq. 12, 13).

    Args:
        predicted: (N, classes).
        labels: (N,) the object's category index.
        iou: (N,) measured, in 0..1.
    """
    of_class = predicted.gather(1, labels[:, None])[:, 0]
    return F.mse_loss(of_class, iou, reduction="sum") / count


@torch.no_grad()
def mask_iou(mask_logits: Tensor, inside: Tensor, box_areas: Tensor, object_areas: Tensor) -> Tensor:
    """IoU of the binarised predicted mask with the whole object, also where that leaves the box.

    Args:
        mask_logits: (N, R, R).
        inside: (N, R, R) the object within the box, covered fraction or 0 / 1.
        box_areas: (N,) in pixels.
        object_areas: (N,) of the whole object's mask, in the same pixels.

    Returns:
        (N,) in 0..1.
    """
    cell = box_areas / mask_logits.shape[-1] ** 2
    predicted = (mask_logits > 0).float()
    overlap = (predicted * inside).sum((1, 2)) * cell
    union = predicted.sum((1, 2)) * cell + object_areas - overlap
    return (overlap / union.clamp(min=1e-6)).clamp(0, 1)
