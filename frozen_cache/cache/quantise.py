"""Maps as small integers: each channel of each view has a scale of its own, what one step is worth.

`int8`: value = int8 * scale, the scale being the channel's largest magnitude over 127.

`coded`: value = int8 * scale + shift, the scale being S standard deviations of the channel, so that nearly all integers
are 0, 1 or -1 and an entropy coder makes them small. It is never less than what 127 steps to either side need: nothing
is clipped, and a constant channel is exact. Values are rounded to whole multiples of the scale, so that 0 stays where
it is, counted from the multiple next to the channel's mean. The shift brings that multiple back, and the mean error of
the rounding, which is no small thing where steps are coarse and the values lie to one side (docs/decisions/004).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STEPS = 127
TINY = torch.finfo(torch.float32).tiny
DEFAULT_STEP = 1.0
"""S of coded maps, in standard deviations; docs/decisions/004-coded-maps.md."""


def quantised(a_map: Tensor) -> tuple[Tensor, Tensor]:
    """(C, H, W) finite floats to (C, H, W) int8 and (C,) float32 scales: value = int8 * scale, off by half a scale."""
    values = a_map.float()
    scales = values.abs().amax((1, 2)) / STEPS
    return _rounded(values, scales), scales


def coded(a_map: Tensor, *, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """(C, H, W) finite floats to (C, H, W) int8, (C,) float32 scales and (C,) float32 shifts: value = int8 * scale +
    shift.

    Args:
        step: S, in standard deviations.
    """
    values = a_map.float()
    mean = values.mean((1, 2))
    away = (values - mean[:, None, None]).abs()
    largest = away.amax((1, 2))
    deviation = largest * (away / _divisor(largest)).square().mean((1, 2)).sqrt()  # squares of values could overflow
    scales = torch.maximum(step * deviation, largest / (STEPS - 1))
    base = (mean / scales.clamp(min=TINY)).round() * scales
    integers = _rounded(values - base[:, None, None], scales)
    return integers, scales, (values - dequantised(integers, scales)).mean((1, 2))


def dequantised(a_map: Tensor, scales: Tensor, shifts: Tensor | None = None) -> Tensor:
    """(C, H, W) int8, (C,) float32 scales and, of coded maps, (C,) float32 shifts to (C, H, W) float32."""
    values = a_map.float() * scales[:, None, None]
    return values if shifts is None else values + shifts[:, None, None]


def _rounded(values: Tensor, scales: Tensor) -> Tensor:
    return (values / _divisor(scales)).round().clamp(-STEPS, STEPS).to(torch.int8)


def coded_bits(step: float, *, packed: bool) -> float:
    """Bits a value of coded maps, before any is measured: the entropy of a channel of normal distribution, the most
    that any of its variance has, and what zstd leaves of it: a tenth of a bit of integers that lie two to a byte
    (`cache.nibbles`), else a quarter. Channels with heavier tails take less."""
    normal = 0.5 * math.log2(2 * math.pi * math.e * (1 / step**2 + 1 / 6))
    return min(8.0, normal + (0.1 if packed else 0.25))


def _divisor(scales: Tensor) -> Tensor:
    return scales.clamp(min=TINY)[:, None, None]
