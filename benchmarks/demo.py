"""The demo's figures: runs `frozen-cache demo` into a folder and keeps its summary as benchmarks/demo.json.

python benchmarks/demo.py --out FOLDER
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from frozen_cache.stages.demo import run_demo

RESULT = Path(__file__).with_suffix(".json")


def main() -> None:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    summary = run_demo(out=parser.parse_args().out)
    print(summary.table())
    RESULT.write_text(json.dumps(asdict(summary), indent=2) + "\n")


if __name__ == "__main__":
    main()
