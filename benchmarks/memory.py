"""Peak memory of extracting one image of 1333 x 800 pixels on the CPU.

    python benchmarks/memory.py --work FOLDER [--only NAME ...]

Each detector runs in a process of its own, from a checkpoint with random weights in the official layout (made in
another process); its peak resident set is the kernel's count for that process, Python, torch and the parts of the
checkpoint that were mapped included. Results: benchmarks/memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from extract import write_images

from frozen_cache.attention.kernels import find_compiled
from frozen_cache.detectors.official import NAMED, OfficialDetector
from frozen_cache.detectors.official.layout import build_model, official_layout
from frozen_cache.stages.extract import extract_features

RESULT = Path(__file__).with_suffix(".json")
SIZE = (800, 1333)
"""Height and width."""
LIMIT_GB = {"hdetr-r50": 4.0, "dino-focalnet-l": 16.0}
TIMEOUT = 1800


def write_checkpoint(name: str, folder: Path) -> None:
    """A checkpoint with random weights as the authors publish theirs, and one image to run on."""
    torch.manual_seed(0)
    model = build_model(NAMED[name].config)
    state = model.state_dict()
    weights = {key: state[entry.own_name].view(entry.shape) for key, entry in official_layout(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": weights}, folder / "weights.pth")
    detector = OfficialDetector(model=model, name=name)
    write_images(folder, count=1, size=SIZE, spec=detector.spec)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Extract and say what the process took at most."""
    started = time.perf_counter()
    extract_features(
        detector=name,
        weights=folder / "weights.pth",
        images=folder / "images",
        annotations=folder / "annotations.json",
        out=folder / "x.zarr",
        device="cpu",
    )
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return {
        "detector": name,
        "peak_gb": round(peak, 2),
        "limit_gb": LIMIT_GB[name],
        "within": peak <= LIMIT_GB[name],
        "seconds": round(time.perf_counter() - started, 1),
    }


def alone(step: Callable[[str, Path], Any], name: str, folder: Path) -> Any:
    """Run a step in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(step, name, folder).result(timeout=TIMEOUT)


def main() -> None:
    """Run, print, and keep the result beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(LIMIT_GB))
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    cases = []
    print(f"{'detector':20}{'peak GB':>9}{'limit':>8}")
    for name in given.only or LIMIT_GB:
        folder = given.work / name
        shutil.rmtree(folder, ignore_errors=True)
        alone(write_checkpoint, name, folder)
        case = alone(measure, name, folder)
        shutil.rmtree(folder)
        cases.append(case)
        print(f"{name:20}{case['peak_gb']:9.2f}{case['limit_gb']:8.1f}")
    conditions = {
        "image_size": list(SIZE),
        "batch_size": 1,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "compiled_attention": find_compiled() is not None,
    }
    given.result.write_text(json.dumps({"conditions": conditions, "cases": cases}, indent=2) + "\n")
    print(f"written to {given.result}")


if __name__ == "__main__":
    main()
