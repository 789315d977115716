"""The training objective: mask loss on points or densely, plus mask scoring and the boundary stage; and the losses of
objects without masks."""

from __future__ import annotations

import torch
from torch import Tensor

from frozen_cache.head.inputs import HeadOutput
from frozen_cache.masks.points import sample_points, uncertain_points
from frozen_cache.training.batches import TrainingBatch
from frozen_cache.training.config import LossConfig
from frozen_cache.training.losses import bce_loss, dice_loss, mask_iou, scoring_loss
from frozen_cache.training.weak_losses import weak_losses


def objective(
    output: HeadOutput, batch: TrainingBatch, config: LossConfig, *, count: float | Tensor, progress: float = 1.0
) -> dict[str, Tensor]:
    """The weighted losses by name; their sum is what is minimised.

    Args:
        count: RoIs of all processes, at least 1, over the number of processes; a number or a scalar on the device.
        progress: share of the run's steps that are done.
    """
    if batch.weak is None:
        return _of_masks(output, batch, config, count=count)
    logits = output.mask_logits.float()
    weak = weak_losses(logits, batch.targets, batch.weak, config, count=count, progress=progress)
    rows = batch.weak.masked
    return _of_masks(output.take(rows), batch.with_masks(rows), config, count=count) | weak


def _of_masks(
    output: HeadOutput, batch: TrainingBatch, config: LossConfig, *, count: float | Tensor
) -> dict[str, Tensor]:
    """The losses of RoIs whose objects have masks."""
    logits = output.mask_logits.float()
    at, targets = (
        (logits.flatten(1), batch.targets.flatten(1))
        if config.supervision == "dense"
        else _at_points(logits, batch.targets, config)
    )
    losses = {
        "bce": config.bce * bce_loss(at, targets, count),
        "dice": config.dice * dice_loss(at, targets, count),
    }
    if output.iou is not None:
        iou = mask_iou(logits, batch.targets, batch.box_areas, batch.object_areas)
        losses["scoring"] = config.scoring * scoring_loss(output.iou.float(), batch.rois.labels, iou, count)
    if output.boundary is not None and batch.fine_targets is not None:
        finer = sample_points(batch.fine_targets, output.boundary.points)
        losses["refine"] = config.refine * bce_loss(output.boundary.logits.float(), finer, count)
    return losses


def _at_points(logits: Tensor, targets: Tensor, config: LossConfig) -> tuple[Tensor, Tensor]:
    """(N, P) logits and targets at the most uncertain points and some random ones (PointRend)."""
    with torch.no_grad():
        coordinates = uncertain_points(
            logits, points=config.points, oversample=config.oversample, importance=config.importance
        )
    return sample_points(logits, coordinates), sample_points(targets, coordinates)
