"""The backbones behind one interface: four stages, strides 4 to 32, built on torchvision and timm.

Each knows how the official checkpoints call its own weights.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.ops import FrozenBatchNorm2d

from frozen_cache.detectors.official.backbone import Backbone
from frozen_cache.detectors.official.config import BackboneConfig, FocalNetConfig, ResNetConfig
from frozen_cache.detectors.official.focalnet import FocalNet
from frozen_cache.detectors.official.swin import Swin


class ResNet50(Backbone):
    """torchvision's ResNet-50 with frozen batch norm; the official names are torchvision's."""

    channels = (256, 512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        body: Any = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
        self.conv1: nn.Module = body.conv1
        self.bn1: nn.Module = body.bn1
        self.maxpool: nn.Module = body.maxpool
        self.layer1: nn.Module = body.layer1
        self.layer2: nn.Module = body.layer2
        self.layer3: nn.Module = body.layer3
        self.layer4: nn.Module = body.layer4

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps of images (B, 3, H, W)."""
        x = self.maxpool(self.bn1(self.conv1(images)).relu())
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            stages.append(x)
        return stages


def build_backbone(config: BackboneConfig, *, first_stage: int) -> Backbone:
    """The backbone whose stages from `first_stage` on feed the detector (those carry a norm in Swin and FocalNet)."""
    if isinstance(config, ResNetConfig):
        return ResNet50()
    if isinstance(config, FocalNetConfig):
        return FocalNet(config=config, first_stage=first_stage)
    return Swin(config=config, first_stage=first_stage)
