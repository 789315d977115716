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
from frozen_cache.evaluation.nameless import view_instances
from frozen_cache.evaluation.segmenters import BoxSegmenter, FeatureSegmenter
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs, HeadOutput, ImageFeatures, Rois
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
    return coco_mask.area(view_instances(view, found, [7, 9]).rles[0])


@pytest.mark.parametrize(("scale", "pixels"), [(1.0, 16 * 20), (1.5, 24 * 30), (2.0, 32 * 40)])
def test_a_mask_fills_the_enlarged_box(view, scale, pixels):
    head = MaskHead(config=HeadConfig(roi_scale=scale, image_encoder="none", image_layers=0), inputs=INPUTS)
    found = FeatureSegmenter(EverythingInside(head), encoder_layer=1, device=CPU)(view)
    torch.testing.assert_close(found.boxes, enlarged(view.boxes, scale))
    assert area(view, found) == pixels


def test_the_detection_s_own_box_stays_as_it_is(view):
    head = MaskHead(config=HeadConfig(roi_scale=1.5, image_encoder="none", image_layers=0), inputs=INPUTS)
    found = FeatureSegmenter(EverythingInside(head), encoder_layer=1, device=CPU)(view)
    assert view_instances(view, found, [7, 9]).to_coco(kind="bbox")[0]["bbox"] == pytest.approx([30, 24, 20, 16])


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


def test_in_half_precision_masks_stay_near_those_of_float32(view):
    torch.manual_seed(0)
    head = MaskHead(config=HeadConfig(image_encoder="none", image_layers=0, width=16, roi_size=8), inputs=INPUTS)
    exact = FeatureSegmenter(head, encoder_layer=1, device=CPU)(view)
    half = FeatureSegmenter(head, encoder_layer=1, device=CPU, half=torch.bfloat16)(view)
    assert half.masks.dtype == half.scores.dtype == torch.float32
    assert 0 < (half.masks - exact.masks).abs().max() < 0.05
    assert torch.equal(half.boxes, exact.boxes)


def test_a_view_without_detections_has_no_masks(view):
    head = MaskHead(config=HeadConfig(image_encoder="none", image_layers=0), inputs=INPUTS)
    found = FeatureSegmenter(head, encoder_layer=1, device=CPU)(replace(view, selected=0))
    assert found.masks.shape == (0, 32, 32)


def head_of(options: dict) -> MaskHead:
    """A small head in training mode, whose predicted IoUs lie within 0..1."""
    torch.manual_seed(0)
    config = HeadConfig(image_encoder="none", width=16, roi_size=8, **options)
    head = MaskHead(config=config, inputs=INPUTS).train()
    if head.scoring is not None:
        nn.init.constant_(head.scoring.out.bias, 0.5)
    return head


def output_of(head: nn.Module, view: CachedView) -> HeadOutput:
    """The head's output in eval mode, for the selected rows of a view."""
    rois = Rois(
        image_index=torch.zeros(view.selected, dtype=torch.int64),
        boxes=view.boxes[: view.selected],
        queries=view.queries[: view.selected],
        labels=view.labels[: view.selected],
    )
    images = [ImageFeatures(c1=view.c1, levels=view.encoder[1], size=view.transform.resized_size)]
    with torch.no_grad():
        return head.eval()(images, rois)


def test_masks_are_the_head_s_probabilities_in_eval_mode_scored_by_class_and_predicted_iou(view):
    view = replace(repeated(view), selected=2)
    head = head_of({"feature_dropout": 0.5})
    found = FeatureSegmenter(head, encoder_layer=1, device=CPU)(view)
    assert not head.training
    expected = output_of(head, view)
    torch.testing.assert_close(found.masks, expected.mask_logits.sigmoid())
    iou = torch.stack([expected.iou[0, 1], expected.iou[1, 0]]).clamp(0, 1)
    assert iou.min() < iou.max(), "the case shows nothing otherwise"
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.4]) * iou)
    torch.testing.assert_close(found.boxes, view.boxes[:2])


def test_without_mask_scoring_masks_are_scored_by_eq_2(view):
    view = replace(repeated(view), selected=2)
    head = head_of({"mask_scoring": False})
    found = FeatureSegmenter(head, encoder_layer=1, device=CPU)(view)
    masks = output_of(head, view).mask_logits.sigmoid()
    means = [mask[mask > 0.5].mean() for mask in masks]
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.4]) * torch.stack(means))


def test_the_training_free_baseline_is_scored_by_eq_2(view):
    view = repeated(view)
    free = TrainingFree(inputs=INPUTS)
    found = FeatureSegmenter(free, encoder_layer=1, device=CPU)(view)
    masks = output_of(free, view).mask_logits.sigmoid()
    torch.testing.assert_close(found.masks, masks)
    means = torch.stack([mask[mask > 0.5].mean() for mask in masks])
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.4, 0.3]) * means)


def test_rows_behind_the_selected_ones_are_no_detections(view):
    view = replace(repeated(view), selected=1)
    for segmenter in (FeatureSegmenter(head_of({}), encoder_layer=1, device=CPU), BoxSegmenter()):
        found = segmenter(view)
        assert len(found.masks) == len(found.scores) == len(found.boxes) == 1
    assert BoxSegmenter()(view).scores.tolist() == [0.5]


def test_the_features_of_the_segmenter_s_own_layer_are_read(view):
    view = repeated(view)
    view = replace(view, encoder={1: view.encoder[1], 2: [view.encoder[1][0].flip(0)]})
    head = head_of({})
    first, second = (FeatureSegmenter(head, encoder_layer=layer, device=CPU)(view).masks for layer in (1, 2))
    assert not torch.allclose(first, second)
    expected = output_of(head, replace(view, encoder={1: view.encoder[2]}))
    torch.testing.assert_close(second, expected.mask_logits.sigmoid())


def test_two_queries_of_one_box_have_masks_of_their_own(view):
    view = repeated(view)
    view = replace(view, boxes=view.boxes[[0, 0, 0]])
    found = FeatureSegmenter(head_of({}), encoder_layer=1, device=CPU)(view)
    torch.testing.assert_close(found.masks, output_of(head_of({}), view).mask_logits.sigmoid())
    assert not torch.allclose(found.masks[0], found.masks[1])
