"""The objective, put together from its losses by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from frozen_cache.head.inputs import BoundaryPoints, HeadOutput, Rois
from frozen_cache.masks.points import sample_points, uncertain_points
from frozen_cache.training.batches import TrainingBatch
from frozen_cache.training.config import LossConfig
from frozen_cache.training.objective import objective


def case() -> tuple[HeadOutput, TrainingBatch]:
    """Three RoIs of 6 x 6 cells, two classes; the objects are twice as large as their boxes."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 6, 6, generator=generator)
    targets = (torch.rand(3, 6, 6, generator=generator) > 0.4).float()
    labels = torch.tensor([1, 0, 1])
    rois = Rois(image_index=torch.zeros(3).long(), boxes=torch.zeros(3, 4), queries=torch.zeros(3, 2), labels=labels)
    areas = torch.tensor([36.0, 72.0, 144.0])
    batch = TrainingBatch(groups=[], rois=rois, targets=targets, box_areas=areas, object_areas=2 * areas)
    return HeadOutput(mask_logits=logits, iou=torch.rand(3, 2, generator=generator)), batch


def by_hand(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and dice of three masks, summed over them and divided by 2."""
    p = x.sigmoid()
    bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean(1).sum() / 2
    dice = (1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).sum() / 2
    return bce, dice


def test_dense_losses_are_those_of_all_cells_with_their_weights() -> None:
    output, batch = case()
    config = LossConfig(supervision="dense", bce=3.0, dice=7.0, scoring=11.0)
    losses = objective(output, batch, config, count=2.0)
    bce, dice = by_hand(output.mask_logits.flatten(1), batch.targets.flatten(1))
    torch.testing.assert_close(losses["bce"], 3 * bce)
    torch.testing.assert_close(losses["dice"], 7 * dice)
    predicted = output.mask_logits > 0
    cell = batch.box_areas / 36
    overlap = (predicted & batch.targets.bool()).sum((1, 2)) * cell
    iou = overlap / (predicted.sum((1, 2)) * cell + batch.object_areas - overlap)
    assert output.iou is not None
    found = output.iou[[0, 1, 2], batch.rois.labels]
    torch.testing.assert_close(losses["scoring"], 11 * F.mse_loss(found, iou, reduction="sum") / 2)
    assert list(losses) == ["bce", "dice", "scoring"]


@pytest.mark.parametrize(("points", "oversample", "importance"), [(5, 2.0, 0.4), (9, 4.0, 1.0)])
def test_losses_at_points_are_those_of_the_chosen_points(points: int, oversample: float, importance: float) -> None:
    output, batch = case()
    config = LossConfig(points=points, oversample=oversample, importance=importance, bce=1.0, dice=1.0)
    torch.manual_seed(3)
    losses = objective(HeadOutput(mask_logits=output.mask_logits, iou=None), batch, config, count=2.0)
    torch.manual_seed(3)
    at = uncertain_points(output.mask_logits, points=points, oversample=oversample, importance=importance)
    bce, dice = by_hand_at(output.mask_logits, batch.targets, at)
    torch.testing.assert_close(losses["bce"], bce)
    torch.testing.assert_close(losses["dice"], dice)
    assert list(losses) == ["bce", "dice"], "without a predicted IoU there is no scoring loss"


def by_hand_at(logits: Tensor, targets: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """As `by_hand`, of samples; targets between cells are between 0 and 1."""
    x, t = sample_points(logits, at), sample_points(targets, at)
    bce = (F.softplus(x) - t * x).mean(1).sum() / 2
    return bce, by_hand(x, t)[1]


def test_the_boundary_stage_is_trained_at_its_own_points_on_finer_targets() -> None:
    output, batch = case()
    generator = torch.Generator().manual_seed(5)
    fine = (torch.rand(3, 12, 12, generator=generator) > 0.5).float()
    points, logits = torch.rand(3, 7, 2, generator=generator), torch.randn(3, 7, generator=generator)
    batch = replace(batch, fine_targets=fine)
    plain = objective(output, batch, LossConfig(supervision="dense"), count=2.0)
    output = replace(output, boundary=BoundaryPoints(points, logits))
    losses = objective(output, batch, LossConfig(supervision="dense", refine=3.0), count=2.0)
    wanted = sample_points(fine, points)
    expected = 3 * (F.softplus(logits) - wanted * logits).mean(1).sum() / 2
    torch.testing.assert_close(losses.pop("refine"), expected)
    assert losses == plain
