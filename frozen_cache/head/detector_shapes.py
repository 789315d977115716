"""Feature shapes of the paper's detectors, to describe a head without a cache."""

from __future__ import annotations

from frozen_cache.detectors.output import FeatureSpec
from frozen_cache.head.inputs import HeadInputs

COCO_CLASSES = 80


def _inputs(*, c1: int | None, strides: tuple[int, ...]) -> HeadInputs:
    return HeadInputs(
        query_dim=256,
        c1=None if c1 is None else FeatureSpec(channels=c1, stride=4),
        levels=tuple(FeatureSpec(channels=256, stride=stride) for stride in strides),
        num_classes=COCO_CLASSES,
    )


DETECTOR_SHAPES = {
    "hdetr-r50": _inputs(c1=256, strides=(8, 16, 32, 64)),
    "hdetr-swin-l": _inputs(c1=192, strides=(8, 16, 32, 64)),
    # The finest encoder level has stride 4 already: no C1, no neck (Table 15).
    "dino-focalnet-l": _inputs(c1=None, strides=(4, 8, 16, 32, 64)),
}
