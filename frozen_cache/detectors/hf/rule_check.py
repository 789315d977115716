"""Whether an input rule gives the pixel values of the image processor that it was made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.errors import UserError, one_line

TOLERANCE = 1e-4
"""Of the largest value: far above rounding, far below one of 256 grey levels."""


def check_rule(rule: InputRule, processor: Any, *, name: str) -> None:
    """Run the processor on two images of noise, one to be enlarged, one to be reduced, and compare.

    This covers what no attribute of a processor tells: classes of its own, other versions of its libraries.

    Args:
        name: of the detector, for errors.

    Raises:
        UserError: the processor fails, or its sizes or values are not those of the rule.
    """
    for height, width in _trial_sizes(rule):
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = _difference(rule, processor, Image.fromarray(pixels))
        if found is not None:
            raise UserError(
                f"{name}: its image processor {type(processor).__name__} {found} (on an image of {height} x {width} "
                "pixels, height x width): change it, or give a FrozenDetector with an InputRule of its own by "
                "FILE.py:FACTORY"
            )


def _difference(rule: InputRule, processor: Any, image: Image.Image) -> str | None:
    """In words, what the processor does otherwise; None where nothing."""
    try:
        expected = torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"][0]).float()
    except Exception as error:  # whatever a processor raises
        return f"fails: {one_line(error, most=200)}"
    size = rule.resized_size(height=image.height, width=image.width)
    if expected.shape != (3, *size):
        return f"gives values of shape {tuple(expected.shape)}, and its settings say {(3, *size)}"
    try:
        found = rule.normalise(rule.resize_image(image, size))
    except Exception as error:  # an older torchvision knows fewer ways to resize
        return f"resizes as the libraries installed here cannot: {one_line(error, most=200)}"
    largest = (found - expected).abs().max().item()
    if not largest <= TOLERANCE * max(1.0, expected.abs().max().item()):
        return f"gives other pixel values than its settings say, by up to {largest:.3g}"
    return None


def _trial_sizes(rule: InputRule) -> list[tuple[int, int]]:
    """(height, width) of a small image, and of one that the rule makes smaller: odd, none of the input's aspect."""
    if rule.size is not None:
        return [(37, 53), (2 * rule.size[0] + 1, 39)]
    limit = rule.longest_edge or max(rule.max_size or (0,))
    if limit:
        return [(37, 53), (2 * limit + 1, limit // 4 + 1)]
    edge = rule.shortest_edge or 0
    return [(37, 53), (edge + 101, edge + 33)]
