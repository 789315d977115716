"""Box feature encoders (Eq. 9, Table 3): stages that refine each RoI's features, (N, D, R, R) to (N, D, R, R)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frozen_cache.head.config import HeadConfig
from frozen_cache.head.convnext import ConvNeXtLayer
from frozen_cache.head.deformable import DeformableLayer
from frozen_cache.head.fcn import FcnEncoder
from frozen_cache.head.position import grid_centres
from frozen_cache.head.recompute import Layers
from frozen_cache.head.swin import ROI_WINDOW, SwinLayer
from frozen_cache.head.unet import UNet


class DeformableRoiLayer(nn.Module):
    """A deformable layer within each RoI."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.layer = DeformableLayer(dim=dim, levels=1)

    def forward(self, rois: Tensor, position: Tensor) -> Tensor:
        """RoIs (N, D, R, R), position of their cells (R * R, D), to (N, D, R, R)."""
        shape = (rois.shape[2], rois.shape[3])
        tokens = rois.flatten(2).transpose(1, 2)
        reference = grid_centres(*shape, tokens)[None, :, None].expand(tokens.shape[0], -1, 1, -1)
        return self.layer(tokens, position, reference, [shape]).transpose(1, 2).unflatten(2, shape)


class BoxEncoder(nn.Module):
    """The stages of the box encoder, run one by one; none at all is a valid box encoder.

    Deformable layers share one learned position embedding of the RoI's cells (R * R * D parameters).
    """

    def __init__(self, *, config: HeadConfig) -> None:
        super().__init__()
        self.stages = Layers(_stages(config))
        self.position: nn.Parameter | None = None
        if len(self.stages) > 0 and config.box_encoder == "deformable":
            self.position = nn.Parameter(torch.empty(config.roi_size**2, config.width))
            nn.init.trunc_normal_(self.position, std=0.02)

    def __len__(self) -> int:
        return len(self.stages)

    def forward(self, rois: Tensor, *, stage: int) -> Tensor:
        """Run one stage: (N, D, R, R) to (N, D, R, R)."""
        position = () if self.position is None else (self.position,)
        refined: Tensor = self.stages.run(stage, rois, *position)
        return refined


def _stages(config: HeadConfig) -> list[nn.Module]:
    dim, count = config.width, config.box_layers
    if config.box_encoder == "none" or count == 0:
        return []
    if config.box_encoder == "deformable":
        return [DeformableRoiLayer(dim=dim) for _ in range(count)]
    if config.box_encoder == "swin":
        return [SwinLayer(dim=dim, window=ROI_WINDOW, shifted=index % 2 == 1) for index in range(count)]
    if config.box_encoder == "convnext":
        return [ConvNeXtLayer(dim=dim) for _ in range(count)]
    return [UNet(dim=dim, convs=count) if config.box_encoder == "unet" else FcnEncoder(dim=dim, convs=count)]
