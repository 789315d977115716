"""What a training batch holds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform
from frozen_cache.head.inputs import ImageFeatures
from frozen_cache.training.batches import make_batch
from frozen_cache.training.config import with_overrides


def view_of_one_object() -> CachedView:
    """The object fills columns 30 to 49 and rows 24 to 39 of 64 x 80 pixels; its query's box is that and no more."""
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[24:40, 30:50] = 1
    truth = GroundTruth(
        boxes=np.array([[30, 24, 50, 40]], dtype=np.float32),
        categories=np.array([1]),
        crowd=np.array([False]),
        areas=np.array([320.0], dtype=np.float32),
        masks=[coco_mask.encode(np.asfortranarray(mask))],
        annotation_ids=np.array([5]),
        match=np.array([0]),
    )
    return CachedView(
        image_id=1,
        view=0,
        transform=ViewTransform(original_size=(64, 80), crop=(0, 0, 80, 64), resized_size=(64, 80)),
        selected=1,
        queries=torch.ones(1, 4),
        boxes=torch.tensor([[0.5, 0.5, 0.25, 0.25]]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([0]),
        c1=None,
        encoder={1: [torch.ones(4, 8, 10)]},
        truth=truth,
    )


@pytest.mark.parametrize(("scale", "inside"), [(1.0, 32), (2.0, 16)])
def test_targets_show_the_object_in_the_roi_that_the_head_sees(scale: float, inside: int) -> None:
    view = view_of_one_object()
    store = SimpleNamespace(
        read=lambda index: view, features=lambda view: ImageFeatures(c1=None, levels=view.encoder[1])
    )
    config = with_overrides({}, {"head.roi_scale": scale})
    batch = make_batch(store, [0], config, roi_side=32, seed=0)
    assert torch.equal(batch.rois.boxes, view.boxes), "the RoI's box stays the detection's; the head enlarges it"
    wanted = torch.zeros(1, 32, 32)
    edge = (32 - inside) // 2
    wanted[0, edge : 32 - edge, edge : 32 - edge] = 1
    assert torch.equal(batch.targets, wanted)
    assert batch.box_areas.tolist() == pytest.approx([320 * scale**2])
    assert batch.object_areas.tolist() == [320]
    assert batch.rois.labels.tolist() == [1], "the object's own category"
