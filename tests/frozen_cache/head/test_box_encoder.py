"""The box encoders: their stages, and the places of a RoI's cells."""

import pytest
import torch

from frozen_cache.head.box_encoder import BoxEncoder, DeformableRoiLayer
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.convnext import ConvNeXtLayer
from frozen_cache.head.fcn import FcnEncoder
from frozen_cache.head.swin import SwinLayer
from frozen_cache.head.unet import UNet


def test_a_deformable_layer_attends_within_the_roi_around_each_cell(settled, noise):
    ours = settled(DeformableRoiLayer(dim=16))
    rois, position = noise(3, 16, 2, 4), noise(8, 16, seed=1)
    tokens = torch.stack([rois[:, :, y, x] for y in range(2) for x in range(4)], 1)
    centres = torch.tensor([[(x + 0.5) / 4, (y + 0.5) / 2] for y in range(2) for x in range(4)]).double()
    expected = ours.layer(tokens, position, centres[None, :, None].expand(3, -1, 1, -1), [(2, 4)])
    torch.testing.assert_close(ours(rois, position), expected.transpose(1, 2).unflatten(2, (2, 4)))


STAGES = {
    "deformable": (2, [DeformableRoiLayer] * 2),
    "swin": (3, [SwinLayer] * 3),
    "convnext": (2, [ConvNeXtLayer] * 2),
    "unet": (2, [UNet]),
    "fcn": (4, [FcnEncoder]),
    "none": (2, []),
}


@pytest.mark.parametrize("kind", STAGES)
def test_the_stages_are_what_the_configuration_names(settled, noise, kind):
    layers, expected = STAGES[kind]
    config = HeadConfig(box_encoder=kind, box_layers=layers, width=16, roi_size=8)
    ours = settled(BoxEncoder(config=config))
    assert [type(stage) for stage in ours.stages] == expected
    assert len(ours) == len(expected)
    rois = noise(2, 16, 8, 8)
    for at, stage in enumerate(ours.stages):
        alone = stage(rois, ours.position) if kind == "deformable" else stage(rois)
        torch.testing.assert_close(ours(rois, stage=at), alone)


def test_cells_have_one_learned_position_for_all_deformable_layers():
    torch.manual_seed(0)
    position = BoxEncoder(config=HeadConfig()).position
    assert position.shape == (32 * 32, 128)
    assert position.std().item() == pytest.approx(0.02, rel=0.02)
    assert BoxEncoder(config=HeadConfig(box_layers=0)).position is None
    assert BoxEncoder(config=HeadConfig(box_encoder="swin")).position is None


def test_every_second_swin_layer_is_shifted_by_half_a_window_of_8():
    ours = BoxEncoder(config=HeadConfig(box_encoder="swin", box_layers=3))
    assert [(stage.window, stage.shift) for stage in ours.stages] == [(8, 0), (8, 4), (8, 0)]


def test_no_layers_are_no_stages():
    assert len(BoxEncoder(config=HeadConfig(box_encoder="unet", box_layers=0))) == 0
