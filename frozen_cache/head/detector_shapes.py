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


def at_scale(inputs: HeadInputs, scale: int) -> HeadInputs:
    """The shapes with C1 from the image at `scale` times the input size."""
    c1 = inputs.c1
    finer = None if c1 is None else c1.model_copy(update={"stride": c1.stride // scale})
    return inputs.model_copy(update={"c1": finer})


DETECTOR_SHAPES = {
    "hdetr-r50": _inputs(c1=256, strides=(8, 16, 32, 64)),
    "hdetr-swin-l": _inputs(c1=192, strides=(8, 16, 32, 64)),
    # The finest encoder level has stride 4 already: no C1, no neck (Table 15).
    "dino-focalnet-l": _inputs(c1=None, strides=(4, 8, 16, 32, 64)),
}
