"""What a training batch holds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache.cache.nibbles import packed
from frozen_cache.cache.stored_map import StoredView, maps_of
from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform
from frozen_cache.training.batches import epoch_batches, make_batch
from frozen_cache.training.config import with_overrides
from frozen_cache.training.stored_group import StoredFeatures, stored_groups


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


def store_of(views: list[CachedView]) -> SimpleNamespace:
    """A `ViewStore` of views without maps."""
    return SimpleNamespace(
        read_together=lambda indices, seed: [StoredView(views[at], c1=None, encoder={}) for at in indices],
        features=lambda view: StoredFeatures(c1=None, levels=[], size=view.rows.transform.resized_size),
        weak=lambda loss, side: None,
    )


@pytest.mark.parametrize(("scale", "inside"), [(1.0, 32), (2.0, 16)])
def test_targets_show_the_object_in_the_roi_that_the_head_sees(scale: float, inside: int) -> None:
    view = view_of_one_object()
    store = store_of([view])
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


@pytest.mark.parametrize("soft", [False, True])
def test_a_boundary_stage_has_targets_of_its_own_side(soft: bool) -> None:
    view = view_of_one_object()
    settings = {"head.roi_scale": 1.3, "loss.soft_targets": soft}
    plain, fine = (
        make_batch(store_of([view]), [0], with_overrides({}, settings | more), roi_side=side, seed=0)
        for more, side in (({}, 48), ({"head.refine": 48}, 32))
    )
    assert plain.fine_targets is None and fine.targets.shape == (1, 32, 32)
    assert fine.fine_targets is not None and torch.equal(fine.fine_targets, plain.targets)
    assert any(each is fine.fine_targets for each in fine.tensors())
    moved = fine.to(torch.device("cpu")).fine_targets
    assert moved is not None and torch.equal(moved, fine.fine_targets)
    nothing = make_batch(
        SimpleNamespace(query_dim=4, weak=store_of([]).weak),
        [],
        with_overrides({}, {"head.refine": 48}),
        roi_side=32,
        seed=0,
    )
    assert nothing.fine_targets is not None and nothing.fine_targets.shape == (0, 48, 48)


SIZES = [(32, 32), (32, 48), (48, 32), (48, 48)]
SHAPES = [SIZES[at % 4] for at in range(230)]
VIEWS = list(range(1000, 1230))


def test_an_epoch_has_every_view_once_in_batches_of_like_size() -> None:
    batches = epoch_batches(VIEWS, SHAPES, batch_size=3, seed=0, epoch=0)
    assert sorted(view for batch in batches for view in batch) == VIEWS
    assert sorted(len(batch) for batch in batches) == [2, *[3] * 76]
    mixed = [batch for batch in batches if len({SHAPES[view - 1000] for view in batch}) > 1]
    assert len(mixed) <= 3 * 3, "at most one batch between two sizes in each window of 32 batches"


def test_views_and_batches_are_shuffled_anew_each_epoch_and_for_each_seed() -> None:
    def batches(**options: int) -> list[list[int]]:
        return epoch_batches(VIEWS, SHAPES, batch_size=3, **{"seed": 0, "epoch": 0} | options)

    assert batches() == batches()
    for other in (batches(epoch=1), batches(seed=1)):
        assert other != batches()
        assert {frozenset(batch) for batch in other} != {frozenset(batch) for batch in batches()}, "other company"
    first = [SIZES.index(SHAPES[batch[0] - 1000]) for batch in batches()]
    assert first[:32] != sorted(first[:32]), "small images do not all come before large ones"


def test_a_batch_holds_each_view_s_own_rows_objects_and_areas() -> None:
    first = view_of_one_object()
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[24:40, 30:41] = 1
    small = {"size": [64, 80], "counts": coco_mask.encode(np.asfortranarray(mask))["counts"]}
    truth = replace(
        first.truth,
        boxes=np.array([[0, 0, 9, 9], [30, 24, 40, 40]], dtype=np.float32),
        categories=np.array([1, 2]),
        crowd=np.array([False, False]),
        areas=np.array([81.0, 160.0], dtype=np.float32),
        masks=[first.truth.masks[0], small],
        annotation_ids=np.array([6, 7]),
        match=np.array([-1, 2]),
    )
    second = replace(
        first,
        selected=2,
        queries=torch.arange(3.0)[:, None].expand(3, 4),
        boxes=torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.25, 0.25]]),
        scores=torch.ones(3),
        labels=torch.tensor([0, 0, 0]),
        transform=first.transform.model_copy(update={"resized_size": (32, 40)}),
        truth=truth,
    )
    views = [first, second]
    store = store_of(views)
    for soft in (False, True):
        config = with_overrides({}, {"loss.soft_targets": soft})
        batch = make_batch(store, [0, 1], config, roi_side=3, seed=0)
        assert batch.rois.image_index.tolist() == [0, 1]
        assert batch.rois.queries[:, 0].tolist() == [1, 2]
        assert batch.rois.labels.tolist() == [1, 2]
        assert batch.object_areas.tolist() == [320, 160]
        left, middle, right = batch.targets[1, 0].tolist()
        assert left > 0.9 and right < 0.1
        assert 0.5 < middle < 0.9 if soft else middle == 1


def test_packed_maps_lie_side_by_side_also_where_only_one_of_them_has_upper_halves() -> None:
    shape = (2, 3, 3)
    values = [torch.randint(-limit, limit, shape, dtype=torch.int8) for limit in (8, 128)]
    tables = [np.random.default_rng(place).random(2, dtype=np.float32) for place in range(2)]
    maps = [maps_of(packed(each.flatten().numpy()), [shape], tables=tables, packed=True)[0] for each in values]
    assert [each.upper is None for each in maps] == [True, False]
    [group] = stored_groups([StoredFeatures(c1=each, levels=[], size=(3, 3)) for each in maps], [1, 1], pinned=False)
    decoded = group.decoded().c1
    assert decoded is not None and torch.equal(decoded, torch.stack([each.decoded() for each in maps]))
    assert len(group.tensors()) == 4
