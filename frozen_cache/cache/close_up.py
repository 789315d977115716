"""A view's own pixels, of which boxes can be looked at from nearby: what a head with `head.zoom` reads besides maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from frozen_cache.detectors.lazy_stem import LazyStem


@dataclass(frozen=True)
class CloseUp:
    """The pixels of one view at the resolution of its image, and the stem that makes maps of crops."""

    pixels: Tensor
    """(3, h, w) uint8: the view's crop of the original image, mirrored as the view is, never resized."""
    stem: LazyStem

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.pixels.nbytes

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> CloseUp:
        """The same on a device."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> CloseUp:
        """In memory from which a GPU copies while the program goes on."""
        return replace(self, pixels=self.pixels.pin_memory())


def zoomed_maps(views: Sequence[CloseUp], boxes: Sequence[Tensor], *, side: int) -> Tensor:
    """Maps of crops of (n, 4) boxes, cxcywh in 0..1 of each view, as `LazyStem.zoomed` makes them: (N, C, h, w)."""
    return views[0].stem.zoomed([view.pixels for view in views], boxes, side=side)
