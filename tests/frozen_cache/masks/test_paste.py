"""Pasting masks, and their run lengths, against detectron2's figures and against pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from frozen_cache.masks import paste, rle
from frozen_cache.masks.rle import window_rle

# From oracles.pt: cells [0:3, 0:4] of the first mask, its box, and pixels [4:9, 9:15] of the pasted image.
CELLS = [
    [0.2855822, 0.0347975, 0.5217516, 0.0036812],
    [0.5047886, 0.6688264, 0.5079471, 0.5780230],
    [0.3792647, 0.5745139, 0.7674544, 0.3548421],
]
BOX = [10.3, 5.2, 90.7, 61.9]
PIXELS = [
    [0.0054420, 0.0173699, 0.0292976, 0.0200833, 0.0096089, 0.0124226],
    [0.0347100, 0.1107874, 0.1868643, 0.1280944, 0.0612870, 0.0792328],
    [0.0611613, 0.1952146, 0.3292672, 0.2790198, 0.2177874, 0.2405585],
    [0.0836267, 0.2669197, 0.4502118, 0.4906729, 0.5226206, 0.5356320],
    [0.0834038, 0.2662081, 0.4490115, 0.5251597, 0.5949507, 0.6290414],
]


def paste_masks(masks, boxes, size, **options):
    return torch.from_numpy(paste.paste_masks(masks.numpy(), boxes.numpy(), size, **options))


def paste_rles(masks, boxes, size, **options):
    return rle.paste_rles(masks.numpy(), boxes.numpy(), size, **options)


def random_masks(count, side, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    return F.interpolate(coarse, size=(side, side), mode="bicubic")[:, 0].clamp(0, 1)


def test_a_slice_of_detectron2s_paste_is_reproduced():
    mask = torch.zeros(1, 32, 32)
    mask[0, :3, :4] = torch.tensor(CELLS)
    image = paste_masks(mask, torch.tensor([BOX]), (98, 149), threshold=None)
    torch.testing.assert_close(image[0, 4:9, 9:15], torch.tensor(PIXELS), atol=2e-6, rtol=0)


def test_all_of_detectron2s_paste_is_reproduced(oracles):
    expected = oracles["paste"]
    masks, boxes, size = expected["masks"][:, 0], expected["boxes"], tuple(expected["hw"])
    # The last box has no extent: there the reference divides by zero, and ours is empty.
    torch.testing.assert_close(
        paste_masks(masks, boxes, size, threshold=None)[:5], expected["full"][:5], atol=2e-6, rtol=0
    )
    assert torch.equal(paste_masks(masks, boxes, size)[:5], expected["full"][:5] >= 0.5)
    assert not paste_masks(masks, boxes, size)[5].any()


@pytest.mark.parametrize("size", [(40, 50), (1, 1), (7, 300)])
def test_run_lengths_are_those_of_the_pasted_image(size):
    height, width = size
    masks = random_masks(6, 16)
    masks[5] = 1.0
    scale = torch.tensor([width, height, width, height])
    boxes = scale * torch.tensor(
        [
            [0.1, 0.2, 0.8, 0.9],
            [-0.5, -0.5, 0.6, 0.7],
            [0.3, 0.3, 0.3, 0.3],
            [2.0, 2.0, 3.0, 3.0],
            [-3.0, -2.0, -1.0, -1.0],
            [0.0, 0.0, 1.0, 1.0],
        ]
    )
    found = paste_rles(masks, boxes, size)
    for lengths, image in zip(found, paste_masks(masks, boxes, size).numpy(), strict=True):
        expected = coco_mask.encode(np.asfortranarray(image.astype(np.uint8)))
        assert lengths == {"size": [height, width], "counts": expected["counts"].decode()}


def test_runs_that_reach_the_foot_of_a_column_go_on_in_the_next():
    window = np.ones((4, 3), dtype=bool)
    window[1, 1] = False
    image = np.zeros((4, 6), dtype=np.uint8)
    image[:, 2:5] = window
    expected = coco_mask.encode(np.asfortranarray(image))
    assert window_rle(window, 0, 2, (4, 6))["counts"] == expected["counts"].decode()


def test_no_masks_give_none():
    assert paste_rles(torch.zeros(0, 8, 8), torch.zeros(0, 4), (5, 5)) == []
    assert paste_masks(torch.zeros(0, 8, 8), torch.zeros(0, 4), (5, 5)).shape == (0, 5, 5)


def test_a_full_mask_fills_its_box_but_for_the_corners_of_its_outer_cells():
    image = paste_masks(torch.ones(1, 32, 32), torch.tensor([[2.0, 3.0, 8.0, 9.0]]), (12, 12))[0]
    assert image[3:9, 2:8].all()
    assert image.sum() == 36


def test_pasting_is_grid_sample_over_the_box():
    """As detectron2 writes it: every pixel's centre is looked up in the mask, zero outside."""
    masks, size = random_masks(3, 8), (23, 31)
    boxes = torch.tensor([[2.3, 4.1, 20.7, 18.2], [-7.0, -3.0, 15.5, 30.0], [9.0, 2.0, 12.5, 21.0]])
    found = paste_masks(masks, boxes, size, threshold=None)
    for mask, (x0, y0, x1, y1), image in zip(masks, boxes.tolist(), found, strict=True):
        x = (torch.arange(size[1]) + 0.5 - x0) / (x1 - x0) * 2 - 1
        y = (torch.arange(size[0]) + 0.5 - y0) / (y1 - y0) * 2 - 1
        grid = torch.stack([x.expand(*size), y[:, None].expand(*size)], -1)[None]
        expected = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)


def test_a_pixel_of_the_threshold_itself_belongs_to_the_mask():
    box, mask = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.full((1, 1, 1), 0.5)
    assert paste_masks(mask * 4, box, (2, 2), threshold=1.125).all(), "a quarter of a cell is lost on either side"
    assert paste_rles(mask * 4, box, (2, 2), threshold=1.125)[0]["counts"] == coco_mask.encode(
        np.ones((2, 2), dtype=np.uint8, order="F")
    )["counts"].decode()  # fmt: skip
    assert not paste_masks(mask * 4, box, (2, 2), threshold=1.25).any()
