"""A head on the demo's detector, trained for a moment, and what `export` makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frozen_cache.demo import DETECTOR_DIR, write_scenes
from frozen_cache.stages.export import export_model
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head

SMALL: dict[str, Any] = {
    "head.width": 16,
    "head.roi_size": 16,
    "head.image_layers": 0,
    "head.box_layers": 1,
    "optim.epochs": 1,
    "loss.points": 16,
}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn scenes: `images`, `annotations.json`."""
    folder = tmp_path_factory.mktemp("export") / "scenes"
    write_scenes(folder, images=3, seed=7)
    return folder


@pytest.fixture(scope="session")
def run(scenes: Path) -> Path:
    """A run on the demo's detector, evaluated, with a backbone map added."""
    cache, out = scenes.parent / "x.zarr", scenes.parent / "run"
    extract_features(
        detector=f"hf:{DETECTOR_DIR}",
        images=scenes / "images",
        annotations=scenes / "annotations.json",
        out=cache,
        backbone_strides=(8,),
    )
    train_head(cache=cache, val_cache=cache, out=out, overrides=SMALL)
    return out


@pytest.fixture(scope="session")
def exported(run: Path) -> Path:
    """The exported folder."""
    return export_model(run=run, out=run.parent / "model", license="CC0-1.0").out
