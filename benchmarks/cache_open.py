"""What opening a large cache costs: 1,849 segments of 64 views, the size of COCO's train2017.

    python benchmarks/cache_open.py [--segments 1849]

Prints CPU seconds and memory of `CacheReader(path)` in a process of its own, imports left aside; keeps cache_open.json.
The ledger's lines are those of a small real cache, with their image ids and numbers changed; arrays are not opened.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from frozen_cache.cache.attributes import read_attributes
from frozen_cache.cache.ledger import commit_record, committed_segments, read_record, segment_name
from frozen_cache.cache.reader import CacheReader

VIEWS = 64
RESULT = Path(__file__).with_suffix(".json")


def blow_up(source: Path, out: Path, *, segments: int) -> None:
    """A cache with a ledger of many lines, and the folders that they name left out."""
    attributes = read_attributes(source)
    large = attributes.model_copy(update={"views_total": segments * VIEWS, "views_per_segment": VIEWS})
    (out / "ledger").mkdir(parents=True)
    (out / "segments").mkdir()
    (out / "zarr.json").write_bytes(large.root_document())
    shutil.copy(source / "segments" / "zarr.json", out / "segments" / "zarr.json")
    record = read_record(source, committed_segments(source)[0], attributes.fingerprint)
    at = list(range(len(record.image_ids)))
    rows = (at * VIEWS)[:VIEWS]
    for segment in range(segments):
        commit_record(
            out,
            record.model_copy(
                update={
                    "segment": segment,
                    "cache_fingerprint": large.fingerprint,
                    "folder": f"{segment_name(segment)}.bench" if record.folder else "",
                    "image_ids": tuple(segment * VIEWS + n for n in range(VIEWS)),
                    "image_crcs": tuple(record.image_crcs[row] for row in rows) if record.image_crcs else (),
                    "view_indices": tuple(record.view_indices[row] for row in rows),
                    "resized_sizes": tuple(record.resized_sizes[row] for row in rows),
                    "matched": tuple(record.matched[row] for row in rows),
                    "shapes": tuple(record.shapes[row] for row in rows),
                }
            ),
        )


def measure(path: Path) -> dict[str, float]:
    """CPU seconds and growth of the resident memory in MB while a reader is opened."""
    before, started = _resident(), time.process_time()
    reader = CacheReader(path)
    return {
        "cpu_s": round(time.process_time() - started, 3),
        "memory_mb": round(_resident() - before, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "views": len(reader),
    }


def _resident() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize() / 1e6


def main() -> None:
    """Make the ledger, open it three times in fresh processes, keep the median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=1849)
    parser.add_argument("--cache", type=Path, help="A small cache to take lines from.", required=True)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.zarr"
        blow_up(given.cache, path, segments=given.segments)
        command = [sys.executable, __file__, "--cache", str(given.cache), "--measure", str(path)]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(3)
        ]
    middle = sorted(runs, key=lambda run: run["cpu_s"])[1]
    result = {
        "conditions": {
            "segments": given.segments,
            "views": middle["views"],
            "python": platform.python_version(),
            "machine": platform.machine(),
            "limits": {"cpu_s": 0.5, "memory_mb": 30},
        },
        "median": middle,
        "runs": runs,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{given.segments} segments: {middle['cpu_s']:.2f} s of CPU, {middle['memory_mb']:.1f} MB")


if __name__ == "__main__":
    main()
