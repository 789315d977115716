"""Running a frozen detector on resized images, for extraction and for new pictures alike."""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor

from frozen_cache.detectors.output import DetectorOutput, FrozenDetector, ScaledDetector


@torch.inference_mode()
def run_detector(
    detector: FrozenDetector,
    pixels: Tensor,
    enlarged: Tensor | None = None,
    *,
    device: torch.device,
    autocast: str | None = None,
) -> DetectorOutput:
    """Normalise a batch as the detector's input rule says, and run it.

    Args:
        pixels: (B, 3, H, W) in 0..255, of the input rule's size, on any device.
        enlarged: (B, 3, s H, s W) of the same images, where the detector's `backbone_scale` s is above 1.
        device: the detector's.
        autocast: `bfloat16` or `float16`; None computes in float32.

    Returns:
        The output on `device`: queries, boxes and scores in float32, maps as they came.
    """
    rule = detector.spec.input
    images = rule.normalise(pixels.to(device))
    context = torch.autocast(device.type, getattr(torch, autocast)) if autocast else nullcontext()
    with context:
        if enlarged is None:
            output = detector(images)
        else:
            output = cast(ScaledDetector, detector)(images, rule.normalise(enlarged.to(device)))
    return DetectorOutput(
        queries=output.queries.float(),
        boxes=output.boxes.float(),
        scores=output.scores.float(),
        labels=output.labels,
        c1=output.c1,
        encoder=output.encoder,
    )
