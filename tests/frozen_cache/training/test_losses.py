import pytest
import torch

from frozen_cache.training.losses import bce_loss, dice_loss, mask_iou, scoring_loss


def test_dice_and_bce_equal_the_lineage(oracles):
    case = oracles["loss"]
    torch.testing.assert_close(dice_loss(case["x"], case["t"], case["num"]), case["dice"])
    torch.testing.assert_close(bce_loss(case["x"], case["t"], case["num"]), case["bce"])


def test_dice_of_a_hand_worked_case():
    logits = torch.tensor([[100.0, 100.0, -100.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0]])
    assert dice_loss(logits, targets, 1.0).item() == pytest.approx(1 - 3 / 4)


def test_bce_of_undecided_logits_is_log_two():
    assert bce_loss(torch.zeros(3, 5), torch.ones(3, 5), 3.0).item() == pytest.approx(0.693147, abs=1e-5)


def test_mask_iou_counts_the_object_outside_the_box():
    logits = torch.full((1, 4, 4), 5.0)
    inside = torch.ones(1, 4, 4)
    # The box of 100 pixels is filled; the object covers it and 100 pixels more.
    iou = mask_iou(logits, inside, torch.tensor([100.0]), torch.tensor([200.0]))
    assert iou.item() == pytest.approx(0.5)


def test_scoring_loss_reads_the_object_s_own_class_only():
    predicted = torch.tensor([[0.9, 7.0], [7.0, 0.5]])
    loss = scoring_loss(predicted, torch.tensor([0, 1]), torch.tensor([0.9, 0.7]), 2.0)
    assert loss.item() == pytest.approx(0.02)


def test_no_rois_give_zero_loss():
    assert dice_loss(torch.zeros(0, 4), torch.zeros(0, 4), 1.0).item() == 0.0
    assert bce_loss(torch.zeros(0, 4), torch.zeros(0, 4), 1.0).item() == 0.0


def _noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_losses_are_their_formulas_over_the_count():
    x, t = _noise(3, 7), (_noise(3, 7).flip(1) > 0).float()
    p = 1 / (1 + (-x).exp())
    dice = sum(1 - (2 * (p[n] * t[n]).sum() + 1) / (p[n].sum() + t[n].sum() + 1) for n in range(3))
    bce = sum(-(t[n] * p[n].log() + (1 - t[n]) * (1 - p[n]).log()).sum() / 7 for n in range(3))
    torch.testing.assert_close(dice_loss(x, t, 5.0), dice / 5)
    torch.testing.assert_close(bce_loss(x, t, 5.0), bce / 5)


def test_mask_iou_counts_pixels_of_each_box():
    logits = torch.tensor([[[5.0, -5.0], [0.5, -0.5]], [[5.0, 5.0], [5.0, -5.0]]])
    inside = torch.tensor([[[1.0, 1.0], [0.5, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
    # Cells of 4 and 1 pixels: overlaps 1.5 and 2 cells, predicted 2 and 3 cells, objects of 12 and 6 pixels.
    iou = mask_iou(logits, inside, torch.tensor([16.0, 4.0]), torch.tensor([12.0, 6.0]))
    assert iou.tolist() == pytest.approx([6 / (8 + 12 - 6), 2 / (3 + 6 - 2)])
