"""int8 feature maps: each channel of each view has a scale of its own, its largest magnitude over 127."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 127


def quantised(a_map: Tensor) -> tuple[Tensor, Tensor]:
    """(C, H, W) finite floats to (C, H, W) int8 and (C,) float32 scales: value = int8 * scale, off by half a scale."""
    values = a_map.float()
    scales = values.abs().amax((1, 2)) / STEPS
    steps = values / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None, None]
    return steps.round().clamp(-STEPS, STEPS).to(torch.int8), scales


def dequantised(a_map: Tensor, scales: Tensor) -> Tensor:
    """(C, H, W) int8 and (C,) float32 scales to (C, H, W) float32."""
    return a_map.float() * scales[:, None, None]
