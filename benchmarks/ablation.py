"""Table 3's variants (box encoders) on the demo's caches: `python benchmarks/ablation.py --work FOLDER`.

The demo's recipe and size instead of the paper's, so that nine trainings take minutes; the minutes are those of the
whole command on an otherwise idle machine. Results: benchmarks/ablation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

from frozen_cache.stages.ablate import ablate
from frozen_cache.stages.demo import run_demo

RESULT = Path(__file__).with_suffix(".json")
OPTIONS = {"optim.epochs": 2, "head.width": 64, "head.roi_size": 16, "head.image_layers": 0}


def main() -> None:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work
    run_demo(out=work / "demo")
    started = time.perf_counter()
    result = ablate(
        cache=work / "demo" / "train.zarr",
        val_cache=work / "demo" / "val.zarr",
        grid="table3",
        out=work / "table3",
        preset="demo",
        overrides=OPTIONS,
    )
    minutes = (time.perf_counter() - started) / 60
    print(f"{result.markdown()}\n\n{minutes:.1f} minutes")
    report = {
        "conditions": {"preset": "demo", "set": OPTIONS, "cores": os.cpu_count(), "machine": platform.machine()},
        "minutes": round(minutes, 1),
        "rows": result.rows,
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
