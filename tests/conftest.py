"""Fixtures for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

SHARED = Path(__file__).parents[2] / "shared"
LONGEST_FIRST = ("test_demo", "test_real_coco", "test_package", "test_train", "test_train_numbers", "test_onnx")
"""Files that one worker is busy with for minutes: begun at the end, they would keep the others waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first; all others keep their order."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one worker of a run makes, and all of them use."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


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
    return _made_once(tmp_path_factory, "demo", _make_demo)


def _make_demo(out: Path) -> None:
    command = [Path(sys.executable).with_name("frozen-cache"), "demo", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mask AP of the trained head" in done.stdout


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the demo's drawn scenes: `images`, `annotations.json`."""
    return _made_once(tmp_path_factory, "scenes", _write_scenes)


def _write_scenes(folder: Path) -> None:
    from frozen_cache.demo import write_scenes

    write_scenes(folder, images=3, seed=7)


@pytest.fixture(scope="session")
def scene_cache(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """Their cache by the demo's detector, a backbone map added."""
    return _made_once(tmp_path_factory, "scenes.zarr", lambda cache: _extract_scenes(scenes, cache))


def _extract_scenes(scenes: Path, cache: Path) -> None:
    from frozen_cache.demo import DETECTOR_DIR
    from frozen_cache.stages.extract import extract_features

    extract_features(
        detector=f"hf:{DETECTOR_DIR}",
        images=scenes / "images",
        annotations=scenes / "annotations.json",
        out=cache,
        backbone_strides=(8,),
    )


@pytest.fixture(scope="session")
def scene_run(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Path:
    """A head trained on it for a moment, and evaluated."""
    return _made_once(tmp_path_factory, "scenes-run", lambda run: _train_on_scenes(scene_cache, run))


def _train_on_scenes(cache: Path, run: Path) -> None:
    from frozen_cache.stages.train import train_head

    small = {"head.width": 16, "head.roi_size": 16, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}
    train_head(cache=cache, val_cache=cache, out=run, overrides=small | {"optim.epochs": 1})
