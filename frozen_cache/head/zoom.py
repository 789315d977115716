"""Zoom: what the detector's stem makes of a crop of the box, from the original pixels, joins the RoI's features."""

from __future__ import annotations

from torch import Tensor, nn

from frozen_cache.head.feature_map import Projection, upsample


class ZoomNeck(nn.Module):
    """C1 of crops, and the added maps, projected and put on the RoI's cells: a 1x1 convolution and GroupNorm, (C + 3) D
    parameters.

    A crop covers what its RoI covers, so cells lie upon each other.

    Args:
        channels: C of all these maps.
        dim: width D of the RoI features.
    """

    def __init__(self, *, channels: int, dim: int) -> None:
        super().__init__()
        self.projection = Projection(channels=channels, dim=dim)

    def forward(self, rois: Tensor, zoomed: Tensor) -> Tensor:
        """RoI features (N, D, R, R) and maps of the crops (N, C, h, w) to (N, D, R, R)."""
        return rois + upsample(self.projection(zoomed), (rois.shape[2], rois.shape[3]))
