"""Guesses at masks, on pictures whose objects are known; and that all losses of a box alone lead to such a mask."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from frozen_cache.boxes import enlarged, to_pixels
from frozen_cache.data.supervision import Kind, Point, Supervision
from frozen_cache.training.config import LossConfig
from frozen_cache.training.guess import guessed_masks
from frozen_cache.training.told_points import Points
from frozen_cache.training.weak_losses import weak_losses
from frozen_cache.training.weak_targets import WeakCollector, WeakTargets

SIDE = 16
VIEW = (48, 96)
"""(height, width), in pixels."""
BOX = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
"""Columns 24 to 71, rows 12 to 35."""
ROI = enlarged(BOX, 1.2)


def wedge() -> Tensor:
    """(H, W) bool: an object that fills the lower left half of its box."""
    rows, columns = torch.meshgrid(torch.arange(VIEW[0]), torch.arange(VIEW[1]), indexing="ij")
    box = (columns >= 24) & (columns < 72) & (rows >= 12) & (rows < 36)
    return box & (columns - 24 < 2 * (rows - 12))


def picture(mask: Tensor) -> Tensor:
    """(3, H, W) in 0..255: red on green, both a little uneven."""
    noise = torch.rand(3, *VIEW, generator=torch.Generator().manual_seed(0)) * 10
    return torch.stack([mask * 180.0, ~mask * 150.0, torch.zeros(VIEW)]) + noise


def cells(mask: Tensor) -> Tensor:
    """(1, R, R) of the RoI: the mask at the cells' centres."""
    x0, y0, x1, y1 = to_pixels(ROI, VIEW)[0].tolist()
    at = (torch.arange(SIDE) + 0.5) / SIDE
    rows, columns = (y0 + at * (y1 - y0)).long(), (x0 + at * (x1 - x0)).long()
    return mask[rows][:, columns].float()[None]


def in_roi(box: Tensor) -> Tensor:
    """A box, cxcywh in 0..1 of the view, as xyxy in 0..1 of the RoI."""
    corner, far = to_pixels(ROI, VIEW)[:, :2], to_pixels(ROI, VIEW)[:, 2:]
    return ((to_pixels(box, VIEW).view(-1, 2, 2) - corner) / (far - corner)).view(-1, 4)


def iou(one: Tensor, other: Tensor) -> float:
    one, other = one > 0.5, other > 0.5
    return ((one & other).sum() / (one | other).sum()).item()


def test_colours_tell_the_object_from_what_else_is_in_its_box() -> None:
    truth = cells(wedge())
    guess = guessed_masks(picture(wedge()), rois=ROI, boxes=in_roi(BOX), side=SIDE)
    without = guessed_masks(None, rois=ROI, boxes=in_roi(BOX), side=SIDE)
    assert iou(guess, truth) > 0.75 and iou(without, truth) < 0.45
    other = guessed_masks(picture(wedge()).flip(0), rois=ROI, boxes=in_roi(BOX), side=SIDE)
    assert iou(other, truth) > 0.65, "whatever the colours"


def test_nothing_lies_outside_of_the_box_wherever_it_is_in_the_roi() -> None:
    moved = torch.tensor([[0.55, 0.5, 0.45, 0.3]])
    for pixels in (None, picture(wedge())):
        guess = guessed_masks(pixels, rois=ROI, boxes=in_roi(moved), side=SIDE)[0]
        x0, y0, x1, y1 = (in_roi(moved)[0] * SIDE).tolist()
        at = torch.arange(SIDE) + 0.5
        inside = ((at > y0) & (at < y1))[:, None] & ((at > x0) & (at < x1))
        assert (guess[~inside] == 0).all() and (guess[inside] > 0).all()


def test_without_pictures_the_ellipse_is_likely() -> None:
    guess = guessed_masks(None, rois=ROI, boxes=torch.tensor([[0.0, 0.25, 1.0, 0.75]]), side=64)[0]
    assert (guess > 0.5).float().mean().item() == pytest.approx(np.pi / 4 / 2, abs=0.01)
    assert guess[32].gt(0.5).sum() == 64 and guess[:, 32].gt(0.5).sum() == 32, "as wide and as high as the box"
    assert guess[32, 32].item() == pytest.approx(1 / (1 + np.exp(-2)), abs=0.01)


def test_the_colour_of_the_object_does_not_matter_far_from_it() -> None:
    both = wedge()
    both[:, 78:] = True
    guess = guessed_masks(picture(both), rois=ROI, boxes=in_roi(BOX), side=SIDE)
    assert iou(guess, cells(wedge())) > 0.65


def test_a_picture_of_one_colour_leaves_the_ellipse_and_rois_are_alone() -> None:
    boxes = torch.cat([in_roi(BOX), torch.tensor([[0.0, 0.2, 0.8, 1.0]])])
    rois = torch.cat([ROI, torch.tensor([[0.1, 0.1, 0.5, 0.6]])])
    even = guessed_masks(torch.full((3, *VIEW), 90.0), rois=rois, boxes=boxes, side=SIDE)
    beyond = rois[1:2]  # part of it is no picture: its cells are black
    assert iou(even[:1], guessed_masks(None, rois=ROI, boxes=boxes[:1], side=SIDE)) > 0.75
    torch.testing.assert_close(
        even[1:], guessed_masks(torch.full((3, *VIEW), 90.0), rois=beyond, boxes=boxes[1:], side=SIDE)
    )
    assert guessed_masks(picture(wedge()), rois=rois[:0], boxes=boxes[:0], side=SIDE).shape == (0, SIDE, SIDE)


def collected(
    kinds: list[Kind], *, pictures: bool = True, points: tuple[Point, ...] = ((30.0, 30.0, 1),)
) -> WeakTargets:
    """What a collector makes of a RoI for each kind, all of the wedge."""
    count = len(kinds)
    x0, y0, x1, y1 = to_pixels(BOX, VIEW)[0].tolist()
    truth: Any = SimpleNamespace(
        boxes=np.tile(np.array([[x0, y0, x1, y1]], dtype=np.float32), (count, 1)),
        supervision=Supervision.of(kinds, [points if kind == Kind.POINTS else [] for kind in kinds]),
    )
    box = torch.zeros(VIEW, dtype=torch.bool)
    box[int(y0) : int(y1), int(x0) : int(x1)] = True
    collector = WeakCollector(room=len(points), pictures=pictures, colours=True, side=SIDE)
    collector.add(
        truth,
        torch.arange(count),
        rois=ROI.expand(count, -1),
        corners=to_pixels(ROI, VIEW).expand(count, -1),
        targets=cells(box).expand(count, -1, -1),
        pixels=lambda: picture(wedge()),
    )
    return collector.targets()


@pytest.mark.parametrize("pictures", [True, False])
def test_objects_without_masks_have_guesses_and_their_points_are_heard(pictures: bool) -> None:
    weak = collected([Kind.POINTS, Kind.BOX, Kind.MASK, Kind.BOX], pictures=pictures)
    assert weak.boxed.tolist() == [0, 1, 3] and weak.pointed.tolist() == [0]
    given = {"rois": ROI, "boxes": in_roi(BOX), "side": SIDE}
    pixels = picture(wedge()) if pictures else None
    point = Points(weak.points, weak.inside, weak.known)
    alone, told = guessed_masks(pixels, **given), guessed_masks(pixels, points=point, **given)
    torch.testing.assert_close(weak.guess, torch.cat([told, alone, alone]))
    assert (told > alone + 0.01).any()
    assert (weak.alike is None) == (not pictures)


def test_points_that_the_roi_does_not_show_are_not_known() -> None:
    weak = collected([Kind.POINTS, Kind.POINTS], points=((30.0, 30.0, 0), (40.0, 30.0, 1), (1.0, 1.0, 1)))
    assert weak.inside.tolist() == 2 * [[0, 1, 1]] and weak.known.tolist() == 2 * [[1, 1, 0]]
    corner, far = to_pixels(ROI, VIEW)[0].view(2, 2)
    wanted = (torch.tensor([[30.0, 30.0], [40.0, 30.0]]) - corner) / (far - corner)
    torch.testing.assert_close(weak.points[1, :2], wanted)


def points_of(mask: Tensor, places: list[tuple[float, float]]) -> Points:
    """Points x, y in 0..1 of the RoI, told by a mask (1, R, R)."""
    at = torch.tensor([places])
    columns, rows = (at * SIDE).long()[0].T
    return Points(at, mask[0, rows, columns][None], torch.ones(1, len(places)))


def test_points_turn_a_guess_that_colours_leave_wrong() -> None:
    truth = cells(wedge())
    even = torch.full((3, *VIEW), 90.0)
    places = [(0.3, 0.3), (0.7, 0.3), (0.3, 0.75), (0.75, 0.7), (0.8, 0.2), (0.6, 0.45), (0.45, 0.6), (0.5, 0.2)]
    points = points_of(truth, places)
    for pixels in (None, even):
        given = {"rois": ROI, "boxes": in_roi(BOX), "side": SIDE}
        alone, told = (guessed_masks(pixels, points=each, **given) for each in (None, points))
        assert iou(told, truth) > iou(alone, truth) + 0.1
    box = alone > 0
    assert (told[~box] == 0).all() and (told[box] > 0).all(), "nothing outside of the box"


def test_a_point_tells_more_of_cells_of_its_own_colour() -> None:
    """The picture's object is its left half, but the point says that it is the other."""
    halves = torch.zeros(VIEW, dtype=torch.bool)
    halves[:, :48] = True
    given = {"rois": ROI, "boxes": in_roi(BOX), "side": SIDE}
    right = Points(torch.tensor([[[0.55, 0.5]]]), torch.ones(1, 1), torch.ones(1, 1))
    change = guessed_masks(picture(halves), points=right, **given) - guessed_masks(picture(halves), **given)
    middle = change[0, SIDE // 2]
    assert middle[9] > 2 * middle[6].abs(), "as far from the point on either side"


def loss_of(mask: Tensor, weak: WeakTargets, box: Tensor) -> float:
    losses = weak_losses(10 * mask - 5, box, weak, LossConfig(), count=1.0, progress=1.0)
    return torch.stack(list(losses.values())).sum().item()


def test_the_true_mask_costs_less_than_its_box_and_all_that_a_training_might_fall_into() -> None:
    weak, truth = collected([Kind.BOX]), cells(wedge())
    box = (guessed_masks(None, rois=ROI, boxes=in_roi(BOX), side=SIDE) > 0).float()
    ellipse = (guessed_masks(None, rois=ROI, boxes=in_roi(BOX), side=SIDE) > 0.5).float()
    others = {"box": box, "ellipse": ellipse, "RoI": torch.ones_like(box), "nothing": torch.zeros_like(box)}
    for name, mask in others.items():
        assert loss_of(mask, weak, box) > 1.3 * loss_of(truth, weak, box), name


@pytest.mark.parametrize("start", [-5.0, 0.0, 5.0])
def test_its_gradient_lowers_every_cell_outside_of_the_box_and_leads_to_the_object(start: float) -> None:
    weak, truth = collected([Kind.BOX]), cells(wedge())
    box = (guessed_masks(None, rois=ROI, boxes=in_roi(BOX), side=SIDE) > 0).float()
    logits = torch.full((1, SIDE, SIDE), start, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for step in range(80):
        optimizer.zero_grad()
        losses = weak_losses(logits, box, weak, LossConfig(), count=1.0, progress=1.0)
        torch.stack(list(losses.values())).sum().backward()
        if step == 0 and start > 0:
            assert logits.grad is not None and (logits.grad[box == 0] > 0).all()
        optimizer.step()
    assert iou(logits.detach().sigmoid(), truth) > 0.85


def test_what_is_known_before_takes_the_place_of_the_ellipse() -> None:
    box = in_roi(BOX)
    known = torch.full((1, SIDE, SIDE), -2.0)
    known[:, :, : SIDE // 2] = 2.0
    alone = guessed_masks(None, rois=ROI, boxes=box, side=SIDE, prior=known)
    inside = guessed_masks(None, rois=ROI, boxes=box, side=SIDE) > 0
    torch.testing.assert_close(alone, known.sigmoid() * inside)
    # The left half is half wedge and half ground: that red is the object is told by the picture and a hint.
    hint = cells(wedge()) * 1.0 - 0.5
    coloured = guessed_masks(picture(wedge()), rois=ROI, boxes=box, side=SIDE, prior=hint)
    assert iou(coloured, cells(wedge())) > 0.85
    point = Points(torch.tensor([[[0.75, 0.5]]]), torch.ones(1, 1), torch.ones(1, 1))
    told = guessed_masks(None, rois=ROI, boxes=box, side=SIDE, prior=known, points=point)
    at = SIDE // 2, SIDE * 3 // 4
    assert told[0][at] > alone[0][at] + 0.2


def test_nothing_is_guessed_where_no_loss_asks_for_it() -> None:
    def never() -> Tensor:
        raise AssertionError("the picture was made")

    collector = WeakCollector(room=0, pictures=True, colours=False, side=SIDE, guesses=False)
    x0, y0, x1, y1 = to_pixels(BOX, VIEW)[0].tolist()
    truth: Any = SimpleNamespace(
        boxes=np.array([[x0, y0, x1, y1]], dtype=np.float32), supervision=Supervision.of([Kind.BOX], [[]])
    )
    given = {"rois": ROI, "corners": to_pixels(ROI, VIEW), "targets": torch.zeros(1, SIDE, SIDE)}
    collector.add(truth, torch.zeros(1, dtype=torch.int64), pixels=never, **given)
    weak = collector.targets()
    assert weak.guess is None and weak.boxed.tolist() == [0]
    logits = torch.zeros(1, SIDE, SIDE)
    assert "guess" not in weak_losses(logits, given["targets"], weak, LossConfig(guess=0), count=1.0, progress=1.0)
