"""What the cache's precision costs: bytes a view, and mask AP of one head read from float32, float16 and int8 maps.

    python benchmarks/precision.py --work FOLDER

FOLDER is that of real_coco.py; its `small-data` head of seed 0, trained on float16 maps, is trained first if it is not
there. Results: benchmarks/precision.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

from real_coco import RECIPES, caches, extract, run_folder, trained

from frozen_cache.cache.attributes import Precision
from frozen_cache.stages.evaluate import evaluate

RESULT = Path(__file__).with_suffix(".json")
RECIPE, SEED = "small-data", 0


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    train, val = caches(given.work)
    trained(given.work, train, val, RECIPE, RECIPES[RECIPE], SEED)
    rows: list[dict[str, Any]] = []
    for precision in get_args(Precision):
        cache = val if precision == "float16" else given.work / f"val-{precision}.zarr"
        images = extract(cache, "val", views=1, precision=precision).images
        out = given.work / f"precision-{precision}"
        if not (out / "metrics.json").is_file():
            evaluate(cache=cache, head=run_folder(given.work, RECIPE, SEED) / "run", out=out)
        size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
        metrics = json.loads((out / "metrics.json").read_text())
        rows.append({"precision": precision, "bytes_per_view": size // images, "mask_ap": metrics["segm"]["AP"]})
        print(f"{precision}: {rows[-1]['bytes_per_view'] / 1e6:.2f} MB a view, mask AP {rows[-1]['mask_ap']:.4f}")
    RESULT.write_text(json.dumps({"conditions": {"recipe": RECIPE, "seed": SEED}, "rows": rows}, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
