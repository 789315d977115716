"""The training-free baseline: the four rows of Table 1."""

import pytest
import torch

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
