"""Detections of several views in one list: whose they are, where they lie, what they score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform
from frozen_cache.evaluation.fusion import SAME_IOU, FusedView, fuse

SIZE = (100, 200)
WHOLE = (0, 0, 200, 100)


def view_of(
    boxes: list[tuple[float, float, float, float]],
    scores: list[float],
    labels: list[int] | None = None,
    *,
    crop: tuple[int, int, int, int] = WHOLE,
    flip: bool = False,
    number: int = 0,
    unselected: int = 0,
    match: list[int] | None = None,
) -> CachedView:
    """A view in which a detector found these boxes, xyxy in pixels of the image; its queries say (view, row)."""
    x0, y0, x1, y1 = crop
    placed = []
    for left, top, right, bottom in boxes:
        a, b = (left - x0) / (x1 - x0), (right - x0) / (x1 - x0)
        a, b = (1 - b, 1 - a) if flip else (a, b)
        c, d = (top - y0) / (y1 - y0), (bottom - y0) / (y1 - y0)
        placed.append([(a + b) / 2, (c + d) / 2, b - a, d - c])
    truth = GroundTruth.none()
    if match is not None:
        truth = replace(
            truth, boxes=np.zeros((len(match), 4)), categories=np.zeros(len(match), dtype=np.int64),
            crowd=np.zeros(len(match), dtype=bool), areas=np.ones(len(match)), masks=[{}] * len(match),
            annotation_ids=np.arange(len(match)), match=np.array(match, dtype=np.int64),
        )  # fmt: skip
    return CachedView(
        image_id=1,
        view=number,
        transform=ViewTransform(original_size=SIZE, crop=crop, flip=flip, resized_size=(64, 64)),
        selected=len(boxes) - unselected,
        queries=torch.tensor([[number, row] for row in range(len(boxes))]).float().reshape(-1, 2),
        boxes=torch.tensor(placed).float().reshape(-1, 4),
        scores=torch.tensor(scores).float(),
        labels=torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        c1=None,
        encoder={},
        truth=truth,
    )


def pixels(view: CachedView) -> list[list[float]]:
    """The selected boxes, xyxy in pixels."""
    corners = box_convert(view.boxes[: view.selected], "cxcywh", "xyxy") * torch.tensor([200.0, 100.0, 200.0, 100.0])
    return [[round(value, 3) for value in box] for box in corners.tolist()]


# As many detections are selected as the fullest view has: this one makes room for all.
ROOM = [(0.0, 96.0, 4.0, 100.0)] * 9
A, B = (20.0, 10.0, 60.0, 50.0), (100.0, 40.0, 150.0, 90.0)


def test_one_view_alone_stays_as_it_is():
    plain = view_of([A, B, (20, 10, 62, 50)], [0.9, 0.5, 0.4], [1, 0, 1])
    found = fuse(plain, [])
    assert isinstance(found, FusedView) and found.selected == 3
    for name in ("boxes", "scores", "labels", "queries"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name))
    assert found.members.tolist() == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("crop", "flip"), [(WHOLE, False), (WHOLE, True), ((10, 5, 160, 95), False), ((10, 5, 160, 95), True)]
)
def test_a_box_that_views_agree_on_is_one_wherever_the_view_lies(crop, flip):
    found = fuse(view_of([A, B], [0.8, 0.6]), [view_of([B, A], [0.3, 0.2], crop=crop, flip=flip, number=1)])
    assert found.members.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(pixels(found), [A, B], atol=1e-3)
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.45]))


def test_a_fused_box_is_the_mean_of_its_members_by_their_scores():
    found = fuse(view_of([(20, 10, 60, 50)], [0.6]), [view_of([(24, 10, 64, 50)], [0.2], flip=True, number=1)])
    np.testing.assert_allclose(pixels(found), [[21, 10, 61, 50]], atol=1e-3)
    assert found.scores.tolist() == pytest.approx([0.4])


def test_the_query_of_the_best_member_leads():
    found = fuse(view_of([A], [0.3]), [view_of([A], [0.7], number=1)])
    assert found.queries.tolist() == [[1, 0]]


def test_labels_and_things_of_one_view_are_never_fused():
    twice = view_of([A, A], [0.9, 0.8])
    assert fuse(twice, []).members.tolist() == [[0], [1]]
    assert fuse(twice, [view_of([A, A], [0.7, 0.6], number=1)]).members.tolist() == [[0, 0], [1, 1]]
    other = fuse(view_of([A, *ROOM], [0.9] + [0.0] * 9, [0] + [2] * 9), [view_of([A], [0.8], [1], number=1)])
    assert other.members.tolist()[:2] == [[0, -1], [-1, 0]] and other.labels.tolist()[:2] == [0, 1]


@pytest.mark.parametrize(("overlap", "one"), [(SAME_IOU + 0.02, True), (SAME_IOU - 0.02, False)])
def test_it_takes_enough_overlap(overlap, one):
    shift = 40 * (1 - overlap) / (1 + overlap)  # of a box 40 wide
    moved = (A[0] + shift, A[1], A[2] + shift, A[3])
    found = fuse(view_of([A, *ROOM], [0.9] + [0.0] * 9), [view_of([moved], [0.8], number=1)])
    assert ([0, 0] in found.members.tolist()) is one
    assert ([-1, 0] in found.members.tolist()) is not one


def test_what_a_view_cuts_off_is_left_out_and_costs_no_score():
    tile = (0, 0, 120, 100)  # cuts B
    plain = view_of([A, B], [0.8, 0.6])
    cut = view_of([(100, 40, 119.9, 90), A], [0.9, 0.7], crop=tile, number=1)
    found = fuse(plain, [cut])
    assert found.members.tolist() == [[0, 1], [1, -1]]
    assert found.scores.tolist() == pytest.approx([0.75, 0.6])


def test_a_view_that_shows_a_thing_and_lacks_it_counts_with_its_least_score():
    plain = view_of([A, B, *ROOM], [0.8, 0.6] + [0.02] * 9)
    found = fuse(plain, [view_of([A, (0, 0, 10, 10)], [0.8, 0.1], number=1)])
    scores = dict(zip(map(tuple, found.members.tolist()), found.scores.tolist(), strict=True))
    assert scores[0, 0] == pytest.approx(0.8)
    assert scores[1, -1] == pytest.approx((0.6 + 0.1) / 2)
    assert scores[-1, 1] == pytest.approx((0.1 + 0.02) / 2)
    alone = fuse(view_of([A, B], [0.9, 0.7]), [view_of([B, (0, 0, 10, 10)], [0.7, 0.1], number=1)])
    assert alone.members.tolist() == [[1, 0], [0, -1]] and alone.scores.tolist() == pytest.approx([0.7, 0.5])
    nothing = fuse(view_of([A], [0.8]), [view_of([], [], number=1)])
    assert nothing.scores.tolist() == pytest.approx([0.4])


def test_the_best_are_selected_by_falling_score_as_many_as_the_fullest_view_has():
    plain = view_of([A, B], [0.3, 0.2])
    more = view_of([(0, 0, 10, 10), (30, 60, 50, 80), (70, 5, 90, 25)], [0.9, 0.8, 0.1], number=1)
    found = fuse(plain, [more])
    assert found.selected == 3 == len(found.boxes)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert found.members.tolist()[:2] == [[-1, 0], [-1, 1]]


def test_objects_keep_the_queries_that_they_are_matched_to():
    """Whether these are fused, fall out of the best, or were behind the selected ones before."""
    plain = view_of([A, B, (160, 10, 190, 30)], [0.5, 0.01, 0.001], unselected=1, match=[1, 0, -1, 2])
    better = view_of([A, (0, 60, 10, 70)], [0.9, 0.8], number=1)
    found = fuse(plain, [better])
    assert found.selected == 2 and len(found.boxes) == 4
    assert [found.members[row].tolist() for row in found.truth.match if row >= 0] == [[1, -1], [0, 0], [2, -1]]
    assert found.truth.match[2] == -1
    torch.testing.assert_close(found.boxes[2:], plain.boxes[1:])
    assert found.scores[2:].tolist() == pytest.approx([0.01, 0.001])
    taken = found.take(torch.tensor([3, 0]))
    assert taken.members.tolist() == [[2, -1], [0, 0]] and taken.selected == 2 and taken.sources == found.sources


def test_nothing_found_is_nothing_fused():
    found = fuse(view_of([], []), [view_of([], [], number=1)])
    assert found.selected == 0 and found.boxes.shape == (0, 4) and found.members.shape == (0, 2)


def test_on_random_views_every_detection_is_used_once_and_every_box_is_the_mean_of_its_members():
    generator = torch.Generator().manual_seed(0)
    things = torch.rand(30, 4, generator=generator)
    crops = [(WHOLE, False), (WHOLE, True), ((0, 0, 120, 60), True), ((80, 40, 200, 100), False)]
    views = []
    for number, (crop, flip) in enumerate(crops):
        wobble = things + 0.02 * torch.randn(30, 4, generator=generator)
        corner = wobble[:, :2] * torch.tensor([150.0, 70.0])
        boxes = torch.cat([corner, corner + 8 + 30 * wobble[:, 2:].clamp(min=0)], dim=1)
        scores = torch.rand(30, generator=generator).sort(descending=True).values
        views.append(view_of([tuple(box) for box in boxes.tolist()], scores.tolist(),
                             (torch.arange(30) % 3).tolist(), crop=crop, flip=flip, number=number))  # fmt: skip
    found = fuse(views[0], views[1:])
    everything = fuse(views[0], [*views[1:], view_of(ROOM * 20, [0.0] * 180, [9] * 180, number=9)])
    used = everything.members[:, :4]
    for number, view in enumerate(views):
        rows = used[:, number][used[:, number] >= 0].tolist()
        assert sorted(rows) == [row for row, box in enumerate(unit(view)) if whole(box, view.transform)]
    several = 0
    for row in range(found.selected):
        members = [(views[number], at) for number, at in enumerate(found.members[row].tolist()) if at >= 0]
        weights = torch.stack([view.scores[at] for view, at in members])
        boxes = torch.stack([unit(view)[at] for view, at in members])
        mean = (boxes * weights[:, None]).sum(0) / weights.sum()
        own = box_convert(found.boxes[row : row + 1], "cxcywh", "xyxy")
        torch.testing.assert_close(own[0], mean, atol=1e-5, rtol=0)
        assert {int(view.labels[at]) for view, at in members} == {int(found.labels[row])}
        if len(members) > 1:
            several += 1
            assert float(box_iou(own, boxes).min()) > 0.3
        showing = [
            float(view.scores[int(found.members[row, number])])
            if found.members[row, number] >= 0
            else float(view.scores.min())
            for number, view in enumerate(views)
            if found.members[row, number] >= 0 or whole(own[0], view.transform)
        ]
        assert float(found.scores[row]) == pytest.approx(sum(showing) / len(showing), abs=1e-6)
    assert several > 10


def unit(view: CachedView) -> Tensor:
    """(N, 4) xyxy in 0..1 of the image."""
    x0, y0, x1, y1 = view.transform.crop
    boxes = view.boxes.clone()
    boxes[:, 0] = 1 - boxes[:, 0] if view.transform.flip else boxes[:, 0]
    corners = box_convert(boxes, "cxcywh", "xyxy") * torch.tensor([x1 - x0, y1 - y0] * 2)
    return (corners + torch.tensor([x0, y0] * 2)) / torch.tensor([200, 100] * 2)


def whole(box: Tensor, view: ViewTransform) -> bool:
    """Whether a box, xyxy in 0..1 of the image, lies a hundredth of the view or more away from the sides that cut."""
    x0, y0, x1, y1 = view.crop
    left, top, right, bottom = (box * torch.tensor([200, 100] * 2)).tolist()
    across, down = 0.01 * (x1 - x0), 0.01 * (y1 - y0)
    return (
        (x0 == 0 or left > x0 + across)
        and (y0 == 0 or top > y0 + down)
        and (x1 == 200 or right < x1 - across)
        and (y1 == 100 or bottom < y1 - down)
    )
