"""An official detector behind the `FrozenDetector` interface."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from frozen_cache.detectors.fingerprint import weights_sha256
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.official.config import FocalNetConfig, OfficialConfig, ResNetConfig
from frozen_cache.detectors.official.dino import Dino
from frozen_cache.detectors.official.hdetr import HDetr
from frozen_cache.detectors.official.pyramid import split_levels
from frozen_cache.detectors.official.stem import official_stem
from frozen_cache.detectors.output import DetectorOutput, DetectorSpec, FeatureSpec
from frozen_cache.detectors.stem import Stem
from frozen_cache.errors import UserError

ENCODER_LAYERS = (4,)
"""The paper keeps the fourth of six."""

INPUT = InputRule(
    resize="shortest_edge",
    shortest_edge=800,
    longest_edge=1333,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""Evaluation input of both families: PIL bilinear, 800 / 1333, ImageNet mean and std."""


class OfficialDetector:
    """H-DETR or DINO, frozen.

    Args:
        model: with its weights.
        name: as the user named it.
        encoder_layers: encoder layers to return, counted from 1, ascending.
        top_k: pairs to select by default.
    """

    def __init__(
        self, *, model: HDetr | Dino, name: str, encoder_layers: tuple[int, ...] = ENCODER_LAYERS, top_k: int = 100
    ) -> None:
        config = model.config
        last = config.encoder_layers
        if list(encoder_layers) != sorted(set(encoder_layers)) or not set(encoder_layers) <= set(range(1, last + 1)):
            raise UserError(f"encoder layers {encoder_layers} of {name}: expected ascending numbers from 1 to {last}")
        self.model = model.requires_grad_(False).eval()
        self.spec = DetectorSpec(
            name=name,
            family=config.family,
            weights_sha256=weights_sha256(model.state_dict()),
            input=INPUT,
            query_dim=config.dim,
            num_queries=config.queries,
            num_labels=config.classes,
            label_is_category_id=True,
            top_k=top_k,
            c1=c1_spec(config, model.backbone.channels[0]),
            encoder_levels=encoder_level_specs(config),
            encoder_layers=tuple(encoder_layers),
        )
        self._labels = torch.arange(config.classes)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> DetectorOutput:
        """Run on images (B, 3, H, W) float32, prepared by `spec.input`, on the detector's device."""
        return self.outputs(images)

    def outputs(self, images: Tensor) -> DetectorOutput:
        """As a call, with gradients where parameters are no longer frozen."""
        raw = self.model(images, keep=self.spec.encoder_layers)
        return DetectorOutput(
            queries=raw.queries,
            boxes=raw.boxes,
            scores=raw.logits.float().sigmoid(),
            labels=self._labels,
            c1=None if self.spec.c1 is None else raw.c1,
            encoder={layer: split_levels(tokens, raw.pyramid.shapes) for layer, tokens in raw.encoder.items()},
        )

    def to(self, device: torch.device | str) -> OfficialDetector:
        """Move to a device and return itself."""
        self.model = self.model.to(device)
        self._labels = self._labels.to(device)
        return self

    def part_of(self, name: str) -> Literal["backbone", "encoder", "decoder"]:
        """The part that a parameter of `model` belongs to: what leads into the encoder is its own."""
        if name.startswith(("input_proj.", "transformer.encoder.", "transformer.level_embed")):
            return "encoder"
        return "backbone" if name.startswith("backbone.") else "decoder"

    def stem(self) -> Stem | None:
        """What gives C1 again from the image alone; None where there is no C1."""
        return None if self.spec.c1 is None else official_stem(self.model.backbone, self.model.config.backbone)


def c1_spec(config: OfficialConfig, channels: int) -> FeatureSpec | None:
    """The stride-4 map; None with 5 levels, where the encoder's finest level has stride 4 itself."""
    if config.first_stage == 0:
        return None
    if isinstance(config.backbone, ResNetConfig):
        source = "backbone.layer1"
    elif isinstance(config.backbone, FocalNetConfig):
        source = "backbone stage 0, before its norm"
    else:
        source = "backbone stage 0, before patch merging, no norm"
    return FeatureSpec(channels=channels, stride=4, source=source)


def encoder_level_specs(config: OfficialConfig) -> tuple[FeatureSpec, ...]:
    """The encoder's levels, finest first."""
    return tuple(FeatureSpec(channels=config.dim, stride=stride, source="encoder") for stride in config.strides)
