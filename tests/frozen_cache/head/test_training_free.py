"""The training-free baseline: the four rows of Table 1."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from frozen_cache.errors import UserError
from frozen_cache.head.training_free import TrainingFree


@pytest.mark.parametrize("roi_align", [False, True])
@pytest.mark.parametrize("c1", [False, True])
def test_each_row_of_table_1_gives_masks(inputs, make_batch, roi_align, c1):
    shapes = inputs["one_level"]
    baseline = TrainingFree(inputs=shapes, roi_align=roi_align, c1=c1)
    images, rois = make_batch(shapes, [(48, 60), (50, 33)], [3, 2])
    output = baseline(images, rois)
    assert output.mask_logits.shape == (5, baseline.mask_side, baseline.mask_side)
    assert output.mask_logits.isfinite().all()
    assert output.iou is None
    assert baseline.uses_c1 == c1
    assert baseline.note is None
    assert baseline.covers_image != roi_align
    boxes = baseline.boxes(rois)
    assert torch.equal(boxes, rois.boxes) if roi_align else boxes.eq(torch.tensor([0.5, 0.5, 1, 1])).all()


def test_a_mask_is_the_query_times_the_features_of_its_box(inputs, make_batch):
    shapes = inputs["one_level"]
    images, rois = make_batch(shapes, [(64, 64)], [1])
    images[0].levels[0][:] = torch.arange(16.0)[:, None, None]
    images[0].c1[:] = 1.0
    rois.boxes[:] = torch.tensor([0.5, 0.5, 0.4, 0.4])
    expected = (rois.queries[0] * (torch.arange(16.0) + 1)).sum()
    logits = TrainingFree(inputs=shapes)(images, rois).mask_logits
    torch.testing.assert_close(logits, expected.expand(1, 32, 32))


def pixels(boxes, size):
    """cxcywh in 0..1 to xyxy in pixels of (height, width)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1) * torch.tensor([size[1], size[0]] * 2)


@pytest.mark.parametrize("c1", [False, True])
def test_f_is_c1_and_the_finest_level_upsampled_and_cut_by_roi_align(inputs, make_batch, c1):
    """Eq. 1, 3 and 4, image by image."""
    shapes = inputs["one_level"]
    images, rois = make_batch(shapes, [(48, 60), (50, 33)], [2, 1], dtype=torch.float64)
    found = TrainingFree(inputs=shapes, c1=c1, roi_size=5)(images, rois).mask_logits
    for n, at in enumerate((0, 0, 1)):
        c1_map, level, size = images[at].c1, images[at].levels[0], images[at].size
        raised = F.interpolate(level[None], size=c1_map.shape[1:], mode="bilinear", align_corners=False)[0]
        feature, stride = (c1_map + raised, 4) if c1 else (level, 16)
        cut = roi_align(feature[None], [pixels(rois.boxes[n : n + 1], size)], 5, 1 / stride, 2, aligned=True)[0]
        torch.testing.assert_close(found[n], torch.einsum("d,dhw->hw", rois.queries[n], cut))


def test_without_roi_align_the_whole_map_is_multiplied_and_resized(inputs, make_batch):
    shapes = inputs["one_level"]
    images, rois = make_batch(shapes, [(48, 60)], [2], dtype=torch.float64)
    found = TrainingFree(inputs=shapes, roi_align=False, c1=False)(images, rois).mask_logits
    dots = torch.einsum("nd,dhw->nhw", rois.queries, images[0].levels[0])
    expected = F.interpolate(dots[:, None], size=(128, 128), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found, expected)


def test_c1_of_other_channels_is_left_out_and_said_so(inputs):
    swin = inputs["hdetr_r50"].model_copy(update={"c1": inputs["small"].c1})
    baseline = TrainingFree(inputs=swin)
    assert not baseline.uses_c1
    assert "12 channels, the encoder 256" in baseline.note


def test_queries_and_features_of_different_widths_are_refused(inputs):
    with pytest.raises(UserError, match="train a head"):
        TrainingFree(inputs=inputs["deimv2_atto_added"].model_copy(update={"query_dim": 48}))


def test_maps_added_from_the_backbone_are_passed_over(inputs, make_batch):
    shapes = inputs["deimv2_atto_added"]
    baseline = TrainingFree(inputs=shapes, c1=False)
    assert shapes.levels[baseline.level].channels == shapes.query_dim
    images, rois = make_batch(shapes, [(64, 64)], [3])
    assert baseline(images, rois).mask_logits.isfinite().all()


def test_no_rois_give_no_masks(inputs, make_batch):
    shapes = inputs["one_level"]
    images, rois = make_batch(shapes, [(48, 60)], [0])
    assert TrainingFree(inputs=shapes)(images, rois).mask_logits.shape == (0, 32, 32)
