"""The U-Net over RoIs, written out with torch's functions."""

import torch
from torch.nn import functional as F

from frozen_cache.head.unet import UNet


def block(feature, parameters):
    """3x3 convolution, GroupNorm, GELU, for each (kernel, bias, weight, bias) in turn; two channels a group."""
    while parameters:
        (kernel, bias, weight, shift), parameters = parameters[:4], parameters[4:]
        feature = F.conv2d(feature, kernel, bias, padding=1)
        feature = F.gelu(F.group_norm(feature, feature.shape[1] // 2, weight, shift))
    return feature


def test_it_goes_down_twice_and_up_twice_with_skips_and_a_residual(settled, noise):
    ours = settled(UNet(dim=6, convs=2))
    given = {part: list(getattr(ours, part).parameters()) for part in ("down", "bottom", "up")}
    assert [len(values) for values in given.values()] == [16, 8, 16]
    rois = noise(2, 6, 8, 12)
    full = block(rois, given["down"][:8])
    half = block(F.max_pool2d(full, 2), given["down"][8:])
    quarter = block(F.max_pool2d(half, 2), given["bottom"])
    for skip, parameters in ((half, given["up"][:8]), (full, given["up"][8:])):
        raised = F.interpolate(quarter, scale_factor=2, mode="bilinear", align_corners=False)
        quarter = block(torch.cat([raised, skip], 1), parameters)
    expected = rois + F.conv2d(quarter, ours.out.weight, ours.out.bias)
    torch.testing.assert_close(ours(rois), expected)
