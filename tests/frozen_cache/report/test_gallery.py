"""What surrounds a mistake is enlarged first and drawn on then: thin lines and sharp letters, at the right place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.evaluation.mistakes import ImageVerdict, Judged
from frozen_cache.report.gallery import CLOSE_UP, SIDE, Gallery
from frozen_cache.report.photographs import Photographs

GROUND = (90, 90, 90)


def gallery(scale: int) -> Gallery:
    """An image of 100 x 80 pixels times `scale`, with a square of 20 that is missed, at (50, 40)."""
    mask = np.zeros((80, 100), np.uint8)
    mask[40:60, 50:70] = 1
    whole = np.kron(mask, np.ones((scale, scale), np.uint8))
    thing = {"category_id": 1, "segmentation": coco_mask.encode(np.asfortranarray(whole)), "area": int(whole.sum())}
    truth = SimpleNamespace(
        imgs={7: {"height": 80 * scale, "width": 100 * scale}}, cats={1: {"name": ""}}, imgToAnns={7: [thing]}
    )
    picture = Image.new("RGB", (100 * scale, 80 * scale), GROUND)
    photographs = Photographs(None, {}, lambda _: picture)
    results = SimpleNamespace(of_image=lambda _: [])
    return Gallery(SimpleNamespace(truth=truth, results=results, verdicts=[]), photographs)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1, 20])
def test_the_surroundings_of_a_mistake_fill_a_close_up(scale: int) -> None:
    missed = Judged(index=0, kind="missed", partner=None, iou=0.0)
    verdict = ImageVerdict(image_id=7, objects=[missed], detections=[], confusion=[])
    drawn = gallery(scale).mistake(verdict, missed, "missed")
    assert max(drawn.size) == CLOSE_UP
    # the window is x 42 to 78, y 32 to 68: margins of 8 (0.08 of the picture's 100)
    tinted = (np.abs(np.asarray(drawn).astype(int) - GROUND) > 8).any(axis=2)
    rows, columns = (np.flatnonzero(tinted.any(axis=axis)) for axis in (1, 0))
    for found in (rows, columns):
        assert found[0] / CLOSE_UP == pytest.approx(8 / 36, abs=0.02)
        assert (found[-1] + 1) / CLOSE_UP == pytest.approx(28 / 36, abs=0.02)


def test_a_whole_picture_is_reduced_and_never_enlarged() -> None:
    assert gallery(1).picture(7).size == (100, 80)
    assert gallery(20).picture(7).size == (SIDE, SIDE * 4 // 5)
