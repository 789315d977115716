"""What a mask head takes: the cached features of each image, and the RoIs to segment in them."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from frozen_cache.detectors.output import FeatureSpec


class HeadInputs(BaseModel):
    """The shapes that a cache offers; with `HeadConfig` they fix the head's size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_dim: int
    c1: FeatureSpec | None
    levels: tuple[FeatureSpec, ...]
    """The encoder levels of one kept layer, finest first."""
    num_classes: int
    """Categories of the data set: outputs of the mask scoring head."""


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


@dataclass(frozen=True)
class HeadOutput:
    """For each RoI, in the order given."""

    mask_logits: Tensor
    """(N, R, R), before the sigmoid."""
    iou: Tensor | None
    """(N, num_classes) predicted mask IoU, or None without mask scoring."""
