"""Box forms."""

from __future__ import annotations

import pytest
import torch

from frozen_cache.boxes import enlarged, jittered, to_pixels, to_unit

BOXES = torch.tensor([[0.5, 0.4, 0.2, 0.1], [0.1, 0.9, 0.4, 0.3]])
PIXELS = torch.tensor([[32 - 6.4, 19.2 - 2.4, 32 + 6.4, 19.2 + 2.4], [6.4 - 12.8, 43.2 - 7.2, 6.4 + 12.8, 43.2 + 7.2]])
"""The same in an image of 48 x 64 pixels (height x width)."""


def test_units_become_pixels_of_width_and_height() -> None:
    torch.testing.assert_close(to_pixels(BOXES, (48, 64)), PIXELS)


def test_pixels_become_units_of_width_and_height() -> None:
    torch.testing.assert_close(to_unit(PIXELS, (48, 64)), BOXES)


def test_an_enlarged_box_keeps_its_centre() -> None:
    torch.testing.assert_close(enlarged(BOXES[:1], 1.5), torch.tensor([[0.5, 0.4, 0.3, 0.15]]))


def test_jitter_moves_by_a_share_of_the_size_and_scales_either_way_alike() -> None:
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.1]]).double().expand(20_000, 4)
    found = jittered(boxes, amount=0.25, generator=torch.Generator().manual_seed(0))
    moved = (found[:, :2] - boxes[:, :2]) / boxes[:, 2:]
    factor = (found[:, 2:] / boxes[:, 2:]).log() / torch.tensor(1.25).log()
    for share, most in ((moved, 0.25), (factor, 1.0)):
        # Uniform between -most and most on either axis, and the axes of their own.
        assert (share.amin(0) + most).abs().max() < 0.01 * most and (share.amax(0) - most).abs().max() < 0.01 * most
        assert share.mean(0).abs().max() < 0.02 * most
        assert share.std(0).tolist() == pytest.approx([most / 3**0.5] * 2, rel=0.02)
        assert abs(torch.corrcoef(share.T)[0, 1]) < 0.03
