"""Feature maps as a cache stores them: small until the device that computes with them makes them floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozen_cache.cache.close_up import CloseUp
from frozen_cache.cache.from_image import FromImage, MadeMaps
from frozen_cache.cache.nibbles import halves, parted, unpacked
from frozen_cache.cache.quantise import dequantised
from frozen_cache.cache.view import CachedView


@dataclass(frozen=True)
class StoredMap:
    """One map of one view; or of several, channels of one after those of the other."""

    values: Tensor
    """(C, H, W) float16 or float32; int8 where there are scales. Of packed maps (C * H * W / 2,) uint8: the lower four
    bits of each pair of integers, as `cache.nibbles` has them."""
    scales: Tensor | None = None
    """(C,) float32, what a step of each channel is worth."""
    shifts: Tensor | None = None
    """(C,) float32, added to each channel; of coded maps."""
    upper: Tensor | None = field(default=None, kw_only=True)
    """(C * H * W / 2,) uint8, the upper four bits of packed maps; None where they are all zeros."""
    size: tuple[int, int] | None = field(default=None, kw_only=True)
    """(H, W) of packed maps."""

    @property
    def shape(self) -> torch.Size:
        """(C, H, W)."""
        if self.size is None or self.scales is None:
            return self.values.shape
        return torch.Size((len(self.scales), *self.size))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(part.nbytes for part in self.parts.values())

    @property
    def parts(self) -> dict[str, Tensor]:
        """All that it holds."""
        named = {"values": self.values, "scales": self.scales, "shifts": self.shifts, "upper": self.upper}
        return {name: part for name, part in named.items() if part is not None}

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> StoredMap:
        """The same on a device, still small."""
        return self._each(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> StoredMap:
        """In memory from which a GPU copies while the program goes on."""
        return self._each(Tensor.pin_memory)

    def unpacked(self) -> Tensor:
        """(C, H, W), what is stored before it becomes floats: a number to each value; made where the map is."""
        return self.values if self.size is None else parted(self.values, self.upper).view(self.shape)

    def decoded(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(C, H, W) floats, made on the device where the map is."""
        values = self.unpacked()
        return (values if self.scales is None else dequantised(values, self.scales, self.shifts)).to(dtype)

    def _each(self, change: Callable[[Tensor], Tensor]) -> StoredMap:
        changed: dict[str, Any] = {name: change(part) for name, part in self.parts.items()}
        return replace(self, **changed)


def maps_of(
    stored: np.ndarray, shapes: Sequence[tuple[int, int, int]], *, tables: Sequence[np.ndarray], packed: bool
) -> list[StoredMap]:
    """The maps of a view that lie one after the other in an array, in its memory, or in half of it where all integers
    are packed and small.

    Args:
        stored: (n,) as the array has them.
        shapes: (C, H, W) of each.
        tables: the scales, and shifts, of the channels of all of them, float32, which they keep; none of floats.
        packed: whether integers lie two to a byte.
    """
    if packed and paired(shapes):
        lower, upper = halves(stored)
        if _any(upper):
            return packed_maps(lower, upper, shapes, tables=tables)
        return packed_maps(lower.copy(), None, shapes, tables=tables)  # lets go of the zeros
    flat = _cut(unpacked(stored) if packed else stored, [math.prod(shape) for shape in shapes])
    return [
        StoredMap(torch.from_numpy(part.reshape(shape)), *each)
        for part, shape, each in zip(flat, shapes, _numbers(shapes, tables), strict=True)
    ]


def paired(shapes: Sequence[tuple[int, int, int]]) -> bool:
    """Whether no pair of integers belongs to two maps."""
    return not any(math.prod(shape) % 2 for shape in shapes)


def packed_maps(
    lower: np.ndarray,
    upper: np.ndarray | None,
    shapes: Sequence[tuple[int, int, int]],
    *,
    tables: Sequence[np.ndarray],
) -> list[StoredMap]:
    """The maps of `maps_of` from the halves of what is stored, in their memory.

    Args:
        lower, upper: (n // 2,) uint8 each, as `nibbles.halves` gives them; no upper one where it is all zeros.
        shapes: of maps that are `paired`.
        tables: as there.
    """
    pairs = [math.prod(shape) // 2 for shape in shapes]
    uppers: list[Tensor | None] = [None] * len(shapes)
    if upper is not None:
        uppers = [torch.from_numpy(part) if _any(part) else None for part in _cut(upper, pairs)]
    return [
        StoredMap(torch.from_numpy(low), *each, upper=high, size=(height, width))
        for low, high, each, (_, height, width) in zip(
            _cut(lower, pairs), uppers, _numbers(shapes, tables), shapes, strict=True
        )
    ]


def _numbers(shapes: Sequence[tuple[int, int, int]], tables: Sequence[np.ndarray]) -> list[tuple[Tensor, ...]]:
    """Scales, and shifts, of each map."""
    if not tables:
        return [()] * len(shapes)
    cut = [_cut(table, [shape[0] for shape in shapes]) for table in tables]
    return [tuple(map(torch.from_numpy, each)) for each in zip(*cut, strict=True)]


def _cut(values: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """The parts of these sizes that lie one after the other, in the memory of `values`."""
    return [values[stop - size : stop] for stop, size in zip(accumulate(sizes), sizes, strict=True)]


def _any(values: np.ndarray) -> bool:
    """Whether one of them, which are uint8, is not 0; `np.any` takes three times as long."""
    return bool(values.max(initial=0))


@dataclass(frozen=True)
class StoredView:
    """One view of one image, its maps as they are stored."""

    rows: CachedView
    """All but the maps: its `c1` is None, its `encoder` empty."""
    c1: StoredMap | None
    encoder: dict[int, list[StoredMap]]
    """Encoder layer -> levels, finest first; those that are stored."""
    image: FromImage | None = None
    """What the maps that are not stored are made of."""
    close_up: CloseUp | None = None
    """Where it was asked for."""
    pixels: Tensor | None = None
    """(3, H, W) in 0..255, what the detector saw, where it was in the loop."""

    @property
    def nbytes(self) -> int:
        """Bytes of the maps in memory."""
        maps = [each for levels in self.encoder.values() for each in levels]
        return sum(each.nbytes for each in (*maps, self.c1, self.image, self.close_up) if each is not None)

    def to(self, device: torch.device | str) -> StoredView:
        """The view with its maps on a device, still small; its rows stay where they are."""
        return replace(
            self,
            c1=None if self.c1 is None else self.c1.to(device),
            encoder={layer: [level.to(device) for level in levels] for layer, levels in self.encoder.items()},
            image=None if self.image is None else self.image.to(device),
            close_up=None if self.close_up is None else self.close_up.to(device),
        )

    def decoded(self, dtype: torch.dtype = torch.float32) -> CachedView:
        """The view with all its maps as floats."""
        made = MadeMaps() if self.image is None else self.image.maps(dtype).of(0)
        return replace(
            self.rows,
            c1=made.c1 if self.c1 is None else self.c1.decoded(dtype),
            encoder={
                layer: made.among([level.decoded(dtype) for level in levels]) for layer, levels in self.encoder.items()
            },
            close_up=self.close_up,
        )
