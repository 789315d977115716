"""The README's photographs: public-domain pictures that scikit-image ships, segmented by a trained head.

    python benchmarks/photographs.py --model RUN [--detector ...] --pictures FOLDER --out docs/photographs.png

FOLDER holds astronaut.png, chelsea.png and coffee.png (`skimage/data` of an installed scikit-image). The run that made
the committed picture is a `small-data` head on the views of 209 COCO images with DEIMv2-Atto, which knows nothing of
these pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from frozen_cache import InstanceSegmenter
from frozen_cache.report.overlay import draw_instances

PICTURES = ("chelsea.png", "coffee.png", "astronaut.png")
HEIGHT, GAP = 360, 8


def main() -> None:
    """Draw each picture with its instances, side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--detector")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--threshold", type=float, default=0.35)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "photographs.jpg")
    given = parser.parse_args()
    segmenter = InstanceSegmenter.load(given.model, detector=given.detector)
    drawn = []
    for name in PICTURES:
        with Image.open(given.pictures / name) as opened:
            image = opened.convert("RGB")
        found = segmenter(image, threshold=given.threshold)
        print(f"{name}: " + ", ".join(f"{n} {s:.2f}" for n, s in zip(found.names, found.scores, strict=True)))
        picture = draw_instances(
            image, masks=found.masks, boxes=found.boxes, names=found.names, scores=found.scores.tolist()
        )
        drawn.append(picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (sum(p.width for p in drawn) + GAP * (len(drawn) - 1), HEIGHT), "white")
    x = 0
    for picture in drawn:
        sheet.paste(picture, (x, 0))
        x += picture.width + GAP
    sheet.save(given.out, quality=88)
    print(f"pictures in {given.out}")


if __name__ == "__main__":
    main()
