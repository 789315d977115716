"""Cropping ground truth to boxes, against detectron2's figures and RoIAlign."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.ops import roi_align

from frozen_cache.masks.crop import crop_masks, crop_window

# From oracles.pt: pixels [48:55, 98:107] of the fourth mask, its box, and some of the 32 x 32 crop.
BITS = [
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 1, 1, 1, 0, 1, 0, 1, 0],
    [1, 1, 1, 1, 0, 0, 0, 0, 0],
    [1, 1, 1, 1, 1, 1, 1, 1, 0],
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
    [0, 1, 1, 1, 1, 1, 1, 1, 0],
    [0, 0, 0, 1, 0, 0, 0, 0, 0],
]
BOX = [100.0, 50.0, 104.5, 53.0]
SOFT = [
    [1.0, 1.0, 0.1796875, 0.4283447, 0.0318604],
    [1.0, 1.0, 0.3463135, 0.2031250, 0.2031250],
    [1.0, 1.0, 1.0, 1.0, 1.0],
]


def encode(masks):
    return [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


def random_masks(count, height, width):
    return np.random.default_rng(0).random((count, height, width)) > 0.5


def test_a_slice_of_detectron2s_crop_is_reproduced():
    mask = np.zeros((98, 149), dtype=np.uint8)
    mask[48:55, 98:107] = BITS
    found = crop_window(mask, BOX, 32)
    np.testing.assert_allclose(found[[0, 7, 16]][:, [0, 8, 16, 24, 31]], SOFT, atol=1e-6)


@pytest.mark.parametrize("soft", [True, False])
def test_all_of_detectron2s_crop_is_reproduced(oracles, soft):
    truth, boxes = oracles["crop"]["gt"].numpy(), oracles["paste"]["boxes"]
    found = crop_masks(encode(truth), objects=torch.arange(6), boxes=boxes, side=32, soft=soft)
    if soft:
        torch.testing.assert_close(found, oracles["crop"]["soft"], atol=1e-6, rtol=0)
    else:
        assert torch.equal(found.bool(), oracles["crop"]["bin"])


@pytest.mark.parametrize("side", [7, 28, 32])
def test_a_crop_is_roi_align_with_adaptive_sampling(side):
    masks = random_masks(3, 60, 45)
    boxes = torch.tensor(
        [[3.2, 4.1, 40.7, 55.5], [-20.0, -10.0, 70.0, 30.0], [44.0, 59.0, 60.0, 80.0], [10.0, 10.0, 10.5, 90.0]]
    )
    objects = torch.tensor([2, 0, 0, 1])
    found = crop_masks(encode(masks), objects=objects, boxes=boxes, side=side, soft=True)
    rois = torch.cat([objects[:, None].float(), boxes], dim=1)
    expected = roi_align(torch.from_numpy(masks).float()[:, None], rois, side, sampling_ratio=0, aligned=True)[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("box", [[5.0, 5.0, 5.0, 9.0], [8.0, 8.0, 4.0, 4.0], [500.0, 500.0, 600.0, 600.0]])
def test_a_box_without_an_inside_in_the_image_crops_nothing(box):
    assert not crop_window(np.ones((20, 30), dtype=np.uint8), box, 8).any()


def test_images_of_one_pixel_and_no_boxes_work():
    mask = encode(np.ones((1, 1, 1)))
    assert crop_masks(mask, objects=torch.tensor([0]), boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]), side=4).all()
    none = crop_masks(mask, objects=torch.zeros(0, dtype=torch.int64), boxes=torch.zeros(0, 4), side=4)
    assert none.shape == (0, 4, 4)


def test_a_cell_belongs_to_the_target_from_one_half_on():
    mask = np.zeros((4, 8), dtype=np.uint8)
    mask[:, 3:] = 1
    box, objects = torch.tensor([[0.0, 0.0, 8.0, 4.0]]), torch.tensor([0])
    # Bins of 4 x 2 pixels cover 1/4 and all; bins of 2 x 1 cover 0, 1/2, all and all.
    for side, soft in ((2, [0.25, 1.0]), (4, [0.0, 0.5, 1.0, 1.0])):
        found = crop_masks(encode([mask]), objects=objects, boxes=box, side=side, soft=True)
        assert found[0, 0].tolist() == soft
        binary = crop_masks(encode([mask]), objects=objects, boxes=box, side=side)
        assert binary[0, 0].tolist() == [float(share >= 0.5) for share in soft]
