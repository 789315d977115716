"""Scores of masks (Eq. 2 and Eq. 12)."""

import torch

from frozen_cache.masks.score import foreground_score, mean_foreground_probability, predicted_iou_score


def test_only_probabilities_above_one_half_count():
    masks = torch.tensor([[[0.9, 0.7], [0.5, 0.1]], [[0.5, 0.2], [0.0, 0.4]]])
    torch.testing.assert_close(mean_foreground_probability(masks), torch.tensor([0.8, 0.0]))
    torch.testing.assert_close(foreground_score(torch.tensor([0.5, 0.9]), masks), torch.tensor([0.4, 0.0]))


def test_the_predicted_iou_of_the_own_class_counts_and_is_held_to_0_1():
    iou = torch.tensor([[0.5, 2.0], [-0.3, 0.4]])
    found = predicted_iou_score(torch.tensor([0.5, 0.5]), iou, torch.tensor([1, 0]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0]))
