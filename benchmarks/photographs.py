"""The README's photographs: a cup, a cat and an astronaut, segmented by DEIMv2-Atto with a head trained on coco_mini.

    python benchmarks/photographs.py --model RUN [--threshold 0.5]

RUN is a run of the `small-data` preset, as real_coco.py trains it. The pictures come with scikit-image (`pip install
scikit-image`), which states that they are free of copyright; none of them was in any data set here. Makes
docs/photographs.jpg and prints what is on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from skimage import data

from frozen_cache import InstanceSegmenter
from frozen_cache.report.overlay import draw_instances

OUT = Path(__file__).parents[1] / "docs" / "photographs.jpg"
NAMES = ("coffee", "chelsea", "astronaut")
HEIGHT, GAP = 400, 8


def main() -> None:
    """Segment the three and put them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threshold", type=float, default=0.5)
    options = parser.parse_args()
    segmenter = InstanceSegmenter.load(options.model, device="cpu", guided=True)
    tiles = []
    for name in NAMES:
        picture = Image.fromarray(getattr(data, name)())
        found = segmenter(picture, threshold=options.threshold)
        scores = found.scores.tolist()
        print(f"{name}: {', '.join(f'{what} {score:.2f}' for what, score in zip(found.names, scores, strict=True))}")
        drawn = draw_instances(picture, masks=found.masks, names=found.names, scores=scores)
        tiles.append(drawn.resize((round(drawn.width * HEIGHT / drawn.height), HEIGHT), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (sum(tile.width + GAP for tile in tiles) - GAP, HEIGHT), (255, 255, 255))
    left = 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width + GAP
    sheet.save(OUT, quality=88, optimize=True)
    print(f"{OUT}, {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
