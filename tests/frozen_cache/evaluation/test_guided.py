"""Pictures for the guided filter: read once each, named where they are missing, kept with the masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError
from frozen_cache.evaluation.guided import GuidedSegmenter
from frozen_cache.evaluation.matched_iou import view_object_ious
from frozen_cache.evaluation.segmenters import BoxSegmenter, Segmentation
from frozen_cache.inference.instances import Instances
from frozen_cache.masks.rle import paste_rles


class Soft(BoxSegmenter):
    """Masks of the left half of the whole image, that fade from 39 to 45 pixels."""

    def __call__(self, view: CachedView) -> Segmentation:
        columns = ((45 - torch.arange(80) - 0.5) / 6).clamp(0, 1)
        masks = columns.expand(view.selected, 80, 80)
        boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0]]).expand(view.selected, 4)
        return Segmentation(masks=masks, boxes=boxes, scores=view.scores[: view.selected])


def photograph() -> Image.Image:
    colours = np.zeros((64, 80, 3), np.uint8)
    colours[:, 43:] = (200, 40, 90)
    return Image.fromarray(colours)


def test_each_picture_is_read_once_and_goes_with_the_masks(view):
    asked: list[tuple[int, tuple[int, int]]] = []

    def picture(image_id: int, size: tuple[int, int]) -> Image.Image:
        asked.append((image_id, size))
        return photograph()

    segmenter = GuidedSegmenter(Soft(), picture)
    for image in (1, 1, 2):
        found = segmenter(replace(view, image_id=image))
        assert np.array_equal(found.guide, np.moveaxis(np.asarray(photograph()), -1, 0))
    assert asked == [(1, (64, 80)), (2, (64, 80))]
    instances = Instances.of_view(view, found, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    edge = instances.masks[0].sum(1)
    assert (edge == 43).all()
    assert np.array_equal(instances[:1].masks, instances.masks)
    assert instances.rles == paste_rles(
        found.masks.numpy(), np.array([[0.0, 0.0, 80.0, 64.0]]), (64, 80), guide=found.guide
    )
    plain = Instances.of_view(view, Soft()(view), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    assert (plain.masks[0].sum(1) == 42).all()


def test_objects_are_compared_with_what_is_pasted(view):
    truth = Instances.of_view(
        view, GuidedSegmenter(Soft(), lambda *_: photograph())(view), [{"id": 1, "name": "a"}] * 2
    )
    rle = truth.rles[0] | {"counts": truth.rles[0]["counts"].encode()}
    boxes, one = np.array([[0, 0, 43, 64]], np.float32), np.array([0])
    truth = replace(
        view.truth,
        boxes=boxes,
        categories=one,
        crowd=one > 0,
        areas=one + 1.0,
        masks=[rle],
        annotation_ids=one,
        match=one,
    )
    view = replace(view, truth=truth)
    segmenter = GuidedSegmenter(Soft(), lambda *_: photograph())
    assert view_object_ious(view, segmenter)[0].iou == 1.0
    assert view_object_ious(view, Soft())[0].iou < 1


def test_a_missing_picture_is_named(view):
    with pytest.raises(UserError, match=r"image 1 is not at hand: give --images FOLDER"):
        GuidedSegmenter(Soft(), lambda *_: None)(view)
