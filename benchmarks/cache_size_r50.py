"""MB a view of H-DETR R50 at 800 / 1333 on the val images of coco_mini: C1 recomputed, the encoder's levels coded.

    python benchmarks/cache_size_r50.py --work FOLDER [--images N]

The detector has random weights, as no trained ones are at hand: sizes of maps and images, and the bytes of everything
that is stored exactly, are those of any H-DETR R50; the bits a value of its coded levels are not those of trained
weights. Beside them stands what the view takes where the levels are coded like normal noise, which nothing exceeds.
The first N images by id are extracted once, in float16 (15 seconds of a core each; all 206 unless N says less), and
written again at each step. Called again, it goes on; with a larger N the cache grows (`--update`). Results:
benchmarks/cache_size_r50.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cache_size import normal_bits
from conditions import conditions
from extract import make_detector
from real_coco import REAL
from reencode import reencoded

from frozen_cache.cache.reader import CacheReader
from frozen_cache.stages.cache_tools import cache_info
from frozen_cache.stages.extract import extract_features

RESULT = Path(__file__).with_suffix(".json")
NAME = "hdetr-r50"
STEPS = (0.5, 1.0, 1.5, 2.2)
TRAIN2017 = 118_287
"""Images of COCO train2017."""
GOAL, MOONSHOT = 1.8, 1.2
"""MB a view."""


def extract(out: Path, *, images: int) -> None:
    """The cache in float16, with C1 recomputed."""
    data = REAL / "coco_mini"
    extract_features(
        detector=make_detector(NAME, None, None),
        images=data / "val2017",
        annotations=data / "annotations" / "instances_val2017.json",
        out=out,
        c1="recomputed",
        batch_size=1,
        segment_views=16,
        limit=images,
        device="cpu",
        update=out.exists(),
        force=True,  # random weights find nothing
    )


def row(cache: Path) -> dict[str, Any]:
    """MB a view, in all and of each part, and bits a value."""
    found = cache_info(cache).as_json()
    views = found["views"]
    weights = (cache / "stem" / "weights.safetensors").stat().st_size
    mb = found["bytes"] / views / 1e6
    levels = found["arrays"]["encoder/4"]
    noise = (
        levels["bytes"] / views / 1e6 * ((normal_bits(found["step"]) if found["step"] else 16) / levels["bits_a_value"])
    )
    return {
        "precision": found["precision"],
        "step": found["step"],
        "mb_per_view": round(mb, 4),
        "mb_per_view_levels_as_noise": round(mb - levels["bytes"] / views / 1e6 + noise, 4),
        "mb_of": {name: round(each["bytes"] / views / 1e6, 4) for name, each in found["arrays"].items()},
        "bits": {name: each["bits_a_value"] for name, each in found["arrays"].items() if "bits_a_value" in each},
        "stem_mb_once": round(weights / 1e6, 3),
        "gb_train2017": round(mb * TRAIN2017 / 1e3, 1),
        "within_goal": mb <= GOAL,
        "within_moonshot": mb <= MOONSHOT,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=206)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    source = given.work / "r50.zarr"
    extract(source, images=given.images)
    rows = [row(source)]
    for step in STEPS:
        rows.append(
            row(reencoded(source, given.work / f"r50-{given.images}-{step:g}.zarr", precision="coded", step=step))
        )
    info = cache_info(source)
    views = len(CacheReader(source))
    report = {
        "detector": f"{NAME}, random weights: bits a value are not those of trained weights",
        "data": f"coco_mini val, the first {views} of 206 images by id, 800 / 1333",
        "views": views,
        "image_file_mb": round(info.part_bytes["images"] / views / 1e6, 4),
        "c1_float16_mb_saved": round(info.saved_bytes / views / 1e6, 2),
        "rows": rows,
        "goal_mb": GOAL,
        "moonshot_mb": MOONSHOT,
        "conditions": conditions(),
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    for each in rows:
        name = each["precision"] + ("" if each["step"] is None else f" {each['step']:g}")
        print(f"{name}: {each['mb_per_view']} MB a view, bits {each['bits']}, {each['mb_of']}")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
