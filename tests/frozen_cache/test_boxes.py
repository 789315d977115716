"""Box forms."""

from __future__ import annotations

import torch

from frozen_cache.boxes import enlarged, to_pixels, to_unit


def test_an_enlarged_box_keeps_its_centre():
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    torch.testing.assert_close(enlarged(boxes, 1.5), torch.tensor([[0.5, 0.4, 0.3, 0.15]]))


def test_pixels_and_units_are_inverse():
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    torch.testing.assert_close(to_unit(to_pixels(boxes, (48, 64)), (48, 64)), boxes)
