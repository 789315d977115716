"""The stem of an official detector: its backbone's stage 0."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import nn

from frozen_cache.detectors.official.config import BackboneConfig, FocalNetConfig, ResNetConfig, SwinConfig
from frozen_cache.detectors.stem import Stem, StemConfig, StemMap

KINDS: dict[type, tuple[str, str]] = {
    ResNetConfig: ("official-resnet50", "layer1"),
    SwinConfig: ("official-swin", "features.1"),
    FocalNetConfig: ("official-focalnet", "layers.0"),
}
"""Configuration of a backbone -> its kind of stem, and its stage of stride 4."""


def official_stem(backbone: nn.Module, config: BackboneConfig) -> Stem:
    """The stem that gives C1."""
    kind, stage = KINDS[type(config)]
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    trial = torch.zeros(1, 3, 64, 64, device=next(iter(backbone.state_dict().values())).device)
    return Stem.take(backbone, StemConfig(kind=kind, config=values, c1=StemMap(module=stage)), trial=trial)
