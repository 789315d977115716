"""Finite differences in float64 against the gradients of every trainable module, at tiny sizes."""

import pytest
import torch

from frozen_cache.head.boundary_stage import BoundaryStage, at_points
from frozen_cache.head.box_encoder import DeformableRoiLayer
from frozen_cache.head.convnext import ConvNeXtLayer
from frozen_cache.head.fcn import FcnEncoder, FcnMaskHead
from frozen_cache.head.feature_map import Projection
from frozen_cache.head.feed_forward import FeedForward
from frozen_cache.head.image_encoder import DeformableImageEncoder
from frozen_cache.head.mask_predictor import DotProduct, SegmenterHead
from frozen_cache.head.query_encoder import QueryEncoder
from frozen_cache.head.roi import RoiAlign
from frozen_cache.head.scoring import MaskScoring
from frozen_cache.head.swin import SwinLayer
from frozen_cache.head.unet import UNet

STEP = 1e-6


def check(module, call, *tensors):
    """The derivative along a random direction of each parameter and each input, so of every element of them."""
    generator = torch.Generator().manual_seed(1)

    def random(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    module.double()
    names = [name for name, _ in module.named_parameters()]
    values = [value.detach() + 0.1 * random(value.shape) for value in module.parameters()] + [*tensors]
    steps = [random(value.shape) for value in values]
    weight = random(10_000)

    def run(amounts):
        moved = [value + amount * step for value, amount, step in zip(values, amounts, steps, strict=True)]
        given = call(*moved[len(names) :])
        out = torch.func.functional_call(module, dict(zip(names, moved[: len(names)], strict=True)), *given)
        return (out.flatten() * weight[: out.numel()]).sum()

    amounts = torch.zeros(len(values), dtype=torch.float64, requires_grad=True)
    run(amounts).backward()
    with torch.no_grad():
        nudges = STEP * torch.eye(len(values), dtype=torch.float64)
        numeric = torch.stack([(run(nudge) - run(-nudge)) / (2 * STEP) for nudge in nudges])
    torch.testing.assert_close(amounts.grad, numeric, atol=1e-5, rtol=1e-4)
    assert amounts.grad.all()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


MAPS = {
    "convnext": lambda: ConvNeXtLayer(dim=4),
    "swin": lambda: SwinLayer(dim=4, window=2, shifted=False),
    "swin shifted and padded": lambda: SwinLayer(dim=4, window=3, shifted=True),
    "unet": lambda: UNet(dim=4, convs=1),
    "fcn": lambda: FcnEncoder(dim=4, convs=2),
    "projection": lambda: Projection(channels=4, dim=6),
}


@pytest.mark.parametrize("name", MAPS)
def test_gradients_of_modules_on_maps(name):
    torch.manual_seed(0)
    check(MAPS[name](), lambda x: ((x,),), noise(2, 4, 4, 5))


def test_gradients_of_the_feed_forward_network():
    check(FeedForward(dim=4), lambda x: ((x,),), noise(3, 4))


def test_gradients_of_the_deformable_image_encoder():
    torch.manual_seed(0)
    module = DeformableImageEncoder(dim=8, levels=2, layers=1)

    class Joined(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, fine, coarse):
            return torch.cat([level.flatten() for level in self.inner([fine, coarse])])

    check(Joined(), lambda *levels: (levels,), noise(1, 8, 3, 4), noise(1, 8, 2, 2))


def test_gradients_of_the_deformable_box_layer():
    torch.manual_seed(0)
    check(DeformableRoiLayer(dim=8), lambda *given: (given,), noise(2, 8, 3, 3), noise(9, 8))


def test_gradients_of_the_query_encoder():
    torch.manual_seed(0)
    encoder = QueryEncoder(dim=8, parts=("ffn", "o2o", "b2o"), count=1)
    boxes = noise(3, 4).sigmoid()
    index = torch.tensor([0, 0, 1])
    check(encoder, lambda q, rois: ((q, rois, boxes, index), {"block": 0}), noise(3, 8), noise(3, 8, 2, 2))


@pytest.mark.parametrize("module", [DotProduct(), SegmenterHead(dim=4)], ids=["dot", "segmenter"])
def test_gradients_of_the_mask_predictors(module):
    index = torch.tensor([0, 0, 0, 1, 1])
    check(module, lambda q, rois: ((q, rois, index),), noise(5, 4), noise(5, 4, 2, 3))


def test_gradients_of_the_fcn_mask_head():
    torch.manual_seed(0)
    labels = torch.tensor([2, 0])
    check(FcnMaskHead(dim=4, classes=3), lambda rois: ((rois, labels),), noise(2, 4, 3, 3))


def test_gradients_of_mask_scoring():
    torch.manual_seed(0)
    check(MaskScoring(dim=16, size=8, classes=2), lambda *given: (given,), noise(2, 8, 8), noise(2, 16, 8, 8))


def test_gradients_of_mask_scoring_under_a_pooled_mask():
    torch.manual_seed(0)
    check(MaskScoring(dim=16, size=4, classes=2), lambda *given: (given,), noise(2, 8, 8), noise(2, 16, 4, 4))


@pytest.mark.parametrize("sampling", [0, 2])
def test_gradients_of_roi_align(sampling):
    align = RoiAlign(size=4, sampling=sampling, stride=4)
    boxes = torch.tensor([[0.4, 0.5, 0.5, 0.6], [0.9, 0.9, 0.5, 0.4]], dtype=torch.float64)
    image = torch.tensor([0, 1])
    check(align, lambda feature: ((feature, image, boxes, [None, (17, 18)]),), noise(2, 3, 5, 5))


def test_gradients_of_the_boundary_stage():
    torch.manual_seed(0)
    check(BoundaryStage(dim=4), lambda *given: (given,), noise(2, 3, 4), noise(2, 3, 4), noise(2, 3))


def test_gradients_of_samples_at_points():
    class Sampled(torch.nn.Module):
        def forward(self, maps):
            return at_points(maps, points)

    points = noise(2, 5, 2).sigmoid()
    check(Sampled(), lambda maps: ((maps,),), noise(2, 3, 4, 5))
