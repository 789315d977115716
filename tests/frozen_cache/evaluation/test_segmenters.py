"""Masks are pasted into what they cover, which need not be the detection's box."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pycocotools import mask as coco_mask
from torch import nn

from frozen_cache.boxes import enlarged
from frozen_cache.cache.view import CachedView
from frozen_cache.detectors.output import FeatureSpec
from frozen_cache.evaluation.evaluate import view_results
from frozen_cache.evaluation.segmenters import BoxSegmenter, FeatureSegmenter
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs, HeadOutput
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.head.training_free import TrainingFree

INPUTS = HeadInputs(query_dim=8, c1=None, levels=(FeatureSpec(channels=8, stride=8),), num_classes=2)
CPU = torch.device("cpu")


class EverythingInside(nn.Module):
    """A head that is sure of every cell of its RoI."""

    def __init__(self, head: MaskHead) -> None:
        super().__init__()
        self.head = head
        self.mask_depends_on_query_alone = head.mask_depends_on_query_alone

    def boxes(self, rois):
        return self.head.boxes(rois)

    def forward(self, images, rois):
        return HeadOutput(mask_logits=torch.full((len(rois.boxes), 32, 32), 20.0), iou=None)


def area(view: CachedView, found) -> float:
    return coco_mask.area(view_results(view, found, [7, 9])["segm"][0]["segmentation"])


@pytest.mark.parametrize(("scale", "pixels"), [(1.0, 16 * 20), (1.5, 24 * 30), (2.0, 32 * 40)])
def test_a_mask_fills_the_enlarged_box(view, scale, pixels):
    head = MaskHead(config=HeadConfig(roi_scale=scale, image_encoder="none", image_layers=0), inputs=INPUTS)
    found = FeatureSegmenter(EverythingInside(head), encoder_layer=1, device=CPU)(view)
    torch.testing.assert_close(found.boxes, enlarged(view.boxes, scale))
    assert area(view, found) == pixels


def test_the_detection_s_own_box_stays_as_it_is(view):
    head = MaskHead(config=HeadConfig(roi_scale=1.5, image_encoder="none", image_layers=0), inputs=INPUTS)
    found = FeatureSegmenter(EverythingInside(head), encoder_layer=1, device=CPU)(view)
    assert view_results(view, found, [7, 9])["bbox"][0]["bbox"] == pytest.approx([30, 24, 20, 16])


def test_without_roi_align_the_training_free_mask_covers_the_image(view):
    free = TrainingFree(inputs=INPUTS, roi_align=False)
    assert area(view, FeatureSegmenter(free, encoder_layer=1, device=CPU)(view)) == 64 * 80


def test_the_box_baseline_fills_the_box(view):
    assert area(view, BoxSegmenter()(view)) == 16 * 20


def repeated(view: CachedView) -> CachedView:
    """The view with three detections, two of them of one query."""
    return replace(
        view,
        selected=3,
        queries=torch.randn(2, 8, generator=torch.Generator().manual_seed(1))[[0, 1, 0]],
        boxes=torch.tensor([[0.6, 0.5, 0.25, 0.25], [0.4, 0.5, 0.5, 0.25], [0.6, 0.5, 0.25, 0.25]]),
        scores=torch.tensor([0.5, 0.4, 0.3]),
        labels=torch.tensor([1, 0, 0]),
        encoder={1: [torch.randn(8, 8, 10, generator=torch.Generator().manual_seed(2))]},
    )


@pytest.mark.parametrize(
    ("options", "rois"),
    [({}, 2), ({"query_blocks": ("o2o",)}, 3), ({"mask_head": "segmenter"}, 3)],
)
def test_a_query_with_two_labels_is_segmented_once_unless_its_neighbours_matter(view, options, rois):
    view = repeated(view)
    torch.manual_seed(0)
    config = HeadConfig(image_encoder="none", image_layers=0, width=16, roi_size=8, **options)
    head = MaskHead(config=config, inputs=INPUTS).eval()
    seen: list[int] = []
    head.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[1].boxes)))
    found = FeatureSegmenter(head, encoder_layer=1, device=CPU)(view)
    assert seen == [rois]
    assert found.masks.shape == (3, 8, 8)
    alone = FeatureSegmenter(head, encoder_layer=1, device=CPU)(replace(view, selected=2))
    if rois == 2:
        torch.testing.assert_close(found.masks[:2], alone.masks)
        torch.testing.assert_close(found.scores[:2], alone.scores)
        assert torch.equal(found.masks[0], found.masks[2])
        assert found.scores[0] != found.scores[2]


def test_a_view_without_detections_has_no_masks(view):
    head = MaskHead(config=HeadConfig(image_encoder="none", image_layers=0), inputs=INPUTS)
    found = FeatureSegmenter(head, encoder_layer=1, device=CPU)(replace(view, selected=0))
    assert found.masks.shape == (0, 32, 32)
