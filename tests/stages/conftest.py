"""A small COCO folder and the fake detector for the tests of the stages."""

from __future__ import annotations

import importlib.util
import logging
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.remote import RemotePath
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


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of a server of the S3 protocol of our own, on a port that is free."""
    pytest.importorskip("obstore", reason="caches in object stores need the extra `remote` (obstore)")
    server = pytest.importorskip("moto.server", reason="the S3 server of these tests comes with the extra `dev` (moto)")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> RemotePath:
    """A bucket of this test alone; what obstore is told comes from the environment, as for a user."""
    given = {"ENDPOINT_URL": endpoint, "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in (given | {"REGION": "us-east-1"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    name = f"b{uuid.uuid4().hex}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")).close()
    return RemotePath(f"s3://{name}/some/where")


@pytest.fixture
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings leave no plots and pages: these take longer than a training of a few steps."""
    for name in ("plot_run", "run_page", "write_page"):
        monkeypatch.setattr(f"frozen_cache.stages.train.{name}", lambda *arguments, **options: None)
