"""Where a run's features came from: the detector that masks on new pictures need again."""

from __future__ import annotations

import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from frozen_cache.cache.attributes import CacheAttributes, PromptedBy
from frozen_cache.cache.hints import Hints
from frozen_cache.cache.kept_maps import KeptMaps, kept_maps
from frozen_cache.detectors.output import DetectorSpec


class RunSource(BaseModel):
    """How the training cache was made: the detector's facts, and on which paths it lay (they may have moved since)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    spec: DetectorSpec
    """The detector, with the sha256 of its weights."""
    label_to_category: dict[int, int]
    """Detector label -> category id."""
    top_k: int
    autocast: str | None
    precision: str
    """Of the cached maps."""
    kept: KeptMaps | None = None
    """How they are rounded; None for floats, and in runs of before it was kept."""
    annotations: str
    """File name of the annotations, for people."""
    images: int
    data_fingerprint: str
    masks_from: tuple[PromptedBy, ...] = ()
    """The models whose masks some objects have."""
    detector: str | None = None
    """As `load_detector` takes it, with an absolute path; None where the cache does not know."""
    weights: Path | None = None
    """Absolute path of the checkpoint of a named detector."""
    backbone_strides: tuple[int, ...] = ()
    machine: str = ""
    """Name of the computer: a factory's code is run from a run's own record on that one only."""


def source_of(attributes: CacheAttributes, hints: Hints | None) -> RunSource:
    """What a run remembers of its training cache."""
    return RunSource(
        spec=attributes.detector,
        label_to_category=attributes.label_to_category,
        top_k=attributes.top_k,
        autocast=attributes.autocast,
        precision=attributes.precision,
        kept=kept_maps(attributes),
        annotations=attributes.data.annotations,
        images=attributes.data.images,
        data_fingerprint=attributes.data.fingerprint,
        masks_from=attributes.data.masks_from,
        detector=None if hints is None else hints.detector,
        weights=None if hints is None else hints.weights,
        backbone_strides=() if hints is None else hints.backbone_strides,
        machine=platform.node(),
    )
