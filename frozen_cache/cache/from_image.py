"""Maps that a cache does not store: made again from the view's image by the detector's stem, where they are needed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.stem_files import read_stem
from frozen_cache.detectors.stem import Stem
from frozen_cache.errors import UserError
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


@dataclass(frozen=True)
class _Built:
    """A stem on a device, with what it normalises by: to bring that over each time would be to wait for the device."""

    stem: Stem
    mean: Tensor
    std: Tensor


class CacheStem:
    """The stem of a cache, built where and when it is first used. Any number of threads may use it."""

    def __init__(self, cache: CachePath, attributes: CacheAttributes) -> None:
        assert attributes.stem is not None
        self._cache, self._attributes, self._record = cache, attributes, attributes.stem
        self._start()

    @torch.no_grad()
    def __call__(self, pixels: Mapping[int, Tensor]) -> tuple[Tensor | None, dict[int, Tensor]]:
        """C1 and the levels, by index, of views of one size, on the device of their pixels.

        It computes as the detector did, in the cache's `autocast`; inside another autocast context, in that.
        """
        device = next(iter(pixels.values())).device
        built, autocast = self._on(device), self._attributes.autocast
        factor = self._attributes.detector.input.rescale_factor
        images = {scale: (each.float() * factor).sub_(built.mean).div_(built.std) for scale, each in pixels.items()}
        context = torch.autocast(device.type, getattr(torch, autocast)) if autocast else nullcontext()
        with context:
            c1, levels = built.stem(images)
        self._check(c1, levels)
        return c1, levels

    def _check(self, c1: Tensor | None, levels: dict[int, Tensor]) -> None:
        spec = self._attributes.detector
        pairs = [(spec.encoder_levels[index], level) for index, level in levels.items()]
        pairs += [(spec.c1, c1)] if spec.c1 is not None and c1 is not None else []
        for feature, found in pairs:
            if found.shape[1] != feature.channels:
                raise UserError(
                    f"cache {self._cache}: its stem gives {found.shape[1]} channels, its detector has "
                    f"{feature.channels} at stride {feature.stride}"
                )

    def _on(self, device: torch.device) -> _Built:
        with self._lock:
            if device not in self._built:
                self._built[device] = self._build(device)
            return self._built[device]

    @torch.inference_mode(False)
    def _build(self, device: torch.device) -> _Built:
        rule = self._attributes.detector.input
        columns = (rule.mean or (0, 0, 0), rule.std or (1, 1, 1))
        mean, std = (torch.tensor(each, dtype=torch.float32, device=device)[:, None, None] for each in columns)
        return _Built(read_stem(self._cache, self._record).to(device), mean, std)

    def _start(self) -> None:
        self._built: dict[torch.device, _Built] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_built", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


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
