"""Losses of objects without masks: zero where the mask is right, and their gradients lead there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_objective import case
from torch import Tensor
from torch.nn import functional as F

from frozen_cache.training.colours import DILATION, STEPS, alike, lab, partners
from frozen_cache.training.config import LossConfig
from frozen_cache.training.losses import bce_loss, dice_loss
from frozen_cache.training.objective import objective
from frozen_cache.training.weak_losses import annotated_loss, pairwise_loss, projection_loss
from frozen_cache.training.weak_targets import WeakTargets


def wide_box() -> Tensor:
    """(1, 8, 8): columns 1 to 6, rows 2 to 4."""
    box = torch.zeros(1, 8, 8)
    box[:, 2:5, 1:7] = 1
    return box


def logits_of(mask: Tensor) -> Tensor:
    return 40 * mask - 20


def test_any_mask_with_the_box_s_projections_costs_nothing() -> None:
    cross = torch.zeros(1, 8, 8)
    cross[:, 3, 1:7] = 1
    cross[:, 2:5, 4] = 1
    for mask in (wide_box(), cross):
        assert projection_loss(logits_of(mask), wide_box(), 1.0) < 1e-6
    assert projection_loss(logits_of(cross.transpose(1, 2)), wide_box(), 1.0) > 0.3, "x is not y"


def test_a_projection_is_compared_by_dice_and_counted_per_object() -> None:
    mask = torch.zeros(2, 8, 8)
    mask[:, 2:5, 1:4] = 1  # half of the columns
    wanted = 2 * (1 - (2 * 3 + 1) / (3 + 6 + 1)) / 4
    assert projection_loss(logits_of(mask), wide_box().expand(2, -1, -1), 4.0).item() == pytest.approx(wanted, abs=1e-5)


def test_its_gradient_raises_the_best_cell_of_a_row_in_the_box_and_lowers_it_outside() -> None:
    logits = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    projection_loss(logits, wide_box(), 1.0).backward()
    assert logits.grad is not None
    for axis, box in ((1, wide_box().amax(1)[0]), (2, wide_box().amax(2)[0])):
        best = logits.argmax(axis)[0].tolist()
        for at, (place, inside) in enumerate(zip(best, box.tolist(), strict=True)):
            row, column = (place, at) if axis == 1 else (at, place)
            other = wide_box().amax(3 - axis)[0][place]
            if other == inside:  # else its row and its column want different things of the cell
                assert (logits.grad[0, row, column] < 0) == (inside > 0), (axis, at)
    assert (logits.grad == 0).sum() >= 64 - 16


def test_pairs_that_look_alike_are_drawn_to_one_side() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 6, 6, generator=generator)
    pairs = torch.rand(2, 4, 6, 6, generator=generator) > 0.5
    pairs &= partners(torch.ones(2, 6, 6)) > 0
    p, total = logits.sigmoid(), 0.0
    for number in range(2):
        each = []
        for step, (down, right) in enumerate(STEPS):
            for row, column in pairs[number, step].nonzero().tolist():
                one, other = p[number, row, column], p[number, row + down, column + right]
                each.append(-(one * other + (1 - one) * (1 - other)).log().item())
        total += sum(each) / len(each)
    assert pairwise_loss(logits, pairs, 5.0).item() == pytest.approx(total / 5, rel=1e-5)
    assert pairwise_loss(logits, torch.zeros_like(pairs), 5.0) == 0
    same = torch.ones(1, 6, 6) * 20
    assert pairwise_loss(same, pairs[:1], 1.0) < 1e-6 and pairwise_loss(-same, pairs[:1], 1.0) < 1e-6


def test_colours_are_cielab() -> None:
    # As Lindbloom publishes them.
    known = {(255, 255, 255): (100, 0, 0), (255, 0, 0): (53.24, 80.09, 67.20), (0, 0, 255): (32.30, 79.19, -107.86)}
    known |= {(119, 119, 119): (50.03, 0, 0), (2, 2, 2): (0.55, 0, 0), (0, 255, 0): (87.73, -86.18, 83.18)}
    rgb = torch.tensor(list(known), dtype=torch.float32).T[:, None]
    torch.testing.assert_close(lab(rgb)[:, 0].T, torch.tensor(list(known.values())), rtol=0, atol=0.15)


def test_neighbours_are_alike_within_a_colour_and_begin_in_the_box() -> None:
    pixels = torch.zeros(3, 32, 64)
    pixels[0, :, 32:] = 255  # black, then red from the middle of the columns on
    inside = torch.zeros(1, 16, 16)
    inside[:, 4:12] = 1
    found = alike(pixels, torch.tensor([[0.5, 0.5, 1.0, 1.0]]), inside)[0]
    for step, (down, right) in enumerate(STEPS):
        for row in range(16):
            for column in range(16):
                there = 0 <= row + down < 16 and 0 <= column + right < 16
                wanted = there and 4 <= row < 12 and (column < 8) == (column + right < 8)
                assert bool(found[step, row, column]) == wanted, (step, row, column)
    assert DILATION == 2
    quarter = alike(pixels, torch.tensor([[0.25, 0.5, 0.5, 1.0]]), torch.ones(1, 16, 16))
    assert quarter.sum() == 2 * 16 * 14 + 2 * 14 * 14, "one colour alone"


def test_points_are_told_at_their_places() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :4, :2] = 1  # above and to the left
    points = torch.tensor([[[1.5, 1.5], [5.5, 1.5], [1.5, 6.5], [0.0, 0.0]]]) / 8
    inside, known = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[1.0, 1, 1, 0]])
    points[:, 0, 0] = 0.5 / 8
    assert annotated_loss(logits_of(mask), points, inside, known, 1.0) < 1e-6
    lower = torch.tensor([[[0.5, 3.5], [3.5, 0.5]]]) / 8
    told = torch.tensor([[1.0, 0.0]])
    assert annotated_loss(logits_of(mask), lower, told, torch.ones(1, 2), 1.0) < 1e-6
    assert annotated_loss(logits_of(mask), lower.flip(2), told, torch.ones(1, 2), 1.0) > 5, "x is not y"


def test_each_object_has_the_mean_of_its_own_points() -> None:
    generator = torch.Generator().manual_seed(2)
    logits, points = torch.randn(2, 8, 8, generator=generator), torch.rand(2, 3, 2, generator=generator)
    inside, known = torch.tensor([[1.0, 0, 1], [0, 0, 1]]), torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    at = F.grid_sample(logits[:, None], (2 * points - 1)[:, None], align_corners=False)[:, 0, 0]
    each = F.softplus(at) - inside * at
    wanted = (each[0].mean() + each[1, 0]) / 7
    assert annotated_loss(logits, points, inside, known, 7.0).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert annotated_loss(logits, points, inside, torch.zeros(2, 3), 7.0) == 0


def weak(**changes: Any) -> WeakTargets:
    """Of three RoIs: a mask, a box alone, points."""
    generator = torch.Generator().manual_seed(4)
    return replace(
        WeakTargets(
            masked=torch.tensor([0]),
            boxed=torch.tensor([1, 2]),
            guess=torch.rand(2, 6, 6, generator=generator),
            alike=torch.rand(2, 4, 6, 6, generator=generator) > 0.5,
            pointed=torch.tensor([2]),
            points=torch.rand(1, 3, 2, generator=generator),
            inside=torch.tensor([[1.0, 0, 1]]),
            known=torch.ones(1, 3),
        ),
        **changes,
    )


def test_each_roi_is_trained_by_what_is_known_of_it() -> None:
    output, batch = case()
    config = LossConfig(
        supervision="dense", guess=6.0, projection=2.0, pairwise=3.0, annotated=4.0, pairwise_warmup=0.5
    )
    known = weak()
    losses = objective(output, replace(batch, weak=known), config, count=3.0, progress=0.125)
    alone = objective(output.take(known.masked), batch.with_masks(known.masked), config, count=3.0)
    for name in ("bce", "dice", "scoring"):
        torch.testing.assert_close(losses[name], alone[name])
    boxed, boxes = output.mask_logits[1:], batch.targets[1:]
    assert known.alike is not None
    torch.testing.assert_close(losses["projection"], 2 * projection_loss(boxed, boxes, 3.0))
    torch.testing.assert_close(losses["pairwise"], 3 * 0.25 * pairwise_loss(boxed, known.alike, 3.0))
    likely = output.mask_logits[1:].flatten(1), known.guess.flatten(1)
    torch.testing.assert_close(losses["guess"], 6 * (bce_loss(*likely, 3.0) + dice_loss(*likely, 3.0)))
    wanted = 4 * annotated_loss(output.mask_logits[2:], known.points, known.inside, known.known, 3.0)
    torch.testing.assert_close(losses["annotated"], wanted)
    without = objective(output, replace(batch, weak=weak(alike=None)), config, count=3.0)
    assert "pairwise" not in without


def test_where_all_have_masks_the_losses_are_those_of_masks() -> None:
    output, batch = case()
    none = torch.zeros(0, dtype=torch.int64)
    known = weak(
        masked=torch.arange(3),
        boxed=none,
        guess=torch.zeros(0, 6, 6),
        alike=torch.zeros(0, 4, 6, 6, dtype=torch.bool),
        pointed=none,
        points=torch.zeros(0, 3, 2),
        inside=torch.zeros(0, 3),
        known=torch.zeros(0, 3),
    )
    plain = objective(output, batch, LossConfig(supervision="dense"), count=3.0)
    losses = objective(output, replace(batch, weak=known), LossConfig(supervision="dense"), count=3.0)
    assert all(torch.equal(losses[name], value) for name, value in plain.items())
    assert all(losses[name] == 0 for name in losses.keys() - plain.keys())
