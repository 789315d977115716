"""RoIAlign of the head, against detectron2's figures and torchvision's operator."""

import pytest
import torch
from torchvision.ops import box_convert, roi_align

from frozen_cache.head.roi import RoiAlign
from frozen_cache.head.roi_bags import bag_align

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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sampling", [0, 1, 2, 3])
def test_it_is_torchvisions_aligned_roi_align_of_boxes_in_pixels(noise, sampling, training):
    feature = noise(2, 3, 13, 19)
    boxes_xyxy = torch.tensor([[10.0, 5.0, 70.0, 33.0], [-9.0, 20.0, 31.0, 60.0], [40.0, 1.0, 44.0, 50.0]]).double()
    image = torch.tensor([1, 0, 1])
    sizes = [(50, 73), (51, 74)]  # the maps' sizes, times the stride, rounded up
    units = torch.tensor([[sizes[at][1], sizes[at][0]] * 2 for at in image])
    align = RoiAlign(size=5, sampling=sampling, stride=4)
    with torch.set_grad_enabled(training):
        found = align(feature, image, box_convert(boxes_xyxy / units, "xyxy", "cxcywh"), sizes)
    rois = torch.cat([image[:, None], boxes_xyxy], 1)
    expected = roi_align(feature, rois, 5, spatial_scale=1 / 4, sampling_ratio=sampling, aligned=True)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("sampling", "training", "calls"), [(2, False, 0), (2, True, 1), (0, False, 1)])
def test_inference_on_cpus_leaves_torchvision_out_where_bins_are_alike(noise, monkeypatch, sampling, training, calls):
    seen = []
    monkeypatch.setattr("frozen_cache.head.roi.roi_align", lambda *args, **options: seen.append(1) or args[0])
    align = RoiAlign(size=4, sampling=sampling, stride=4)
    with torch.set_grad_enabled(training):
        align(noise(1, 3, 6, 8), torch.tensor([0]), torch.tensor([[0.4, 0.6, 0.5, 0.4]]).double(), [None])
    assert len(seen) == calls


def test_samples_by_bags_are_torchvisions_up_to_a_cell_outside_and_beyond(noise):
    feature = noise(2, 3, 9, 11)
    # Left of the map by less and by more than a cell, on its last cells, past them, wholly outside, without extent.
    boxes = [
        [-1.4, 2, 4, 5],
        [-4, -4, 3, 2],
        [6, 5, 11, 9],
        [8, 6, 15, 14],
        [20, 20, 25, 25],
        [3, 3, 3, 3],
        [5, 5, 2, 2],
    ]
    rois = torch.cat([torch.tensor([[0.0], [1], [0], [1], [0], [1], [0]]), torch.tensor(boxes)], dim=1).double()
    for sampling in (1, 2):
        expected = roi_align(feature, rois, 6, sampling_ratio=sampling, aligned=True)
        torch.testing.assert_close(bag_align(feature, rois, size=6, sampling=sampling), expected)


def test_a_view_of_unknown_size_ends_where_its_map_ends(noise):
    feature = noise(1, 3, 6, 8)
    box, image = torch.tensor([[0.4, 0.6, 0.5, 0.4]]).double(), torch.tensor([0])
    align = RoiAlign(size=4, sampling=2, stride=4)
    torch.testing.assert_close(align(feature, image, box, [None]), align(feature, image, box, [(24, 32)]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_cut_in_float32(noise, dtype):
    feature = noise(1, 3, 6, 8).to(dtype)
    box, image = torch.tensor([[0.413, 0.611, 0.511, 0.423]]), torch.tensor([0])
    align = RoiAlign(size=4, sampling=2, stride=4)
    found = align(feature, image, box, [(23, 31)])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, align(feature.float(), image, box, [(23, 31)]), rtol=0, atol=0)
