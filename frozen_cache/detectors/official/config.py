"""Sizes of the official detectors. Everything that a checkpoint may vary is a field; the rest is fixed by the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["hdetr", "dino"]


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """ResNet-50 with frozen batch norm (torchvision)."""


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """Swin Transformer: widths `embed` x (1, 2, 4, 8), window in tokens."""

    embed: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7


@dataclass(frozen=True, kw_only=True)
class FocalNetConfig:
    """FocalNet with post-LN, layer scale, normalised modulator and convolutional embedding (`fl4`)."""

    embed: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    focal_levels: int = 4
    focal_window: int = 3


BackboneConfig = ResNetConfig | SwinConfig | FocalNetConfig


@dataclass(frozen=True, kw_only=True)
class OfficialConfig:
    """One detector of the H-DETR or DINO family."""

    family: Family
    backbone: BackboneConfig
    levels: int = 4
    """4: strides 8 to 64. 5 (DINO only): strides 4 to 64, the first from the backbone's stage 0."""
    queries: int = 300
    """Queries that inference uses: one-to-one queries of H-DETR."""
    one_to_many: int = 0
    """Further rows of H-DETR's query embedding, used in training only."""
    classes: int = 91
    label_rows: int = 92
    """Rows of DINO's `label_enc`, used in training only."""
    encoder_layers: int = 6
    decoder_layers: int = 6
    ffn: int = 2048
    dim: int = 256
    heads: int = 8
    points: int = 4

    @property
    def first_stage(self) -> int:
        """The first backbone stage (0 has stride 4) that becomes a level."""
        return 5 - self.levels

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the encoder's levels in pixels of the resized image."""
        return tuple(2 ** (2 + self.first_stage + i) for i in range(self.levels))
