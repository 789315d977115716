"""Mask scoring head (Eq. 12, 13; Mask Scoring R-CNN): predicts the IoU of a predicted mask with its object."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.precision import full_precision, wide


class MaskScoring(nn.Module):
    """Three 3x3 convolutions of stride 2 over mask and features, then three linear layers. 733,008 parameters.

    As in maskscoring_rcnn, it sees the mask's probabilities, with their gradient, and gives one IoU per class, of
    which the RoI's own class counts.

    Args:
        dim: width D of RoI features and hidden layers.
        size: R, side of the RoI features.
        classes: number of categories.
    """

    def __init__(self, *, dim: int, size: int, classes: int) -> None:
        super().__init__()
        self.size = size
        self.convs = nn.ModuleList(nn.Conv2d(dim + (index == 0), dim, 3, stride=2, padding=1) for index in range(3))
        for _ in self.convs:
            size = (size + 1) // 2
        self.hidden = nn.ModuleList([nn.Linear(dim * size * size, dim), nn.Linear(dim, dim)])
        self.out = nn.Linear(dim, classes)

    def forward(self, mask_logits: Tensor, rois: Tensor) -> Tensor:
        """Score masks.

        Args:
            mask_logits: (N, R, R) or, from a head of twice the side, (N, 2 R, 2 R), which is max-pooled.
            rois: (N, D, R, R).

        Returns:
            (N, classes) IoU, a regression without bounds.
        """
        mask = mask_logits.sigmoid()[:, None]
        if mask.shape[-1] != self.size:
            mask = F.max_pool2d(mask, mask.shape[-1] // self.size)
        feature = torch.cat([rois, mask.to(rois.dtype)], dim=1)
        for conv in self.convs:
            feature = F.relu(conv(feature))
        feature = feature.flatten(1)
        for layer in self.hidden:
            feature = F.relu(layer(feature))
        with full_precision(feature):
            return self.out(wide(feature))
