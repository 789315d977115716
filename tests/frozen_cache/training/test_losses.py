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
