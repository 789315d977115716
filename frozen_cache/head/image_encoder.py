"""Image feature encoders (Eq. 5 to 8, Table 2): they refine the frozen encoder's maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frozen_cache.head.config import HeadConfig
from frozen_cache.head.convnext import ConvNeXtLayer
from frozen_cache.head.deformable import DeformableLayer
from frozen_cache.head.position import grid_centres, grid_sine
from frozen_cache.head.recompute import Layers
from frozen_cache.head.swin import IMAGE_WINDOW, SwinLayer


class DeformableImageEncoder(nn.Module):
    """Deformable layers over all levels; sine positions, no level embedding, no final norm.

    Args:
        dim: width of all levels.
        levels: L.
        layers: number of layers.
        kept: how many levels, finest first, are wanted of the last layer, which refines no others; None: all.
    """

    def __init__(self, *, dim: int, levels: int, layers: int, kept: int | None = None) -> None:
        super().__init__()
        self.kept = kept
        self.layers = Layers(DeformableLayer(dim=dim, levels=levels) for _ in range(layers))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """L maps (B, D, h, w), finest first, to the kept ones of the same shapes."""
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        position = torch.cat([grid_sine(*shape, tokens.shape[-1], tokens) for shape in shapes], dim=0)
        centres = torch.cat([grid_centres(*shape, tokens) for shape in shapes], dim=0)
        reference = centres[None, :, None].expand(tokens.shape[0], -1, len(levels), -1)
        cells = [height * width for height, width in shapes[: self.kept]]
        for index in range(len(self.layers)):
            asking = sum(cells) if index == len(self.layers) - 1 else None
            tokens = self.layers.run(index, tokens, position, reference, shapes, asking)
        parts = tokens.split(cells, dim=1)
        return [
            part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes[: self.kept], strict=True)
        ]


class FinestLevelEncoder(nn.Module):
    """Swin or ConvNeXt layers on the finest level; the other levels pass through."""

    def __init__(self, *, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = Layers(layers)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Maps (B, D, h, w), finest first, to the same shapes."""
        finest = levels[0]
        for index in range(len(self.layers)):
            finest = self.layers.run(index, finest)
        return [finest, *levels[1:]]


def build_image_encoder(config: HeadConfig, *, dim: int, levels: int, kept: int | None = None) -> nn.Module:
    """The image encoder that the configuration names, of whose maps the first `kept` are used (None: all);
    `nn.Identity` for none."""
    count = config.image_layers
    if config.image_encoder == "none" or count == 0:
        return nn.Identity()
    if config.image_encoder == "deformable":
        return DeformableImageEncoder(dim=dim, levels=levels, layers=count, kept=kept)
    if config.image_encoder == "swin":
        return FinestLevelEncoder(
            layers=[SwinLayer(dim=dim, window=IMAGE_WINDOW, shifted=index % 2 == 1) for index in range(count)]
        )
    return FinestLevelEncoder(layers=[ConvNeXtLayer(dim=dim) for _ in range(count)])
