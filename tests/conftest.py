"""Fixtures for all tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' data beside the checkout; the test is skipped, saying so, where that is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def oracles(shared: Path) -> dict:
    """Outputs of the lineage's public code for small inputs."""
    return torch.load(shared / "parity" / "oracles.pt", weights_only=True)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished demo, made by the command."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [Path(sys.executable).with_name("frozen-cache"), "demo", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mask AP of the trained head" in done.stdout
    return out


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the demo's drawn scenes: `images`, `annotations.json`."""
    from frozen_cache.demo import write_scenes

    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    write_scenes(folder, images=3, seed=7)
    return folder


@pytest.fixture(scope="session")
def scene_cache(scenes: Path) -> Path:
    """Their cache by the demo's detector, a backbone map added."""
    from frozen_cache.demo import DETECTOR_DIR
    from frozen_cache.stages.extract import extract_features

    cache = scenes.parent / "x.zarr"
    extract_features(
        detector=f"hf:{DETECTOR_DIR}",
        images=scenes / "images",
        annotations=scenes / "annotations.json",
        out=cache,
        backbone_strides=(8,),
    )
    return cache


@pytest.fixture(scope="session")
def scene_run(scene_cache: Path) -> Path:
    """A head trained on it for a moment, and evaluated."""
    from frozen_cache.stages.train import train_head

    small = {"head.width": 16, "head.roi_size": 16, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}
    out = scene_cache.parent / "run"
    train_head(cache=scene_cache, val_cache=scene_cache, out=out, overrides=small | {"optim.epochs": 1})
    return out
