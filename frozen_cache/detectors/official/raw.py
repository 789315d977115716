"""What an official detector computes, before it becomes a `DetectorOutput`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from frozen_cache.detectors.official.pyramid import Pyramid


@dataclass(frozen=True)
class RawOutput:
    """Outputs for B images."""

    queries: Tensor
    """(B, Q, D) last decoder states (DINO: normed)."""
    logits: Tensor
    """(B, Q, C)."""
    boxes: Tensor
    """(B, Q, 4) cxcywh in 0..1 of the valid image."""
    c1: Tensor
    """(B, C1, H / 4, W / 4), the backbone's stage 0."""
    encoder: dict[int, Tensor]
    """Kept encoder layer, from 1, -> (B, S, D), the levels flattened."""
    pyramid: Pyramid
    """The encoder's input."""
    positions: Tensor
    """(B, S, D) position and level embedding."""
