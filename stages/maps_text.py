"""The maps of a cache in words: what each is, and whether it is stored."""

from __future__ import annotations

from itertools import groupby

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
    """The encoder's levels, finest first: `256 channels at strides 8, 16, 32; 128 channels at stride 64`."""
    levels = enumerate(attributes.detector.encoder_levels)
    kinds = groupby(levels, lambda pair: (pair[1].channels, pair[0] in attributes.recomputed_levels))
    texts = []
    for (channels, recomputed), pairs in kinds:
        strides = [str(level.stride) for _, level in pairs]
        plural = "s" if len(strides) > 1 else ""
        texts.append(f"{channels} channels at stride{plural} {', '.join(strides)}" + (RECOMPUTED if recomputed else ""))
    return "; ".join(texts)
