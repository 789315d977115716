"""Masks of fused detections: each view's own query, cells that coincide, views that do not show a place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from frozen_cache.boxes import carried, enlarged
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError
from frozen_cache.evaluation.fused import FusedSegmenter, FusedViews
from frozen_cache.evaluation.fusion import FusedView, fuse
from tests.frozen_cache.evaluation.test_averaging import KnowsTheImage, Views, another, pair

__all__ = ["pair"]
SHOWING_BOTH = [((0, 0, 80, 64), False), ((0, 0, 80, 64), True), ((4, 8, 70, 60), False), ((4, 8, 70, 60), True)]


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize(("crop", "flip"), SHOWING_BOTH)
def test_a_mask_that_is_the_same_in_all_views_is_the_mask_of_the_fused_box(pair, crop, flip, scale):
    pair = replace(pair, queries=torch.ones(2, 8))
    other = another(pair, 1, crop, flip=flip, order=[1, 0])
    shift = torch.tensor([0.02, 0.0, 0.0, 0.0])
    other = replace(other, boxes=other.boxes + shift, scores=torch.tensor([0.4, 0.7]))
    inner = KnowsTheImage(scale=scale)
    view = fuse(pair, [other])
    assert view.selected == 2 and (view.members >= 0).all()
    assert not torch.allclose(view.boxes, pair.boxes)
    found = FusedSegmenter(inner)(view)
    expected = KnowsTheImage(scale=scale)(replace(pair, boxes=view.boxes))
    torch.testing.assert_close(found.masks, expected.masks, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes, enlarged(view.boxes, scale))
    # 1 in the plain view, 0.5 in the other, both times the fused class score.
    torch.testing.assert_close(found.scores, view.scores * 0.75)


def test_each_view_is_asked_about_its_own_members_alone(pair):
    """By their own queries, in the fused box, with the fused label and score."""
    other = another(pair, 1, (0, 0, 80, 64), flip=True, order=[1])
    far = replace(
        another(pair, 2, (0, 0, 80, 64), flip=False, order=[0, 0, 0]),
        boxes=torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]]),
        labels=torch.zeros(3, dtype=torch.int64),
        scores=torch.tensor([0.95, 0.0, 0.0]),
    )
    inner = KnowsTheImage()
    view = fuse(pair, [other, far])
    FusedSegmenter(inner)(view)
    assert sorted(view.members.tolist()) == [[-1, -1, 0], [0, -1, -1], [1, 0, -1]]
    assert [each.view for each in inner.asked] == [0, 1, 2]
    for asked in inner.asked:
        rows = (view.members[: view.selected, asked.view] >= 0).nonzero()[:, 0]
        source = view.sources[asked.view]
        torch.testing.assert_close(asked.queries, source.queries[view.members[rows, asked.view]])
        torch.testing.assert_close(asked.boxes, carried(view.boxes[rows], source.transform))
        assert torch.equal(asked.labels, view.labels[rows]) and torch.equal(asked.scores, view.scores[rows])


def test_the_mean_is_of_the_views_that_have_the_thing(pair):
    class Says(KnowsTheImage):
        def __call__(self, view: CachedView):
            found = super().__call__(view)
            return replace(found, masks=torch.full_like(found.masks, 0.2 + 0.3 * view.view))

    other = another(pair, 1, (0, 0, 80, 64), flip=False, order=[0])
    view = fuse(pair, [other])
    found = FusedSegmenter(Says())(view)
    for row, members in enumerate(view.members[: view.selected].tolist()):
        expected = {(True, True): 0.35, (True, False): 0.2, (False, True): 0.5}[members[0] >= 0, members[1] >= 0]
        torch.testing.assert_close(found.masks[row], torch.full((6, 6), expected))


def test_a_place_that_no_view_with_the_thing_shows_is_background(pair):
    """A box found in a tile alone may be enlarged beyond it."""
    tile = another(replace(pair, boxes=torch.tensor([[0.6, 0.5, 0.36, 0.4], [0.5, 0.5, 0.1, 0.1]])), 1,
                   (32, 8, 64, 56), flip=False, order=[0])  # fmt: skip
    view = fuse(replace(pair, selected=0), [tile])
    found = FusedSegmenter(KnowsTheImage(scale=1.6))(view)
    assert view.members.tolist() == [[-1, 0]]
    assert torch.isfinite(found.masks).all()
    assert (found.masks[0] == 0).any() and (found.masks[0] > 0.2).any()


def test_nothing_found_has_no_mask(pair):
    empty = replace(pair, selected=0)
    found = FusedSegmenter(KnowsTheImage())(fuse(empty, [replace(empty, view=1)]))
    assert len(found.masks) == len(found.scores) == len(found.boxes) == 0


def test_a_view_that_is_not_fused_is_a_mistake_of_ours(pair):
    with pytest.raises(TypeError, match="give a fused view"):
        FusedSegmenter(KnowsTheImage())(pair)


def reader_of(views: list[CachedView], *, tta: bool = True) -> Views:
    reader = Views(views)
    reader.attributes = SimpleNamespace(tta=tta)  # type: ignore[attr-defined]
    return reader


def test_views_of_one_image_become_one(pair):
    views = [
        replace(pair, image_id=image, view=number, boxes=pair.boxes + 0.01 * image)
        for number, image in ((1, 7), (0, 7), (0, 3), (2, 3), (1, 3))
    ]
    fused = FusedViews(reader_of(views))  # type: ignore[arg-type]
    assert fused.views == [(7, 0), (3, 0)]
    for at, (image, numbers) in enumerate(((7, [0, 1]), (3, [0, 1, 2]))):
        found = fused.read(at)
        assert isinstance(found, FusedView) and found.image_id == image and found.view == 0
        assert [each.view for each in found.sources] == numbers
        assert {each.image_id for each in found.sources} == {image}


def test_a_cache_of_other_views_says_how_to_make_them(pair):
    with pytest.raises(UserError, match=r"--tta, but memory.zarr has other views: extract them with --tta"):
        FusedViews(reader_of([pair], tta=False))  # type: ignore[arg-type]
