"""What every frozen detector is and returns: `DetectorSpec`, `DetectorOutput`, `FrozenDetector`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from frozen_cache.detectors.input_rule import InputRule


class FeatureSpec(BaseModel):
    """One feature map of the detector: its channels, and its stride in pixels of the resized image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int
    stride: int
    source: str = ""
    """Where the map comes from, for people: `backbone.layer1`, `encoder`, `backbone stride 8 (added)`."""


ADDED = " (added)"
"""How the source of an added map ends."""
_OF_SCALE = re.compile(r" of \d+ x$")


def added_maps(levels: Sequence[FeatureSpec]) -> list[int]:
    """The levels that the detector's adapter added from the backbone, by index; of one stage at several scales of the
    image, the first."""
    names = {at: level.source.removesuffix(ADDED) for at, level in enumerate(levels) if level.source.endswith(ADDED)}
    first: dict[str, int] = {}
    for at, name in names.items():
        first.setdefault(_OF_SCALE.sub("", name), at)
    return list(first.values())


def map_text(feature: FeatureSpec | None) -> str:
    """A map in words: `256 channels at stride 4`."""
    return "none" if feature is None else f"{feature.channels} channels at stride {feature.stride}"


class DetectorSpec(BaseModel):
    """All that a cache must know of a detector. Saved in the cache; part of its fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The detector as the user named it, without any path (`hf:rtdetr_v2_r18vd`, `hdetr-r50`)."""
    family: str
    """`deimv2`, `rt_detr_v2`, `hdetr` ..."""
    weights_sha256: str
    """sha256 over names, shapes and bytes of the model's state dict."""
    input: InputRule
    query_dim: int
    num_queries: int
    num_labels: int
    """Number of score columns (91 for H-DETR, 80 for DEIMv2 on COCO)."""
    label_names: dict[int, str] | None = None
    """Label to class name where the model has real names; None where it has none (`LABEL_0`)."""
    label_is_category_id: bool = False
    """True where a label is the COCO category id itself (H-DETR and DINO: 91 columns)."""
    one_label_per_query: bool = False
    """True for softmax families (DETR, Conditional DETR ...): a query gives at most one pair."""
    top_k: int = 100
    """The number of (query, label) pairs that the paper or the family selects by default."""
    backbone_scale: int = 1
    """C1 and added backbone maps come from the image at this many times the input size; the rest from the input."""
    c1: FeatureSpec | None = None
    """The backbone's stride-4 map (in pixels of the input: 4 / `backbone_scale`); None where the detector has none
    (plain ViT) or the encoder reaches stride 4."""
    encoder_levels: tuple[FeatureSpec, ...] = ()
    """The encoder's levels, finest first, the same for each kept layer."""
    encoder_layers: tuple[int, ...] = ()
    """The kept encoder layers, counted from 1, ascending. One-output encoders have the single layer 1."""


@dataclass(frozen=True)
class DetectorOutput:
    """The outputs for a batch of B unpadded images of one size (H, W in pixels of the resized image)."""

    queries: Tensor
    """(B, Q, D) states of the last decoder layer: those that the class head sees."""
    boxes: Tensor
    """(B, Q, 4) cxcywh, in 0..1 of the image."""
    scores: Tensor
    """(B, Q, C) float32 class probabilities: sigmoid, or softmax without its no-object column."""
    labels: Tensor
    """(C,) int64, the detector's label of each score column."""
    c1: Tensor | None
    """(B, C1, H / stride, W / stride), rounded up or down as the backbone does."""
    encoder: dict[int, list[Tensor]]
    """Kept encoder layer -> its levels, finest first, each (B, C, H / stride, W / stride)."""


class FrozenDetector(Protocol):
    """A detector in eval mode whose parameters never train.

    One that also has a method `stem`, which returns a `frozen_cache.detectors.stem.Stem` on the CPU (or None), lets a
    cache make its C1 again from the image instead of storing it (`--c1 recomputed`).
    """

    spec: DetectorSpec

    def __call__(self, images: Tensor) -> DetectorOutput:
        """Run on images (B, 3, H, W) float32, prepared by `spec.input`, on the detector's device; no gradient."""
        ...

    def to(self, device: torch.device | str) -> FrozenDetector:
        """Move to a device and return itself."""
        ...


class ScaledDetector(FrozenDetector, Protocol):
    """A frozen detector whose `spec.backbone_scale` s is above 1."""

    def __call__(self, images: Tensor, enlarged: Tensor | None = None) -> DetectorOutput:
        """As `FrozenDetector`; `enlarged` (B, 3, s H, s W) are the same views, from which the backbone's maps come."""
        ...
