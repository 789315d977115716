"""Mask R-CNN's mask head, written out with torch's functions."""

import pytest
import torch
from torch.nn import functional as F

from frozen_cache.head.fcn import FcnEncoder, FcnMaskHead


def test_the_encoder_is_3x3_convolutions_with_relu(settled, noise):
    ours = settled(FcnEncoder(dim=4, convs=3))
    expected = rois = noise(2, 4, 5, 7)
    parameters = list(ours.parameters())
    assert len(parameters) == 6
    for kernel, bias in zip(parameters[::2], parameters[1::2], strict=True):
        expected = F.conv2d(expected, kernel, bias, padding=1).clamp(min=0)
    torch.testing.assert_close(ours(rois), expected)


@pytest.mark.parametrize("classes", [1, 3])
def test_masks_have_twice_the_side_and_are_the_own_class_s(settled, noise, classes):
    ours = settled(FcnMaskHead(dim=4, classes=classes))
    rois, labels = noise(3, 4, 2, 3), torch.tensor([2, 0, 1])
    found = ours(rois, labels)
    assert found.shape == (3, 4, 6)
    kernel = ours.deconv.weight  # (in, out, 2, 2)
    for n, label in enumerate(labels.tolist()):
        for y in range(4):
            for x in range(6):
                cell = torch.einsum("c,cd->d", rois[n, :, y // 2, x // 2], kernel[:, :, y % 2, x % 2])
                hidden = (cell + ours.deconv.bias).clamp(min=0)
                row = 0 if classes == 1 else label
                expected = ours.out.weight[row, :, 0, 0] @ hidden + ours.out.bias[row]
                torch.testing.assert_close(found[n, y, x], expected)


def test_it_starts_as_detectron2_does():
    torch.manual_seed(0)
    encoder, head = FcnEncoder(dim=64, convs=1), FcnMaskHead(dim=64, classes=40)
    assert encoder[0].weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert head.out.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not any(part.bias.any() for part in (encoder[0], head.deconv, head.out))
