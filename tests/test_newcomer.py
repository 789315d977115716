"""A newcomer's path, from the demo's head to masks on a picture of his own and on a colleague's computer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.cli.main import exit_code
from frozen_cache.demo import DETECTOR_DIR, write_scenes
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "onnx_predict.py"
ELSEWHERE = """
import json, socket, sys
def refuse(*arguments, **options):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from frozen_cache import InstanceSegmenter
print(json.dumps(InstanceSegmenter.load("model", device="cpu")("picture.jpg").to_coco(1)))
"""


def run(*command: object, at: Path, **environment: str) -> str:
    """The output of a command that must succeed; through its pipe go lines, none written over."""
    done = subprocess.run(
        [str(part) for part in command], cwd=at, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "\r" not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of neither of the demo's sets."""
    folder = tmp_path_factory.mktemp("new")
    write_scenes(folder / "scene", images=1, seed=41_000)
    return next((folder / "scene" / "images").iterdir())


def test_masks_on_a_new_picture_are_the_same_here_and_on_a_colleague_s_computer(demo, picture, tmp_path):
    command = Path(sys.executable).with_name("frozen-cache")
    said = run(command, "predict", "--model", demo / "head", picture, "--out", "masks", at=tmp_path)
    assert "instances in 1 picture, " in said
    results = json.loads((tmp_path / "masks" / "segm_results.json").read_text())
    assert len(results) >= 2
    with Image.open(tmp_path / "masks" / "overlays" / f"{picture.stem}.jpg") as drawn, Image.open(picture) as original:
        assert drawn.size == original.size
    said = run(command, "export", "--run", demo / "head", "--out", "model", at=tmp_path)
    assert "predict --model model" in said
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "model").rename(elsewhere / "model")
    shutil.copy(picture, elsewhere / "picture.jpg")
    nobody = {"HF_HUB_OFFLINE": "1", "HOME": str(elsewhere), "HF_HOME": str(elsewhere / "hf")}
    assert json.loads(run(sys.executable, "-c", ELSEWHERE, at=elsewhere, **nobody)) == results
    run(command, "predict", "--model", "model", "picture.jpg", "--out", "out", at=elsewhere, **nobody)
    assert json.loads((elsewhere / "out" / "segm_results.json").read_text()) == results
    card = (elsewhere / "model" / "README.md").read_text()
    assert "horseshoe" in card and "annotations.json, 240 images" in card


def test_the_head_is_looked_at_on_pictures_of_his_own(demo, picture, tmp_path):
    scene = picture.parents[1]
    cache = tmp_path / "new.zarr"
    extract_features(
        detector=f"hf:{DETECTOR_DIR}", images=scene / "images", annotations=scene / "annotations.json", out=cache
    )
    command = ["visualize", "--cache", cache, "--head", demo / "head", "--out", tmp_path / "look", "--device", "cpu"]
    assert exit_code([str(part) for part in command]) == 0
    [sheet] = (tmp_path / "look" / "probabilities").iterdir()
    [best] = (tmp_path / "look" / "best").iterdir()
    with Image.open(sheet) as maps, Image.open(best) as pair, Image.open(picture) as original:
        assert maps.width >= 2 * original.width and pair.width >= 2 * original.width
    page = (tmp_path / "look" / "index.html").read_text()
    assert page.count("data:image/") >= 2


def test_the_graph_gives_the_same_masks_without_torch(demo, picture, tmp_path):
    assert exit_code(["export", "--run", str(demo / "head"), "--out", str(tmp_path / "graph"), "--format", "onnx",
                      "--check", str(picture)]) == 0  # fmt: skip
    record = json.loads((tmp_path / "graph" / "onnx.json").read_text())
    assert max(record["differences"].values()) <= 1e-3
    said = run(sys.executable, EXAMPLE, "graph", picture, "masks", 0.3, at=tmp_path)
    found = [line.split() for line in said.splitlines()]
    expected = InstanceSegmenter.load(demo / "head", device="cpu")(picture, threshold=0.3)
    assert [line[0] for line in found] == expected.names and len(found) >= 2
    assert [float(line[1]) for line in found] == pytest.approx(expected.scores.tolist(), abs=1e-3)
    for place, (line, box, mask) in enumerate(zip(found, expected.boxes, expected.masks, strict=True)):
        assert [float(side) for side in line[2:]] == pytest.approx(box.tolist(), abs=1e-3 * max(mask.shape))
        other = np.asarray(Image.open(tmp_path / "masks" / f"{place}.png"))
        assert (other & mask).sum() / (other | mask).sum() > 0.99


@pytest.mark.parametrize(("precision", "step"), [("float16", None), ("int8", None), ("coded", None), ("coded", 2.2)])
def test_masks_of_the_picture_are_those_that_a_cache_gives(demo, tmp_path, precision, step):
    """For a head that was trained from a cache of this kind."""
    write_scenes(tmp_path / "scenes", images=6, seed=42_000)
    annotations = tmp_path / "scenes" / "annotations.json"
    cache, run = tmp_path / "x.zarr", tmp_path / "run"
    extract_features(
        detector=f"hf:{DETECTOR_DIR}",
        images=tmp_path / "scenes" / "images",
        annotations=annotations,
        out=cache,
        precision=precision,
        step=step,
    )
    train_head(cache=cache, out=run, preset="demo", init=demo / "head", overrides={"optim.epochs": 1})
    evaluate(cache=cache, head=run, out=tmp_path / "results", device="cpu")
    cached = json.loads((tmp_path / "results" / "segm_results.json").read_text())
    segmenter = InstanceSegmenter.load(run, device="cpu")
    ious = []
    for image in json.loads(annotations.read_text())["images"]:
        found = segmenter(tmp_path / "scenes" / "images" / image["file_name"], threshold=0).to_coco(image["id"])
        theirs = [entry for entry in cached if entry["image_id"] == image["id"]]
        ious += [iou(*pair) for pair in zip(found, theirs, strict=True) if pair[0]["score"] > 0.3]
    assert len(ious) > 10
    assert min(ious) >= 0.99


def iou(found: dict[str, Any], other: dict[str, Any]) -> float:
    assert found["category_id"] == other["category_id"]
    return float(coco_mask.iou([found["segmentation"]], [other["segmentation"]], [0])[0, 0])
