"""Gather arithmetic gives what grid_sample and torchvision's RoIAlign give."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from frozen_cache.export.sampling import GatherSampling, grid_sample_by_gather, roi_align_by_gather


def test_grid_sample_by_gather_equals_torch_also_far_outside():
    torch.manual_seed(0)
    maps, grid = torch.randn(3, 5, 7, 11), torch.rand(3, 4, 6, 2) * 3 - 1.5
    expected = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(grid_sample_by_gather(maps, grid), expected, rtol=0, atol=1e-5)


def test_every_grid_sample_within_is_replaced(monkeypatch):
    torch.manual_seed(0)
    maps, grid = torch.randn(1, 2, 4, 4), torch.zeros(1, 1, 1, 2)
    monkeypatch.setattr("frozen_cache.export.sampling.grid_sample_by_gather", lambda *args, **kwargs: "gathered")
    with GatherSampling():
        assert torch.nn.functional.grid_sample(maps, grid, align_corners=False) == "gathered"
    assert isinstance(F.grid_sample(maps, grid, align_corners=False), torch.Tensor)


def test_other_modes_are_refused_not_guessed():
    with pytest.raises(NotImplementedError, match="nearest"):
        grid_sample_by_gather(torch.randn(1, 1, 2, 2), torch.zeros(1, 1, 1, 2), mode="nearest")


@pytest.mark.parametrize("sampling", [1, 2, 3])
def test_roi_align_by_gather_equals_torchvision_also_at_and_over_the_border(sampling):
    torch.manual_seed(0)
    feature = torch.randn(2, 3, 9, 13)
    low = torch.rand(40, 2) * torch.tensor([18.0, 14.0]) - 4
    corners = torch.cat([low, low + torch.rand(40, 2) * 9], dim=1)
    image = torch.randint(0, 2, (40,))
    boxes = torch.cat([image[:, None].float(), corners], dim=1)
    expected = roi_align(feature, boxes, 4, sampling_ratio=sampling, aligned=True)
    found = roi_align_by_gather(feature, image, corners, size=4, sampling=sampling)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
