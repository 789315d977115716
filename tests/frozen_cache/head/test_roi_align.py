"""RoIAlign of the head, against detectron2's figures."""

import torch
from torchvision.ops import box_convert

from frozen_cache.head.roi import RoiAlign

# From oracles.pt: cells [11:15, 24:28] of the map's first channel at stride 4, the fourth box, and some of its crop.
CELLS = [
    [0.3594241, -0.7537385, 0.2293996, -0.2544440],
    [-0.5611025, -0.4302971, -0.3332252, -1.5463972],
    [1.7092352, -0.7257586, -0.7735372, 0.5962142],
    [0.5352020, 1.9732895, -0.2075109, -0.0305745],
]
BOX = [100.0, 50.0, 104.5, 53.0]
CROP = {(0, 0): -0.4823575, (0, 31): -0.3758270, (15, 15): -0.5356359, (31, 31): -0.6544251}


def cut(feature, boxes_xyxy, *, sampling, size):
    """RoIs of boxes in pixels of an image of `size` = (height, width)."""
    height, width = size
    boxes = box_convert(boxes_xyxy / torch.tensor([width, height, width, height]), "xyxy", "cxcywh")
    align = RoiAlign(size=32, sampling=sampling, stride=4)
    return align(feature, torch.zeros(len(boxes), dtype=torch.int64), boxes, [size])


def test_a_slice_of_the_reference_is_reproduced():
    feature = torch.zeros(1, 1, 25, 38)
    feature[0, 0, 11:15, 24:28] = torch.tensor(CELLS)
    for size in ((100, 152), (98, 149)):
        found = cut(feature, torch.tensor([BOX]), sampling=2, size=size)[0, 0]
        for (row, column), expected in CROP.items():
            assert abs(found[row, column] - expected) < 1e-4


def test_the_reference_is_reproduced_for_boxes_within_the_image(oracles):
    roi = oracles["roi"]
    # The third and fifth box leave the image by more than a cell. There the reference repeats the border, while the
    # compiled RoIAlign of torchvision, which detectron2 calls and we call, takes zero.
    within = [0, 1, 3, 5]
    for sampling in (0, 2):
        found = cut(roi["feat"], roi["boxes"][within], sampling=sampling, size=(98, 149))
        expected = roi[f"aligned1_sr{sampling}_32"][within]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
