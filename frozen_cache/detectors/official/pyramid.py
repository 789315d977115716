"""From backbone maps to the encoder's input: one projection per level, positions, padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Pyramid:
    """L levels, flattened row by row and concatenated, S = sum of H * W."""

    tokens: Tensor
    """(B, S, D)."""
    padding: Tensor
    """(B, S) bool, True on padding."""
    shapes: list[tuple[int, int]]
    """(H, W) of each level."""
    valid_ratios: Tensor
    """(B, L, 2): valid width and height over the padded ones."""
    any_padding: bool

    @property
    def level_padding(self) -> list[Tensor]:
        """(B, H, W) bool of each level."""
        sizes = [height * width for height, width in self.shapes]
        parts = self.padding.split(sizes, 1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]


def input_projections(*, channels: tuple[int, ...], levels: int, dim: int) -> nn.ModuleList:
    """1x1 convolution and GroupNorm(32) per backbone map; further levels by 3x3 stride-2 convolutions."""
    projections = nn.ModuleList(
        nn.Sequential(nn.Conv2d(each, dim, kernel_size=1), nn.GroupNorm(32, dim)) for each in channels
    )
    width = channels[-1]
    for _ in range(levels - len(channels)):
        projections.append(
            nn.Sequential(nn.Conv2d(width, dim, kernel_size=3, stride=2, padding=1), nn.GroupNorm(32, dim))
        )
        width = dim
    return projections


def build_pyramid(maps: list[Tensor], projections: nn.ModuleList, padding: Tensor | None) -> Pyramid:
    """Project backbone maps (finest first) to the levels.

    Args:
        maps: the backbone's maps (B, C, H, W).
        projections: of `input_projections`.
        padding: (B, height, width) bool of the images, True on padding; None where nothing is padded.
    """
    levels = [project(each) for project, each in zip(projections, maps, strict=False)]
    source = maps[-1]
    for project in list(projections)[len(maps) :]:
        source = project(source)
        levels.append(source)
    shapes = [(each.shape[-2], each.shape[-1]) for each in levels]
    if padding is None:
        masks = [each.new_zeros((each.shape[0], *each.shape[-2:]), dtype=torch.bool) for each in levels]
    else:
        masks = [F.interpolate(padding[None].float(), size=shape)[0].bool() for shape in shapes]
    return Pyramid(
        tokens=torch.cat([each.flatten(2).transpose(1, 2) for each in levels], 1),
        padding=torch.cat([each.flatten(1) for each in masks], 1),
        shapes=shapes,
        valid_ratios=torch.stack([_valid_ratio(each) for each in masks], 1),
        any_padding=padding is not None,
    )


def _valid_ratio(padding: Tensor) -> Tensor:
    """(B, 2): the share of valid columns and rows of (B, H, W)."""
    width = (~padding[:, 0, :]).sum(1).float() / padding.shape[2]
    height = (~padding[:, :, 0]).sum(1).float() / padding.shape[1]
    return torch.stack([width, height], -1)


def split_levels(tokens: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """The levels (B, D, H, W), finest first, of flattened tokens (B, S, D)."""
    parts = tokens.split([height * width for height, width in shapes], 1)
    return [part.transpose(1, 2).unflatten(2, shape).contiguous() for part, shape in zip(parts, shapes, strict=True)]
