"""The views of test-time augmentation: what a detector sees of an image when its detections are to be fused
(`frozen_cache.evaluation.fusion`). Nothing is drawn at random.

Mirroring is the field's standard. Overlapping tiles show small objects larger, as slicing aided inference has it (SAHI,
Akyon et al. 2022). Their side was chosen on coco_mini's training images (decision 012).
"""

from __future__ import annotations

from frozen_cache.data.view import ViewTransform
from frozen_cache.data.views import make_view, not_empty
from frozen_cache.detectors.input_rule import InputRule

TILE = 0.6
"""Side of a tile over that of the image, each way."""
_TILES = ((0.0, 0.0, True), (1.0, 0.0, False), (0.0, 1.0, False), (1.0, 1.0, True), (0.5, 0.5, False))
"""Place of a tile, 0 at the left or top, 1 at the right or bottom, and whether it is mirrored."""
TTA_VIEWS = 2 + len(_TILES)
"""Views of each image."""


def view_transform(
    rule: InputRule, original_size: tuple[int, int], *, image_id: int, view_index: int, tta: bool
) -> ViewTransform:
    """One view of an image: of test-time augmentation, or as `make_view` draws it."""
    if tta:
        return tta_view(rule, original_size, view_index=view_index)
    return make_view(rule, original_size, image_id=image_id, view_index=view_index)


def tta_view(rule: InputRule, original_size: tuple[int, int], *, view_index: int) -> ViewTransform:
    """One of the TTA_VIEWS of an image: 0 is the plain resize, 1 the same mirrored, the others are tiles: the corners,
    of which two are mirrored, and the centre. A tile is resized as an image of its size would be.

    Args:
        rule: the detector's input rule.
        original_size: (height, width) in pixels.
    """
    height, width = original_size
    flip, crop = view_index == 1, (0, 0, width, height)
    if view_index > 1:
        across, down, flip = _TILES[view_index - 2]
        tile_height, tile_width = max(1, round(TILE * height)), max(1, round(TILE * width))
        x0, y0 = int(across * (width - tile_width)), int(down * (height - tile_height))
        crop = (x0, y0, x0 + tile_width, y0 + tile_height)
    size = rule.resized_size(height=crop[3] - crop[1], width=crop[2] - crop[0])
    return ViewTransform(original_size=original_size, crop=crop, flip=flip, resized_size=not_empty(size))
