"""A small COCO folder and the fake detector for the tests of the stages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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
