"""Losses of objects without masks.

Boxes alone are learned as by BoxInst (arXiv 2012.02310), points in and outside of objects as by PointSup
(arXiv 2104.06404).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from frozen_cache.masks.points import sample_points
from frozen_cache.training.colours import partners
from frozen_cache.training.config import LossConfig
from frozen_cache.training.losses import bce_loss, dice_loss
from frozen_cache.training.weak_targets import WeakTargets


def weak_losses(
    logits: Tensor, targets: Tensor, weak: WeakTargets, config: LossConfig, *, count: float | Tensor, progress: float
) -> dict[str, Tensor]:
    """The weighted losses of objects without masks, by name; the same names in every step of a run.

    Args:
        logits: (N, R, R) of all RoIs.
        targets: (N, R, R) share of each cell in the object's box.
        progress: share of the run's steps that are done: the pairwise loss grows over the first.
    """
    boxed = logits.index_select(0, weak.boxed)
    losses = {
        "projection": config.projection * projection_loss(boxed, targets.index_select(0, weak.boxed), count),
        "annotated": config.annotated
        * annotated_loss(logits.index_select(0, weak.pointed), weak.points, weak.inside, weak.known, count),
    }
    if weak.guess is not None:
        likely = boxed.flatten(1), weak.guess.flatten(1)
        losses["guess"] = config.guess * (bce_loss(*likely, count) + dice_loss(*likely, count))
    if weak.alike is not None:
        grown = min(1.0, progress / config.pairwise_warmup) if config.pairwise_warmup else 1.0
        losses["pairwise"] = config.pairwise * grown * pairwise_loss(boxed, weak.alike, count)
    return losses


def projection_loss(logits: Tensor, targets: Tensor, count: float | Tensor) -> Tensor:
    """Sum over N masks of the dice losses of their projections, over `count`: the maximum of each column, and of each
    row, of the mask against that of the box.

    Args:
        logits: (N, R, R) before the sigmoid.
        targets: (N, R, R) the object's box, in 0..1.
    """
    columns, rows = (dice_loss(logits.amax(axis), targets.amax(axis), count) for axis in (1, 2))
    return columns + rows


def pairwise_loss(logits: Tensor, alike: Tensor, count: float | Tensor) -> Tensor:
    """Sum over N masks of the mean, over the pairs of cells that look alike, of -log of the probability that both are
    inside or both outside; over `count`.

    Args:
        logits: (N, R, R) before the sigmoid.
        alike: (N, 4, R, R) bool, as `colours.alike` has it.
    """
    one, other = logits[:, None], partners(logits)
    both_in = F.logsigmoid(one) + F.logsigmoid(other)
    both_out = F.logsigmoid(-one) + F.logsigmoid(-other)
    pairs = alike.to(logits.dtype)
    unlike = -torch.logaddexp(both_in, both_out) * pairs
    return (unlike.sum((1, 2, 3)) / pairs.sum((1, 2, 3)).clamp(min=1)).sum() / count


def annotated_loss(logits: Tensor, points: Tensor, inside: Tensor, known: Tensor, count: float | Tensor) -> Tensor:
    """Sum over N masks of the mean binary cross-entropy at their annotated points, over `count`.

    Args:
        logits: (N, R, R) before the sigmoid.
        points: (N, P, 2) x, y in 0..1 of the RoI.
        inside: (N, P) 1 for points in the object.
        known: (N, P) 1 for points that count.
    """
    at = sample_points(logits, points)
    each = F.binary_cross_entropy_with_logits(at, inside, reduction="none") * known
    return (each.sum(1) / known.sum(1).clamp(min=1)).sum() / count
