"""What a mask head takes: the cached features of each image, and the RoIs to segment in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from frozen_cache.detectors.output import FeatureSpec, added_maps


class HeadInputs(BaseModel):
    """The shapes that a cache offers; with `HeadConfig` they fix the head's size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_dim: int
    c1: FeatureSpec | None
    levels: tuple[FeatureSpec, ...]
    """The encoder levels of one kept layer, finest first."""
    num_classes: int
    """Categories of the data set: outputs of the mask scoring head."""

    @property
    def zoom_channels(self) -> int:
        """C of `Rois.zoomed`: of C1 and of the maps that were added from the backbone; 0 without C1."""
        if self.c1 is None:
            return 0
        return self.c1.channels + sum(self.levels[at].channels for at in added_maps(self.levels))


@dataclass(frozen=True)
class ImageFeatures:
    """The maps of one view, unpadded. Images of equal shapes are batched by the head, so none is ever padded."""

    c1: Tensor | None
    """(C1, H, W) at stride 4."""
    levels: list[Tensor]
    """(C, h, w) each, finest first."""
    size: tuple[int, int] | None = None
    """(height, width) of the view in pixels, where it may differ from stride x map size: maps are rounded up or down.
    None takes the view to end where the maps end."""


@dataclass(frozen=True)
class Rois:
    """N boxes to segment, over all images of the batch, in order of `image_index`."""

    image_index: Tensor
    """(N,) int64, ascending."""
    boxes: Tensor
    """(N, 4) cxcywh in 0..1 of the view."""
    queries: Tensor
    """(N, D)."""
    labels: Tensor
    """(N,) int64 category index."""
    zoomed: Tensor | None = None
    """(N, C, h, w) C1 and the added maps of a crop of each of `MaskHead.boxes`, where the head zooms."""


@dataclass(frozen=True)
class ImageGroup:
    """B views whose maps have equal shapes, stacked to run together. Groups follow each other in the order of the RoIs,
    and so do the views in them."""

    c1: Tensor | None
    """(B, C1, H, W) at stride 4."""
    levels: list[Tensor]
    """(B, C, h, w) each, finest first."""
    sizes: list[tuple[int, int] | None]
    """As `ImageFeatures.size`."""
    counts: list[int]
    """RoIs of each view. The host knows them: to ask the device would be to wait for it."""


def grouped(images: Sequence[ImageFeatures], rois: Rois) -> list[ImageGroup]:
    """Like-sized neighbours stacked; images without RoIs are left out."""
    counts = Counter(rois.image_index.tolist())
    runs = groupby((at for at in range(len(images)) if counts[at]), key=lambda at: _shapes(images[at]))
    return [_stacked([images[at] for at in run], [counts[at] for at in run]) for run in (list(run) for _, run in runs)]


def _stacked(images: list[ImageFeatures], counts: list[int]) -> ImageGroup:
    c1 = [image.c1 for image in images if image.c1 is not None]
    return ImageGroup(
        c1=torch.stack(c1) if c1 else None,
        levels=[torch.stack(level) for level in zip(*(image.levels for image in images), strict=True)],
        sizes=[image.size for image in images],
        counts=counts,
    )


def _shapes(image: ImageFeatures) -> tuple[object, ...]:
    return (None if image.c1 is None else image.c1.shape, *(level.shape for level in image.levels))


@dataclass(frozen=True)
class BoundaryPoints:
    """Where the boundary stage is trained, and what it says there."""

    points: Tensor
    """(N, P, 2) x, y in 0..1 of the RoIs."""
    logits: Tensor
    """(N, P), before the sigmoid."""


@dataclass(frozen=True)
class HeadOutput:
    """For each RoI, in the order given."""

    mask_logits: Tensor
    """(N, R, R), before the sigmoid; with a boundary stage, outside of training, (N, refine, refine)."""
    iou: Tensor | None
    """(N, num_classes) predicted mask IoU, or None without mask scoring."""
    boundary: BoundaryPoints | None = None
    """In training, with a boundary stage."""

    def take(self, rows: Tensor) -> HeadOutput:
        """Of some of the RoIs, (M,) int64."""
        boundary = self.boundary
        if boundary is not None:
            boundary = BoundaryPoints(boundary.points.index_select(0, rows), boundary.logits.index_select(0, rows))
        iou = None if self.iou is None else self.iou.index_select(0, rows)
        return HeadOutput(mask_logits=self.mask_logits.index_select(0, rows), iou=iou, boundary=boundary)
