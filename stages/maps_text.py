"""The maps of a cache in words: what each is, and whether it is stored."""

from __future__ import annotations

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.detectors.output import map_text

RECOMPUTED = " (recomputed from the image)"


def c1_text(attributes: CacheAttributes) -> str:
    """`256 channels at stride 4 (recomputed from the image)`."""
    if attributes.c1 == "none" and attributes.detector.c1 is not None:
        return "left out"
    made = attributes.stem is not None and attributes.stem.config.c1 is not None
    return map_text(attributes.detector.c1) + (RECOMPUTED if made else "")


def levels_text(attributes: CacheAttributes) -> str:
    """The encoder's levels, finest first."""
    return "; ".join(
        map_text(level) + (RECOMPUTED if at in attributes.recomputed_levels else "")
        for at, level in enumerate(attributes.detector.encoder_levels)
    )
