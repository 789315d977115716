"""From an official checkpoint to masks, on the command line: `--detector NAME --weights FILE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import exit_code
from frozen_cache.data.images import ImageReader
from frozen_cache.data.views import apply_view
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.run import run_detector

SMALL = {"head.width": 16, "head.roi_size": 16, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}


def run(*words: object) -> int:
    return exit_code([str(word) for word in words])


def test_the_command_line_takes_an_official_checkpoint_from_extraction_to_masks(
    kit: Any, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As training leaves it: `{"ema": {"module": ...}}`, three classes without names, stored anchors of 128 pixels."""
    monkeypatch.chdir(tmp_path)
    file = kit.save(tmp_path, kit.state("rtdetr") | {"decoder.anchors": torch.zeros(1, 336, 4)}, "ema.module")
    names = [each["name"] for each in json.loads((scenes / "annotations.json").read_text())["categories"][:3]]
    data = ["--images", scenes / "images", "--annotations", scenes / "annotations.json", "--out", "x.zarr"]
    options = [*data, "--precision", "float32", "--only", ",".join(names), "--detector", "rtdetr-r18"]
    assert run("extract-features", *options) == 2
    assert "rtdetr-r18 needs its checkpoint: add --weights FILE" in capsys.readouterr().err
    assert run("extract-features", *options, "--weights", file) == 2
    assert "3 labels without names" in capsys.readouterr().err
    assert run("extract-features", *options, "--weights", file, "--labels", ",".join(names)) == 0

    reader, detector = CacheReader("x.zarr"), load_detector("rtdetr-r18", weights=file)
    assert reader.attributes.detector == detector.spec
    view = reader.read(0)
    images = json.loads((scenes / "annotations.json").read_text())["images"]
    names_of_files = {image["id"]: image["file_name"] for image in images}
    picture = ImageReader().read(scenes / "images" / names_of_files[view.image_id])
    pixels = apply_view(picture, view.transform, detector.spec.input)[None]
    whole = run_detector(detector, pixels, device=torch.device("cpu"))
    apart = (view.queries[:, None] - whole.queries[0][None]).abs().amax(dim=-1)
    assert apart.min(dim=1).values.max() < 1e-4

    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    assert run("train-head", "--cache", "x.zarr", "--out", "run", "--epochs", 1, *settings) == 0
    [first, *_] = sorted((scenes / "images").iterdir())
    assert run("predict", "--model", "run", first, "--out", "masks", "--threshold", 0) == 0
    found = json.loads(Path("masks/segm_results.json").read_text())
    assert found
    file.rename("moved.pth")
    assert run("predict", "--model", "run", first, "--out", "again", "--threshold", 0) == 2
    assert "--weights" in capsys.readouterr().err
    moved = ["--detector", "rtdetr-r18", "--weights", "moved.pth"]
    assert run("predict", "--model", "run", *moved, first, "--out", "again", "--threshold", 0) == 0
    assert json.loads(Path("again/segm_results.json").read_text()) == found
