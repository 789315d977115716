"""Window attention against torchvision's, where both mean the same."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.swin_transformer import ShiftedWindowAttention

from frozen_cache.detectors.official.swin import WindowAttention


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", [(14, 21), (15, 9), (30, 38)])
def test_equals_torchvision_on_maps_larger_than_a_window(shift: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = ShiftedWindowAttention(16, [7, 7], [shift, shift], 2)
    torch.nn.init.normal_(theirs.relative_position_bias_table)
    ours = WindowAttention(16, [7, 7], [shift, shift], 2)
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if k != "relative_position_index"})
    x = torch.randn(2, *size, 16)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_keeps_the_shift_on_maps_smaller_than_a_window() -> None:
    torch.manual_seed(0)
    plain, shifted = (WindowAttention(16, [7, 7], [shift, shift], 2) for shift in (0, 3))
    shifted.load_state_dict(plain.state_dict())
    x = torch.randn(1, 5, 6, 16)
    assert not torch.allclose(plain(x), shifted(x), atol=1e-3)
