"""The mask scoring head, written out with torch's functions."""

import pytest
import torch
from torch.nn import functional as F

from frozen_cache.head.scoring import MaskScoring


@pytest.mark.parametrize("times", [1, 2])
def test_it_reads_mask_and_features_and_gives_one_iou_a_class(settled, noise, times):
    ours = settled(MaskScoring(dim=6, size=10, classes=3))
    logits, rois = noise(2, 10 * times, 10 * times, seed=1), noise(2, 6, 10, 10)
    probability = 1 / (1 + (-logits).exp())
    if times == 2:
        probability = probability.unflatten(1, (10, 2)).unflatten(3, (10, 2)).amax((2, 4))
    feature = torch.cat([rois, probability[:, None]], 1)
    for conv in ours.convs:
        feature = F.conv2d(feature, conv.weight, conv.bias, stride=2, padding=1).clamp(min=0)
    assert feature.shape[2:] == (2, 2)
    hidden = feature.flatten(1)
    for layer in ours.hidden:
        hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(ours(logits, rois), hidden @ ours.out.weight.T + ours.out.bias)


def test_the_score_s_gradient_reaches_the_mask(settled, noise):
    logits = noise(2, 8, 8).requires_grad_()
    settled(MaskScoring(dim=6, size=8, classes=3))(logits, noise(2, 6, 8, 8)).sum().backward()
    assert logits.grad.abs().sum() > 0
