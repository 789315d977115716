"""A small COCO folder and the fake detector for the tests of the stages."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.stages.extract import extract_features

FAKE = Path(__file__).parent / "fake_detector.py"


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    """The module `fake_detector`."""
    spec = importlib.util.spec_from_file_location("fake_detector", FAKE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(fake: ModuleType, tmp_path: Path) -> tuple[Path, Path]:
    """(image folder, annotation file) of seven images."""
    return fake.write_folder(tmp_path / "data")


@pytest.fixture(scope="session")
def extract_scenes(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a cache of the three scenes, in float32, with an added map of stride 8 and two views an image."""

    def make(name: str, **options: Any) -> Path:
        out = options.pop("out", None) or tmp_path_factory.mktemp("recomputed") / f"{name}.zarr"
        options = {"backbone_strides": (8,), "views": 2, "precision": "float32", "segment_views": 4} | options
        extract_features(
            detector=f"hf:{DETECTOR_DIR}",
            images=options.pop("images", scenes / "images"),
            annotations=scenes / "annotations.json",
            out=out,
            device="cpu",
            **options,
        )
        return out

    return make


@pytest.fixture(scope="session")
def stored(extract_scenes: Callable[..., Path]) -> Path:
    """Such a cache with stored maps."""
    return extract_scenes("stored")


@pytest.fixture(scope="session")
def recomputed(extract_scenes: Callable[..., Path]) -> Path:
    """Such a cache with image files and a stem. Not to be changed."""
    return extract_scenes("recomputed", c1="recomputed")
