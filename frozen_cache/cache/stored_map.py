"""Feature maps as a cache stores them: small until the device that computes with them makes them floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from frozen_cache.cache.close_up import CloseUp
from frozen_cache.cache.from_image import FromImage, MadeMaps
from frozen_cache.cache.quantise import dequantised
from frozen_cache.cache.view import CachedView


@dataclass(frozen=True)
class StoredMap:
    """One map of one view."""

    values: Tensor
    """(C, H, W) float16 or float32; int8 where there are scales."""
    scales: Tensor | None = None
    """(C,) float32, what a step of each channel is worth."""
    shifts: Tensor | None = None
    """(C,) float32, added to each channel; of coded maps."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(part.nbytes for part in (self.values, self.scales, self.shifts) if part is not None)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> StoredMap:
        """The same on a device, still small."""
        return self._each(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> StoredMap:
        """In memory from which a GPU copies while the program goes on."""
        return self._each(Tensor.pin_memory)

    def decoded(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(C, H, W) floats, made on the device where the map is."""
        values = self.values if self.scales is None else dequantised(self.values, self.scales, self.shifts)
        return values.to(dtype)

    def _each(self, change: Callable[[Tensor], Tensor]) -> StoredMap:
        parts = (self.scales, self.shifts)
        return StoredMap(change(self.values), *(None if part is None else change(part) for part in parts))


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
