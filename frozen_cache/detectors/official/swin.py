"""Swin Transformer as a detection backbone: torchvision's blocks with the official code's treatment of any map size.

Two things differ from torchvision's own attention, and matter on maps smaller than a window: the shift is never
dropped, and so the mask always splits the last window. (timm rolls before it pads, which differs on every size that
is no multiple of the window.)
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import ShiftedWindowAttention, SwinTransformer, SwinTransformerBlock

from frozen_cache.detectors.official.backbone import Backbone
from frozen_cache.detectors.official.config import SwinConfig

PATCH = 4


class Swin(Backbone):
    """The four stages; those from `first_stage` on are normed, earlier ones (C1 of 4 levels) are not."""

    output_fmt = "NHWC"
    """How each stage gives its map, in timm's words."""

    def __init__(self, *, config: SwinConfig, first_stage: int) -> None:
        super().__init__()
        self.channels = tuple(config.embed * 2**i for i in range(len(config.depths)))
        self.features = SwinTransformer(
            patch_size=[PATCH, PATCH],
            embed_dim=config.embed,
            depths=list(config.depths),
            num_heads=list(config.heads),
            window_size=[config.window, config.window],
            stochastic_depth_prob=0.0,
            num_classes=1,
            block=partial(SwinTransformerBlock, attn_layer=WindowAttention),
        ).features
        self.norms = nn.ModuleDict(
            {str(i): nn.LayerNorm(self.channels[i]) for i in range(first_stage, len(self.channels))}
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps of images (B, 3, H, W), sizes rounded up."""
        height, width = images.shape[-2:]
        x = F.pad(images, (0, -width % PATCH, 0, -height % PATCH))
        stages = []
        for index, part in enumerate(self.features):
            x = part(x)
            if index % 2:  # even parts embed or merge patches
                name = str(index // 2)
                stage = self.norms[name](x) if name in self.norms else x
                stages.append(stage.permute(0, 3, 1, 2).contiguous())
        return stages

    def official_name(self, name: str) -> str:
        """`layers.0.blocks.1.mlp.fc1.weight` of `features.1.1.mlp.0.weight`."""
        if name.startswith("norms."):
            return name.replace("norms.", "norm", 1)
        part, rest = re.fullmatch(r"features\.(\d+)\.(.*)", name).groups()  # type: ignore[union-attr]
        if part == "0":
            return "patch_embed." + {"0": "proj", "2": "norm"}[rest[0]] + rest[1:]
        stage = (int(part) - 1) // 2
        if int(part) % 2 == 0:
            return f"layers.{stage}.downsample.{rest}"
        return f"layers.{stage}.blocks.{rest.replace('mlp.0.', 'mlp.fc1.').replace('mlp.3.', 'mlp.fc2.')}"


class WindowAttention(ShiftedWindowAttention):
    """(Shifted) window attention over a map of any size: pad, roll, attend inside each window, roll back, crop."""

    def define_relative_position_index(self) -> None:
        """Computed when needed, so that the module holds no buffers."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) of (B, H, W, C)."""
        batch, height, width, channels = x.shape
        window, shift = self.window_size[0], self.shift_size[0]
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        rows, columns = x.shape[1] // window, x.shape[2] // window
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
        x = x.view(batch, rows, window, columns, window, channels).transpose(2, 3).flatten(3, 4).flatten(0, 2)

        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        index = _kept(relative_position_index)(window).to(x.device)
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)  # (heads, window^2, window^2)
        if shift:
            mask = _kept(shift_mask)(rows, columns, window, shift).to(x.device)
            bias = bias + mask[:, None]
            bias = bias.repeat(batch, 1, 1, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        x = self.proj(x.transpose(1, 2).flatten(2))

        x = x.view(batch, rows, columns, window, window, channels).transpose(2, 3)
        x = x.reshape(batch, rows * window, columns * window, channels)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :height, :width].contiguous()


def _kept(function: Any) -> Any:
    """A cached function, but for the recording of a graph, whose tensors must not outlive it."""
    return function.__wrapped__ if torch.compiler.is_exporting() else function


@lru_cache(maxsize=8)
def relative_position_index(window: int) -> Tensor:
    """(window^2, window^2) int64: row of the bias table for each pair of tokens of a window."""
    with torch.device("cpu"):
        steps = torch.arange(window)
        places = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)
    difference = places[:, None] - places[None] + window - 1
    return difference[..., 0] * (2 * window - 1) + difference[..., 1]


@lru_cache(maxsize=64)
def shift_mask(rows: int, columns: int, window: int, shift: int) -> Tensor:
    """(rows * columns, window^2, window^2) float32: -100 between tokens that the roll brought together, else 0."""
    with torch.device("cpu"):
        region = torch.zeros(rows * window, columns * window)
    for row, vertical in enumerate((slice(-window, -shift), slice(-shift, None)), 1):
        region[vertical] += 3 * row
    for column, horizontal in enumerate((slice(-window, -shift), slice(-shift, None)), 1):
        region[:, horizontal] += column
    region = region.view(rows, window, columns, window).transpose(1, 2).flatten(2).flatten(0, 1)
    return (region[:, None] != region[:, :, None]) * -100.0
