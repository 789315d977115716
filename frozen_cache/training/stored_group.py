"""Maps of several views side by side as they are stored: one copy to the device, and floats only there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from frozen_cache.cache.from_image import FromImage, MadeMaps, joined_images
from frozen_cache.cache.stored_map import StoredMap
from frozen_cache.head.inputs import ImageGroup


@dataclass(frozen=True)
class StoredFeatures:
    """The maps of one view, as they are stored, with the levels of the one encoder layer that the head reads."""

    c1: StoredMap | None
    levels: list[StoredMap]
    size: tuple[int, int]
    """(height, width) of the view in pixels."""
    image: FromImage | None = None
    """What the maps that are not stored are made of."""

    @property
    def shapes(self) -> tuple[torch.Size | None, ...]:
        """Of its maps and pixels; views of equal shapes make a group."""
        pixels = () if self.image is None else self.image.shapes
        return (
            None if self.c1 is None else self.c1.shape,
            *(level.shape for level in self.levels),
            *pixels,
        )


@dataclass(frozen=True)
class StoredGroup:
    """B views of equal shapes; each map holds the channels of all of them, one view after the other."""

    c1: StoredMap | None
    """(B * C1, H, W)."""
    levels: list[StoredMap]
    """(B * C, h, w) each, finest first."""
    sizes: list[tuple[int, int]]
    """(height, width) of each view in pixels."""
    counts: list[int]
    """RoIs of each view."""
    image: FromImage | None = None
    """What the maps that are not stored are made of, for all B views."""

    def to(self, device: torch.device) -> StoredGroup:
        """The same on a device, still small; the copy goes on behind the caller's back where the memory is pinned."""
        c1 = None if self.c1 is None else self.c1.to(device, non_blocking=True)
        levels = [level.to(device, non_blocking=True) for level in self.levels]
        image = None if self.image is None else self.image.to(device, non_blocking=True)
        return StoredGroup(c1=c1, levels=levels, sizes=self.sizes, counts=self.counts, image=image)

    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        maps = [
            part for each in [*self.levels, *([] if self.c1 is None else [self.c1])] for part in each.parts.values()
        ]
        return [*maps, *([] if self.image is None else self.image.pixels.values())]

    def decoded(self) -> ImageGroup:
        """float32 maps, made on the device where they are."""
        made = MadeMaps() if self.image is None else self.image.maps()
        return ImageGroup(
            c1=made.c1 if self.c1 is None else self._split(self.c1),
            levels=made.among([self._split(level) for level in self.levels]),
            sizes=list(self.sizes),
            counts=self.counts,
        )

    def _split(self, stored: StoredMap) -> Tensor:
        return stored.decoded().unflatten(0, (len(self.counts), -1))


def stored_groups(images: list[StoredFeatures], counts: list[int], *, pinned: bool) -> list[StoredGroup]:
    """Neighbours of equal shapes side by side; images without RoIs are left out, as nothing is trained on in them.

    Args:
        counts: RoIs of each image.
        pinned: in memory that a GPU copies from while the program goes on.
    """
    groups = []
    with_rois = [at for at, count in enumerate(counts) if count]
    for _, run in groupby(with_rois, key=lambda at: images[at].shapes):
        members = list(run)
        views = [images[at] for at in members]
        c1 = [view.c1 for view in views if view.c1 is not None]
        groups.append(
            StoredGroup(
                c1=_joined(c1, pinned=pinned) if c1 else None,
                levels=[
                    _joined(list(level), pinned=pinned) for level in zip(*(view.levels for view in views), strict=True)
                ],
                sizes=[view.size for view in views],
                counts=[counts[at] for at in members],
                image=joined_images([view.image for view in views if view.image is not None], pinned=pinned),
            )
        )
    return groups


def _joined(maps: list[StoredMap], *, pinned: bool) -> StoredMap:
    """Maps of equal form, channels of one after those of the other."""
    if len(maps) == 1:
        return maps[0].pin_memory() if pinned else maps[0]
    columns = {name: [each.parts[name] for each in maps] for name in maps[0].parts if name != "upper"}
    if any(each.upper is not None for each in maps):
        columns["upper"] = [torch.zeros_like(each.values) if each.upper is None else each.upper for each in maps]
    joined = {name: _cat(parts, pinned=pinned) for name, parts in columns.items()}
    return StoredMap(**joined, size=maps[0].size)


def _cat(parts: list[Tensor], *, pinned: bool) -> Tensor:
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    return torch.cat(parts, out=torch.empty(shape, dtype=parts[0].dtype, pin_memory=pinned))
