"""RoIAlign (Eq. 3) with detectron2's semantics, from boxes in 0..1 of a view."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, roi_align

from frozen_cache.head.roi_bags import bag_align
from frozen_cache.precision import wide


class RoiAlign(nn.Module):
    """Cuts R x R features out of F for each box.

    Aligned as in detectron2 (`aligned=True`: pixel centres at half-integers). `sampling` = 2 takes 2 x 2 samples a
    bin; 0, detectron2's default for mask heads, takes as many as the bin has pixels.

    Args:
        size: R.
        sampling: samples per bin and axis, 0 for adaptive.
        stride: of F in pixels.
    """

    def __init__(self, *, size: int, sampling: int, stride: int) -> None:
        super().__init__()
        self.size, self.sampling, self.stride = size, sampling, stride

    def forward(self, feature: Tensor, image: Tensor, boxes: Tensor, sizes: list[tuple[int, int] | None]) -> Tensor:
        """Cut RoIs; in float32 even under autocast, where half precision would misplace the samples.

        Args:
            feature: (B, D, H, W).
            image: (N,) int64 in 0..B-1.
            boxes: (N, 4) cxcywh in 0..1 of the view.
            sizes: (height, width) of each view in pixels; None takes it to end where F ends.

        Returns:
            (N, D, R, R).
        """
        feature = wide(feature)
        extents = [length for size in sizes for length in self._extent(feature, size)]
        scale = torch.cat([feature.new_full((1,), length) for length in extents]).view(-1, 2)
        corners = box_convert(boxes.to(feature.dtype), "cxcywh", "xyxy")
        corners = corners * scale.repeat(1, 2)[image]
        rois = torch.cat([image[:, None].to(feature.dtype), corners], dim=1)
        if self.by_bags(feature):
            return bag_align(feature, rois, size=self.size, sampling=self.sampling)
        cut = roi_align(feature, rois, self.size, sampling_ratio=self.sampling, aligned=True)
        # The order in which convolutions, and attention over the cells, read them without a copy.
        return cut.contiguous(memory_format=torch.channels_last)

    def by_bags(self, feature: Tensor) -> bool:
        """Whether F is read cell by cell, best in the order `channels_last`: in a CPU's inference, where all bins have
        equally many samples."""
        busy = torch.is_grad_enabled() or torch.compiler.is_exporting()
        return self.sampling > 0 and feature.device.type == "cpu" and not busy

    def in_map(self, feature: Tensor, points: Tensor, size: tuple[int, int] | None) -> Tensor:
        """Points (..., 2), x, y in 0..1 of a view of `size`, as x, y in 0..1 of F (B, D, H, W), which may end beyond or
        before the view."""
        width, height = self._extent(feature, size)
        x, y = points.unbind(-1)
        return torch.stack([x * (width / feature.shape[-1]), y * (height / feature.shape[-2])], dim=-1)

    def _extent(self, feature: Tensor, size: tuple[int, int] | None) -> tuple[float, float]:
        """(width, height) of a view in cells of F: a view need not be a multiple of the stride."""
        height, width = feature.shape[-2:]
        return (width, height) if size is None else (size[1] / self.stride, size[0] / self.stride)
