"""The map F that RoIs are cut from: `neck(C1) + upsample(image_encoder(E))`, then the channel mapper (Eq. 1, 5, 14)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.errors import UserError
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.image_encoder import build_image_encoder
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.norm import group_norm


class Projection(nn.Sequential):
    """1x1 convolution and GroupNorm: the neck of C1 (Eq. 14), and the fit of levels of other widths.

    66,304 parameters from 256 to 256 channels. (B, C, H, W) to (B, D, H, W).
    """

    def __init__(self, *, channels: int, dim: int) -> None:
        super().__init__(nn.Conv2d(channels, dim, 1), group_norm(dim))


class FeatureMap(nn.Module):
    """From the cached maps of like-sized images to F.

    Attributes:
        stride: of F, in pixels of the resized image: C1's where C1 takes part, else the finest level's.
        uses_c1: C1 takes part: through the neck, or as it is (Eq. 1) where its channels are F's. Without a neck a C1
            of other channels is left out.
    """

    def __init__(self, *, config: HeadConfig, inputs: HeadInputs) -> None:
        super().__init__()
        fused = len(inputs.levels) if config.fused_levels == "all" else config.fused_levels
        if fused > len(inputs.levels):
            raise UserError(
                f"head.fused_levels={fused}, but the cache has {len(inputs.levels)} encoder levels: "
                f"set head.fused_levels to at most {len(inputs.levels)}"
            )
        # Levels that the adapter added from the backbone come first; the coarsest is always the encoder's own.
        dim = inputs.levels[-1].channels if config.image_width is None else config.image_width
        deformable = config.image_encoder == "deformable" and config.image_layers > 0
        self.fused = fused
        self.read = len(inputs.levels) if deformable else fused
        self.projections = nn.ModuleList(
            nn.Identity() if level.channels == dim else Projection(channels=level.channels, dim=dim)
            for level in inputs.levels[: self.read]
        )
        self.image_encoder = build_image_encoder(config, dim=dim, levels=self.read, kept=fused)
        c1 = inputs.c1
        self.uses_c1 = c1 is not None and (config.neck or c1.channels == dim)
        self.neck: nn.Module = nn.Identity()
        if c1 is not None and config.neck:
            self.neck = Projection(channels=c1.channels, dim=dim)
        self.stride = c1.stride if c1 is not None and self.uses_c1 else inputs.levels[0].stride
        self.mapper = nn.Identity() if config.width == dim else nn.Conv2d(dim, config.width, 1)

    def forward(self, c1: Tensor | None, levels: list[Tensor]) -> Tensor:
        """Compute F.

        Args:
            c1: (B, C1, H, W) or None.
            levels: L maps (B, C, h, w), finest first.

        Returns:
            (B, width, H, W).
        """
        projected = [project(level) for project, level in zip(self.projections, levels[: self.read], strict=True)]
        refined = self.image_encoder(projected)[: self.fused]
        fine = self.neck(c1) if c1 is not None and self.uses_c1 else refined.pop(0)
        for level in refined:
            # In the memory order of `fine` while it is small: else the large map would be copied, both ways.
            fine = fine + upsample(level.contiguous(), (fine.shape[2], fine.shape[3]))
        return self.mapper(fine)


def upsample(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, D, h, w) to (B, D, *size), bilinear."""
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
