"""The interface of the backbones: four stages, strides 4 to 32, and the official names of their weights."""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """Interface of a backbone."""

    channels: tuple[int, ...]
    """Of the four stages."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps (B, C, H, W) of images (B, 3, H, W), strides 4, 8, 16, 32."""
        raise NotImplementedError

    def official_name(self, name: str) -> str:
        """The official name, below the backbone's prefix, of one of this module's state-dict names."""
        return name

    def official_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the official weight has: the library may store a linear layer as a 1x1 convolution."""
        return shape
