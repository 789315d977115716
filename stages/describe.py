"""Describe a mask head at the shapes of a known detector or of a cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.stem_files import read_stem
from frozen_cache.detectors.output import added_maps
from frozen_cache.errors import UserError
from frozen_cache.head.config import HeadConfig, resolve_encoder_layer
from frozen_cache.head.describe import HeadDescription, describe_head
from frozen_cache.head.detector_shapes import DETECTOR_SHAPES, at_scale
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.training.config import load_config


def describe(
    *,
    preset: str = "paper",
    overrides: dict[str, Any] | None = None,
    detector_shapes: str = "hdetr-r50",
    image_size: tuple[int, int] = (800, 1120),
    boxes: int = 100,
) -> HeadDescription:
    """Modules, shapes, parameters and multiply-adds of a preset's head.

    Args:
        preset: a shipped recipe or a TOML file.
        overrides: by dotted key of a training configuration; the head's own keys also without `head.`.
        detector_shapes: a name of `DETECTOR_SHAPES`, or the path of a cache.
        image_size: (height, width) of the resized image in pixels.
        boxes: RoIs in it.
    """
    if min(image_size) < 1 or boxes < 1:
        raise UserError(f"an image of {image_size[0]} x {image_size[1]} with {boxes} boxes: each must be at least 1")
    dotted = {f"head.{key}" if key in HeadConfig.model_fields else key: at for key, at in (overrides or {}).items()}
    config = load_config(preset=preset, overrides=dotted).head
    found = describe_head(config=config, inputs=_inputs(detector_shapes, config), image_size=image_size, boxes=boxes)
    if config.zoom is None or detector_shapes in DETECTOR_SHAPES:
        return found
    return replace(found, zoom_macs=boxes * _stem_macs(detector_shapes, config.zoom))


def _inputs(name: str, config: HeadConfig) -> HeadInputs:
    if name in DETECTOR_SHAPES:
        return at_scale(DETECTOR_SHAPES[name], config.c1_scale or 1)
    if not Path(name).exists():
        raise UserError(
            f"no detector shapes `{name}`: known are {', '.join(DETECTOR_SHAPES)}, or give a cache NAME.zarr"
        )
    reader = CacheReader(Path(name), c1_scale=config.c1_scale)
    if config.zoom is not None:
        reader.check_zoom()
    return reader.head_inputs(resolve_encoder_layer(config, reader.attributes.detector.encoder_layers))


def _stem_macs(cache: str, side: int) -> int:
    """Multiply-adds of a cache's stem on one crop."""
    attributes = CacheReader(Path(cache)).attributes
    assert attributes.stem is not None
    stem = read_stem(Path(cache), attributes.stem)
    with FlopCounterMode(display=False) as counter:
        stem.of_crops(torch.zeros(1, 3, side, side), added_maps(attributes.detector.encoder_levels))
    return counter.get_total_flops() // 2
