"""docs/edges.png: masks of one head on pictures of the demo, as they are and with the guided filter, beside the truth.

    python benchmarks/edges.py --demo FOLDER

FOLDER is what `frozen-cache demo --out FOLDER` made. The first object of each of the first scenes is shown, the head's
best detection of it, whatever it looks like.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

from frozen_cache.inference.instances import Instances
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.report.overlay import draw_instances

OUT = Path(__file__).parents[1] / "docs" / "edges.png"
SCENES, SIDE, MARGIN, GAP = 4, 260, 0.15, 6
COLOUR = {"": (255, 196, 0)}


def best(found: Instances, true: np.ndarray) -> tuple[np.ndarray, float]:
    """The mask whose IoU with an object is the highest, and that IoU."""
    ious = [float((mask & true).sum() / max(1, (mask | true).sum())) for mask in found.masks]
    at = int(np.argmax(ious))
    return found.masks[at], ious[at]


def panel(picture: Image.Image, mask: np.ndarray, window: tuple[int, int, int, int]) -> Image.Image:
    """The part of a picture with a mask on it, enlarged."""
    zoom = SIDE / (window[2] - window[0])
    size = (round(picture.width * zoom), round(picture.height * zoom))
    large = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    drawn = draw_instances(
        picture.resize(size, Image.Resampling.BICUBIC), masks=np.asarray(large)[None], names=[""], colours=COLOUR
    )
    left, top = round(window[0] * zoom), round(window[1] * zoom)
    return drawn.crop((left, top, left + SIDE, top + SIDE))


def rows(demo: Path) -> list[tuple[Image.Image, list[np.ndarray], list[float], tuple[int, int, int, int]]]:
    """Picture, masks (as they are, guided, true), IoUs, square window of each scene's first object."""
    scenes = COCO(demo / "val" / "annotations.json")
    segmenters = [InstanceSegmenter.load(demo / "head", device="cpu", guided=guided) for guided in (False, True)]
    found = []
    for entry in scenes.dataset["images"][:SCENES]:
        picture = Image.open(demo / "val" / "images" / entry["file_name"]).convert("RGB")
        thing = scenes.imgToAnns[entry["id"]][0]
        true = scenes.annToMask(thing).astype(bool)
        pairs = [best(segmenter(picture, threshold=0), true) for segmenter in segmenters]
        x, y, w, h = thing["bbox"]
        side = min(round(max(w, h) * (1 + 2 * MARGIN)), *picture.size)
        left = min(max(0, round(x + w / 2 - side / 2)), picture.width - side)
        top = min(max(0, round(y + h / 2 - side / 2)), picture.height - side)
        found.append((picture, [*(mask for mask, _ in pairs), true], [iou for _, iou in pairs],
                      (left, top, left + side, top + side)))  # fmt: skip
    return found


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, required=True)
    given = parser.parse_args()
    lines = rows(given.demo)
    sheet = Image.new("RGB", (3 * (SIDE + GAP) - GAP, len(lines) * (SIDE + GAP) - GAP), "white")
    for line, (picture, masks, ious, window) in enumerate(lines):
        for column, mask in enumerate(masks):
            sheet.paste(panel(picture, mask, window), (column * (SIDE + GAP), line * (SIDE + GAP)))
        print(f"IoU {ious[0]:.3f}, guided {ious[1]:.3f}")
    sheet.save(OUT, optimize=True)
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
