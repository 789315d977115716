"""A cache of a few random views for the tests of training."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from frozen_cache.stages.extract import extract_features

sys.path.append(str(Path(__file__).parent))  # for random_steps
FAKE = Path(__file__).parents[2] / "stages" / "fake_detector.py"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of seven images, two views each."""
    return _extracted(tmp_path_factory.mktemp("cache"), "detector")


@pytest.fixture(scope="session")
def recomputed_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images with a detector that offers its stem, from which C1 is recomputed."""
    return _extracted(tmp_path_factory.mktemp("recomputed"), "with_stem", c1="recomputed")


@pytest.fixture(scope="session")
def weak_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `recomputed_cache`, with boxes in place of half of the masks, and points in place of a few."""
    return _extracted(tmp_path_factory.mktemp("weak"), "with_stem", weak=True, c1="recomputed")


def _weaken(annotations: Path) -> None:
    content = json.loads(annotations.read_text())
    for entry in content["annotations"]:
        if not entry["iscrowd"] and entry["id"] % 4:
            del entry["segmentation"]
            x, y, width, height = entry["bbox"]
            if entry["id"] % 4 == 1:
                entry |= {"point_coords": [[x + width / 2, y + height / 2], [x, y]], "point_labels": [1, 0]}
    annotations.write_text(json.dumps(content))


def _extracted(folder: Path, factory: str, *, weak: bool = False, **options: Any) -> Path:
    spec = importlib.util.spec_from_file_location("fake_detector_of_trainer", FAKE)
    assert spec is not None and spec.loader is not None
    fake: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    images, annotations = fake.write_folder(folder / "data")
    if weak:
        _weaken(annotations)
    out = folder / "train.zarr"
    extract_features(
        detector=getattr(fake, factory)(), images=images, annotations=annotations, out=out, views=2, **options
    )
    return out


@pytest.fixture(scope="module")
def unplotted() -> Iterator[None]:
    """Trainings leave no plots and pages: these take longer than a training of a few steps."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("plot_run", "run_page", "write_page"):
            patched.setattr(f"frozen_cache.stages.train.{name}", lambda *arguments, **options: None)
        yield
