"""One cache, several processes of torchrun, and one that comes late."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.ledger import committed_segments
from frozen_cache.stages.extract import extract_features

from .test_extract import FAKE, tree


def test_two_processes_of_torchrun_and_a_third_that_comes_late(fake: ModuleType, tmp_path: Path) -> None:
    images, annotations = fake.write_folder(tmp_path / "data", images=20)
    out, gate = tmp_path / "x.zarr", tmp_path / "gate"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "frozen_cache", "extract-features", "--detector", f"{FAKE}:gated", "--images", str(images)]
    command += ["--annotations", str(annotations), "--out", str(out), "--segment-images", "2", "--batch-size", "1"]
    command += ["--workers", "1", "--device", "cpu"]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        both = subprocess.Popen(
            [*launcher, *command], stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"GATE": str(gate)}
        )
    try:
        deadline = time.monotonic() + 300
        while not (out / "ledger").is_dir() or not {0, 1} <= set(committed_segments(out)):  # one of each
            assert both.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.05)
        options = {"segment_views": 2, "batch_size": 1, "workers": 1, "device": "cpu"}
        late = extract_features(detector=f"{FAKE}:gated", images=images, annotations=annotations, out=out, **options)
        gate.touch()
        assert both.wait() == 0, log.read_text()[-2000:]
    finally:
        both.kill()
        both.wait()
    assert late.views > 0 and late.segments_left > 0
    assert not verify_cache(out).damages and committed_segments(out) == list(range(10))
    extract_features(
        detector=f"{FAKE}:gated", images=images, annotations=annotations, out=tmp_path / "y.zarr", **options
    )
    assert tree(out) == tree(tmp_path / "y.zarr")
