"""Maps that a cache does not store: made again from the view's image by the detector's stem, where they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.stem_files import read_stem
from frozen_cache.detectors.lazy_stem import LazyStem
from frozen_cache.remote import CachePath


@dataclass(frozen=True)
class MadeMaps:
    """The maps of views that their images give; none where all are stored."""

    c1: Tensor | None = None
    """(B, C1, H, W)."""
    levels: dict[int, Tensor] = field(default_factory=dict)
    """Index among the detector's encoder levels -> (B, C, h, w)."""

    def of(self, view: int) -> MadeMaps:
        """Those of one view, without the first axis."""
        c1 = None if self.c1 is None else self.c1[view]
        return MadeMaps(c1=c1, levels={index: level[view] for index, level in self.levels.items()})

    def among(self, stored: Sequence[Tensor]) -> list[Tensor]:
        """All levels of an encoder layer, finest first: those that are stored, and these in their places."""
        levels = list(stored)
        for index in sorted(self.levels):
            levels.insert(index, self.levels[index])
        return levels


class CacheStem(LazyStem):
    """The stem of a cache."""

    def __init__(self, cache: CachePath, attributes: CacheAttributes) -> None:
        assert attributes.stem is not None
        super().__init__(
            partial(read_stem, cache, attributes.stem),
            spec=attributes.detector,
            autocast=attributes.autocast,
            owner=f"cache {cache}",
        )


@dataclass(frozen=True)
class FromImage:
    """The pixels of B views of one size, and the stem that makes maps of them. None is ever padded."""

    pixels: Mapping[int, Tensor]
    """Scale s -> (B, 3, s H, s W) in 0..255, as the input rule resizes them."""
    stem: CacheStem
    c1: bool = True
    """Whether C1 is wanted."""

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """Of the pixels."""
        return tuple(self.pixels[scale].shape for scale in sorted(self.pixels))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(each.nbytes for each in self.pixels.values())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> FromImage:
        """The same on a device."""
        moved = {scale: each.to(device, non_blocking=non_blocking) for scale, each in self.pixels.items()}
        return replace(self, pixels=moved)

    def maps(self, dtype: torch.dtype = torch.float32) -> MadeMaps:
        """The maps, made on the device where the pixels are."""
        c1, levels = self.stem(self.pixels)
        return MadeMaps(
            c1=c1.to(dtype) if c1 is not None and self.c1 else None,
            levels={index: level.to(dtype) for index, level in levels.items()},
        )


def joined_images(images: Sequence[FromImage], *, pinned: bool) -> FromImage | None:
    """Views of one size, one after the other; None of none.

    Args:
        pinned: in memory that a GPU copies from while the program goes on.
    """
    if not images:
        return None
    pixels = {scale: torch.cat([image.pixels[scale] for image in images]) for scale in images[0].pixels}
    return replace(images[0], pixels={scale: each.pin_memory() if pinned else each for scale, each in pixels.items()})
