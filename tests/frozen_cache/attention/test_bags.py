"""Sampling by bags: the numbers of `grid_sample`, in parts, far outside, and with what is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from frozen_cache.attention import bags
from frozen_cache.attention.backends import SWITCH
from frozen_cache.attention.bags import bag_sampling
from frozen_cache.attention.ms_deform_attn import deformable_sampling

SHAPES = [(7, 9), (1, 1), (4, 5)]


def given(*, batch: int = 3, count: int = 11, points: int = 3) -> list[Tensor]:
    """Value, locations (some outside the maps), weights, in float64."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(batch, 7 * 9 + 1 + 4 * 5, 4, 8), (batch, count, 4, 3, points, 2), (batch, count, 4, 3, points)]
    value, locations, weights = (torch.rand(*size, generator=generator, dtype=torch.float64) for size in sizes)
    return [value - 0.5, locations * 1.6 - 0.3, weights]


@pytest.mark.parametrize("most", [1, 200, 10_000])
def test_it_gives_what_grid_sample_gives_gradients_included(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bags, "MOST_TOKENS", most)
    found = []
    for name in ("embedding_bag", "grid_sample"):
        monkeypatch.setenv(SWITCH, name)
        tensors = [each.requires_grad_() for each in given()]
        out = deformable_sampling(tensors[0], SHAPES, tensors[1], tensors[2])
        out.square().sum().backward()
        found.append([out.detach(), *(each.grad for each in tensors)])
    torch.testing.assert_close(found[0], found[1])


def test_far_outside_is_zero_and_moves_nothing() -> None:
    value, locations, weights = given()
    locations = (torch.sign(locations - 0.5) * 1e30).requires_grad_()
    out = bag_sampling(value, SHAPES, locations, weights)
    assert not out.any()
    out.sum().backward()
    assert locations.grad is not None and not locations.grad.any()


def test_what_is_not_finite_stays_so_and_is_no_crash() -> None:
    value, locations, weights = given()
    locations[0, 0] = torch.nan
    out = bag_sampling(value, SHAPES, locations, weights)
    assert out[0, 0].isnan().all() and out[0, 1:].isfinite().all() and out[1:].isfinite().all()


def test_no_queries_are_no_error() -> None:
    value, locations, weights = (each.requires_grad_() for each in given(count=0))
    out = bag_sampling(value, SHAPES, locations, weights)
    assert out.shape == (3, 0, 32)
    out.sum().backward()
    assert value.grad is not None and not value.grad.any()
