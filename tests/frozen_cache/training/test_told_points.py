"""What points tell of the places around them, against the textbook's equations in numpy."""

from __future__ import annotations

import numpy as np
import torch

from frozen_cache.training import told_points
from frozen_cache.training.told_points import Places, Points, told

BOXES = torch.tensor([[0.1, 0.2, 0.9, 0.6], [0.0, 0.0, 1.0, 1.0]])


def scene(cells: int = 5, points: int = 3) -> tuple[Places, Places, Points]:
    """Two objects; the second one's last point does not count."""
    generator = torch.Generator().manual_seed(0)

    def places(count: int) -> Places:
        at, odds = torch.rand(2, count, 2, generator=generator), torch.randn(2, count, generator=generator)
        return Places(at, odds, 20 * torch.rand(2, count, 3, generator=generator))

    spots = places(points)
    known = torch.ones(2, points)
    known[1, -1] = 0
    return places(cells), spots, Points(spots.at, (torch.rand(2, points, generator=generator) > 0.5).float(), known)


def covariance(one: Places, other: Places, number: int, *, coloured: bool = True) -> np.ndarray:
    """(C, P) of one object, pair by pair."""
    sides = (BOXES[number, 2:] - BOXES[number, :2]).numpy()
    found = np.zeros((one.at.shape[1], other.at.shape[1]))
    for row, column in np.ndindex(*found.shape):
        way = (one.at[number, row].numpy() - other.at[number, column].numpy()) / sides / told_points.REACH
        near = np.exp(-(way @ way) / 2)
        unlike = (one.colours[number, row] - other.colours[number, column]).numpy() / told_points.LIKENESS
        alike = np.exp(-(unlike @ unlike) / 2) if coloured else 1.0
        share = told_points.ANY_COLOUR
        found[row, column] = told_points.VARIANCE * near * (share + (1 - share) * alike)
    return found


def test_odds_are_those_of_a_gaussian_process_that_saw_the_points() -> None:
    cells, spots, points = scene()
    cells.odds[0, 0] = -torch.inf
    found = told(cells, spots, points, boxes=BOXES)
    for number, count in ((0, 3), (1, 2)):
        news = (
            told_points.ODDS * np.where(points.inside[number, :count] > 0, 1, -1) - spots.odds[number, :count].numpy()
        )
        among = covariance(spots, spots, number)[:count, :count] + told_points.NOISE * np.eye(count)
        change = covariance(cells, spots, number)[:, :count] @ np.linalg.inv(among) @ news
        np.testing.assert_allclose(found[number], cells.odds[number].numpy() + change, rtol=1e-4, atol=1e-5)
    plain = [Places(each.at, each.odds, each.colours[..., :0]) for each in (cells, spots)]
    without = told(*plain, points, boxes=BOXES)
    among = covariance(spots, spots, 0, coloured=False) + told_points.NOISE * np.eye(3)
    news = told_points.ODDS * np.where(points.inside[0] > 0, 1, -1) - spots.odds[0].numpy()
    change = covariance(cells, spots, 0, coloured=False) @ np.linalg.inv(among) @ news
    np.testing.assert_allclose(without[0], cells.odds[0].numpy() + change, rtol=1e-4, atol=1e-5)


def test_an_object_without_points_keeps_its_odds_and_points_outside_of_the_box_are_finite() -> None:
    cells, spots, points = scene()
    none = Points(points.at, points.inside, torch.zeros_like(points.known))
    assert torch.equal(told(cells, spots, none, boxes=BOXES), cells.odds)
    empty = Places(spots.at[:, :0], spots.odds[:, :0], spots.colours[:, :0])
    assert torch.equal(told(cells, empty, Points.none(2), boxes=BOXES), cells.odds)
    spots.odds[:] = -torch.inf
    assert told(cells, spots, points, boxes=BOXES).isfinite().all()


def test_the_place_of_a_point_goes_to_its_side() -> None:
    cells, spots, points = scene()
    cells = Places(spots.at[:, :1], torch.zeros(2, 1), spots.colours[:, :1])
    spots = Places(spots.at[:, :1], torch.zeros(2, 1), spots.colours[:, :1])
    for inside in (0.0, 1.0):
        point = Points(points.at[:, :1], torch.full((2, 1), inside), torch.ones(2, 1))
        wanted = (2 * inside - 1) * told_points.ODDS * told_points.VARIANCE / (told_points.VARIANCE + told_points.NOISE)
        torch.testing.assert_close(told(cells, spots, point, boxes=BOXES), torch.full((2, 1), wanted))
