"""The ConvNeXt layer against torchvision's block."""

import torch
from torchvision.models.convnext import CNBlock

from frozen_cache.head.convnext import ConvNeXtLayer


def test_it_is_torchvisions_block(settled, noise):
    ours = settled(ConvNeXtLayer(dim=6))
    theirs = CNBlock(6, layer_scale=1.0, stochastic_depth_prob=0.0, norm_layer=torch.nn.LayerNorm).double().eval()
    with torch.no_grad():
        theirs.block[0].load_state_dict(ours.depthwise.state_dict())
        theirs.block[2].load_state_dict(ours.norm.state_dict())
        theirs.block[3].load_state_dict(ours.feed_forward.expand.state_dict())
        theirs.block[5].load_state_dict(ours.feed_forward.reduce.state_dict())
        theirs.layer_scale.copy_(ours.scale[:, None, None])
        feature = noise(2, 6, 9, 5)
        expected = theirs(feature.clone())
    torch.testing.assert_close(ours(feature), expected)


def test_it_starts_near_the_identity_and_not_at_it():
    assert torch.equal(ConvNeXtLayer(dim=6).scale, torch.full((6,), 0.1))
