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
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

STEPS = 127
TINY = torch.finfo(torch.float32).tiny
DEFAULT_STEP = 1.0
"""S of coded maps, in standard deviations; docs/decisions/004-coded-maps.md."""
_BLOCK = 1 << 17
"""Values that the CPU codes at once: what is made of them on the way never leaves its cache."""
_Code = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""(R, N) float32 rows, the (R, N) int8 that it fills, (R, N) float32 to work in -> numbers for each row."""


@torch.no_grad()
def quantised(a_map: Tensor) -> tuple[Tensor, Tensor]:
    """(C, H, W) finite floats to (C, H, W) int8 and (C,) float32 scales: value = int8 * scale, off by half a scale."""
    integers, (scales,) = _by_blocks(a_map, _quantised)
    return integers, scales


@torch.no_grad()
def coded(a_map: Tensor, *, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """(C, H, W) finite floats to (C, H, W) int8, (C,) float32 scales and (C,) float32 shifts: value = int8 * scale +
    shift.

    Values that are not finite leave their channel a scale or a shift that is not.

    Args:
        step: S, in standard deviations.
    """
    integers, (scales, shifts) = _by_blocks(a_map, partial(_coded, step=step))
    return integers, scales, shifts


def dequantised(a_map: Tensor, scales: Tensor, shifts: Tensor | None = None) -> Tensor:
    """(C, H, W) int8, (C,) float32 scales and, of coded maps, (C,) float32 shifts to (C, H, W) float32."""
    values = a_map.float() * scales[:, None, None]
    return values if shifts is None else values + shifts[:, None, None]


def coded_bits(step: float, *, packed: bool) -> float:
    """Bits a value of coded maps, before any is measured: the entropy of a channel of normal distribution, the most
    that any of its variance has, and what zstd leaves of it: a tenth of a bit of integers that lie two to a byte
    (`cache.nibbles`), else a quarter. Channels with heavier tails take less."""
    normal = 0.5 * math.log2(2 * math.pi * math.e * (1 / step**2 + 1 / 6))
    return min(8.0, normal + (0.1 if packed else 0.25))


def _by_blocks(a_map: Tensor, code: _Code) -> tuple[Tensor, list[Tensor]]:
    """Code a map by blocks of channels, on the CPU such that stay in its cache: (C, H, W) int8, and what `code` returns
    of all channels."""
    rows = a_map.flatten(1)
    integers = torch.empty(rows.shape, dtype=torch.int8, device=rows.device)
    # Never a single row where there are more: threads would share its sum, so that it depended on their number.
    block = max(2, _BLOCK // max(1, rows.shape[1])) if rows.device.type == "cpu" else len(rows)
    count = max(1, len(rows) // max(1, block))
    work = torch.empty((-(-len(rows) // count), rows.shape[1]), device=rows.device)
    parts = zip(rows.tensor_split(count), integers.tensor_split(count), strict=True)
    numbers = [code(values.float(), into, work[: len(values)]) for values, into in parts]
    return integers.view(a_map.shape), [torch.cat(each) for each in zip(*numbers, strict=True)]


def _quantised(values: Tensor, into: Tensor, work: Tensor) -> tuple[Tensor]:
    scales = torch.maximum(values.amax(1), -values.amin(1)) / STEPS
    into.copy_(torch.div(values, _divisor(scales), out=work).round_())
    return (scales,)


def _coded(values: Tensor, into: Tensor, work: Tensor, *, step: float) -> tuple[Tensor, Tensor]:
    mean = values.mean(1)
    largest = torch.maximum(values.amax(1) - mean, mean - values.amin(1))
    away = torch.sub(values, mean[:, None], out=work)
    deviation = largest * away.div_(_divisor(largest)).square_().mean(1).sqrt()  # squares of values could overflow
    scales = torch.maximum(step * deviation, largest / (STEPS - 1))
    base = torch.where(scales > 0, (mean / scales.clamp(min=TINY)).round() * scales, mean)
    rounded = torch.sub(values, base[:, None], out=work).div_(_divisor(scales)).round_()
    into.copy_(rounded)
    error = torch.sub(values, rounded.mul_(scales[:, None]), out=work)
    return scales, error.mean(1)


def _divisor(scales: Tensor) -> Tensor:
    return scales.clamp(min=TINY)[:, None]
