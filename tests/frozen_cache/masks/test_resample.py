"""Masks sampled on other cells: bilinear where they are, 0 where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional as F

from frozen_cache.masks.resample import cell_centres, resampled

BOXES = torch.tensor([[0.5, 0.25, 0.5, 0.25], [0.25, 0.75, 0.125, 0.5]])


def masks(side: int) -> torch.Tensor:
    return torch.rand(2, side, side, generator=torch.Generator().manual_seed(side))


@pytest.mark.parametrize(("side", "wanted"), [(6, 13), (12, 12), (12, 5)])
def test_on_their_own_boxes_masks_are_resized(side, wanted):
    found = resampled(masks(side), BOXES, onto_cxcywh=BOXES, side=wanted)
    expected = F.interpolate(masks(side)[:, None], size=(wanted, wanted), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found, expected)


def test_on_other_boxes_they_are_what_scipy_finds_there_and_nothing_beyond_their_own():
    onto = torch.tensor([[0.5, 0.25, 0.75, 0.5], [0.3, 0.7, 0.125, 0.25]])
    found = resampled(masks(8), BOXES, onto_cxcywh=onto, side=16).numpy()
    for mask, box, other, values in zip(masks(8).numpy(), BOXES.tolist(), onto.tolist(), found, strict=True):
        steps = (np.arange(16) + 0.5) / 16 - 0.5
        x, y = np.meshgrid(other[0] + steps * other[2], other[1] + steps * other[3])
        across, down = (x - box[0]) / box[2] + 0.5, (y - box[1]) / box[3] + 0.5
        inside = (np.abs(across - 0.5) <= 0.5) & (np.abs(down - 0.5) <= 0.5)
        expected = map_coordinates(mask, [down * 8 - 0.5, across * 8 - 0.5], order=1, mode="nearest") * inside
        assert 0 < inside.mean() < 1
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_no_masks_stay_none():
    assert resampled(torch.zeros(0, 4, 4), BOXES[:0], onto_cxcywh=BOXES[:0], side=9).shape == (0, 9, 9)


def test_cells_lie_side_by_side_in_their_box():
    centres = cell_centres(BOXES, 2)
    assert centres[0].tolist() == [[[0.375, 0.1875], [0.625, 0.1875]], [[0.375, 0.3125], [0.625, 0.3125]]]
