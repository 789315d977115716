"""A folder of images, their cache by the fake detector, and a head trained on it for a moment."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head

FAKE = Path(__file__).parents[2] / "stages" / "fake_detector.py"
SMALL: dict[str, Any] = {
    "head.width": 16,
    "head.roi_size": 16,
    "head.image_width": 16,
    "head.image_layers": 1,
    "head.box_layers": 1,
    "optim.epochs": 1,
    "optim.batch_size": 2,
    "loss.points": 16,
}


@dataclass(frozen=True)
class Trained:
    """What a user has after training."""

    images: Path
    annotations: Path
    cache: Path
    run: Path


def with_id_0(annotations: Path, image_id: int, out: Path) -> Path:
    """Annotations of one image alone, as if its id were 0: what the views of a picture in `predict` depend on."""
    whole = json.loads(annotations.read_text())
    images = [image | {"id": 0} for image in whole["images"] if image["id"] == image_id]
    objects = [each | {"image_id": 0} for each in whole["annotations"] if each["image_id"] == image_id]
    out.write_text(json.dumps(whole | {"images": images, "annotations": objects}))
    return out


@pytest.fixture(scope="session")
def fake_module() -> ModuleType:
    """The module `fake_detector`."""
    spec = importlib.util.spec_from_file_location("fake_detector", FAKE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def trained(fake_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Seven images of uneven size, a float32 cache made one image at a time, a run."""
    folder = tmp_path_factory.mktemp("trained")
    images, annotations = fake_module.write_folder(folder / "data")
    cache, run = folder / "train.zarr", folder / "run"
    extract_features(
        detector=f"{FAKE}:uneven",
        images=images,
        annotations=annotations,
        out=cache,
        precision="float32",
        batch_size=1,
    )
    train_head(cache=cache, out=run, overrides=SMALL)
    return Trained(images, annotations, cache, run)
