"""`evaluate --baseline prompted`: a prompted model's masks of the detector's boxes, their scores and cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

import frozen_cache
from frozen_cache.boxes import to_pixels
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import exit_code
from frozen_cache.data.segmentation import segmentation_to_rle
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.visualize import visualize

from .prompters import use

RESULTS = "segm_results.json"


class Corners:
    """Marks a box by its upper left and lower right pixels and by one far outside, and the first pixel's colour."""

    name, sha256, parameters = "hf:corners", "7" * 64, 1234

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, picture: Image.Image, boxes: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        self.calls.append(len(boxes))
        assert boxes.dtype == np.float32 and len(np.unique(boxes, axis=0)) == len(boxes)
        for box in boxes:
            logits = torch.full((1, picture.height, picture.width), -1.0)
            for x, y in pixels(box, (picture.height, picture.width)):
                logits[0, y, x] = 1.0
            yield logits, torch.ones(1)


def pixels(box: np.ndarray, size: tuple[int, int]) -> set[tuple[int, int]]:
    """(x, y) of what `Corners` marks."""
    x0, y0, x1, y1 = (int(value) for value in box)
    far = (0, size[0] - 1)
    return {(min(x0, size[1] - 1), min(y0, size[0] - 1)), (min(x1, size[1] - 1), min(y1, size[0] - 1)), far}


@pytest.fixture
def corners(monkeypatch: pytest.MonkeyPatch) -> Corners:
    prompter = Corners()
    use(monkeypatch, prompter, "segmenter")
    return prompter


def test_each_detection_has_the_mask_of_its_box_and_its_own_score(
    recomputed: Path, tmp_path: Path, corners: Corners
) -> None:
    result = evaluate(cache=recomputed, out=tmp_path / "out", baseline="prompted", prompter="hf:x", workers=0)
    found = json.loads((tmp_path / "out" / RESULTS).read_text())
    boxes = json.loads((tmp_path / "out" / "bbox_results.json").read_text())
    reader, at = CacheReader(recomputed), 0
    for index, (image, number) in enumerate(reader.views):
        if number:
            continue
        view = reader.read(index, encoder_layers=(), c1=False)
        size = view.transform.original_size
        corner = to_pixels(view.boxes[: view.selected], size).numpy().clip(0, [size[1], size[0]] * 2)
        for row in range(view.selected):
            entry = found[at]
            assert (entry["image_id"], entry["score"]) == (image, boxes[at]["score"])
            assert entry["segmentation"]["size"] == list(size)
            there = np.argwhere(coco_mask.decode(entry["segmentation"]))
            assert {(x, y) for y, x in there.tolist()} == pixels(corner[row], size)
            at += 1
    assert at == len(found) > 0
    assert result.what == "baseline: hf:corners prompted with the boxes"
    of = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert of["of"]["sha256"] == "7" * 64
    assert of["cost"]["parameters"] == 1234 and of["cost"]["seconds_an_image"] > 0 and of["cost"]["device"] == "cpu"
    assert "the prompted model: 1,234 parameters, " in result.table() and "seconds an image (cpu" in result.table()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1,234" in page and "seconds an image" in page


class Truth:
    """Answers with the true mask that overlaps the box the most; what a filled box loses is then the boxes' alone."""

    name, sha256, parameters = "hf:truth", "8" * 64, 1

    def __init__(self, scenes: Path) -> None:
        content = json.loads((scenes / "annotations.json").read_text())
        self.masks: dict[bytes, list[np.ndarray]] = {}
        for entry in content["images"]:
            with Image.open(scenes / "images" / entry["file_name"]) as image:
                size = {"height": entry["height"], "width": entry["width"]}
                own = [a["segmentation"] for a in content["annotations"] if a["image_id"] == entry["id"]]
                rles = [segmentation_to_rle(segmentation, **size) for segmentation in own]
                self.masks[image.convert("RGB").tobytes()] = [coco_mask.decode(rle) for rle in rles]

    def __call__(self, picture: Image.Image, boxes: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        masks = self.masks[picture.tobytes()]
        tight = coco_mask.toBbox([coco_mask.encode(np.asfortranarray(mask)) for mask in masks])
        asked = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)
        best = coco_mask.iou(asked, tight, [0] * len(tight)).argmax(1)
        yield torch.from_numpy(np.stack([masks[at] for at in best])).float() - 0.5, torch.ones(len(boxes))


def test_true_masks_give_nearly_the_boxes_ap_and_compare_beside_other_baselines(
    scenes: Path, recomputed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Truth(scenes), "segmenter")
    boxed = evaluate(cache=recomputed, out=tmp_path / "boxes", baseline="box", workers=0)
    result = frozen_cache.evaluate(
        recomputed,
        out=tmp_path / "out",
        baseline="prompted",
        prompter="hf:x",
        workers=0,
        compare=[tmp_path / "boxes"],
        ladder=True,
    )
    assert result.metrics["segm"]["AP"] >= result.metrics["bbox"]["AP"] > boxed.metrics["segm"]["AP"]
    assert result.summary["mean_iou"]["all"] > 0.95
    assert [row.name for row in result.compared] == [result.what, str(tmp_path / "boxes")]
    assert result.summary["ladder"]["true masks in the boxes"]["AP"] <= result.metrics["segm"]["AP"]
    made = visualize(cache=recomputed, out=tmp_path / "pictures", baseline="prompted", prompter="hf:x", limit=1)
    assert made.pictures >= 3 and list((tmp_path / "pictures" / "probabilities").iterdir())


def test_what_is_missing_is_one_line(
    scenes: Path, stored: Path, tmp_path: Path, corners: Corners, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = shutil.copytree(stored, tmp_path / "copy.zarr")
    hints = (cache / "hints.json").rename(tmp_path / "hints.json")

    def said(*options: Any, command: str = "evaluate") -> str:
        given = [command, "--cache", str(cache), "--out", str(tmp_path / "out"), *map(str, options)]
        assert exit_code(given) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    both = ("--baseline", "prompted", "--prompter", "hf:x")
    assert "go together" in said(*both[:2])
    assert "go together" in said("--baseline", "box", *both[2:])
    assert "go together" in said(*both[:2], command="visualize")
    assert "3 of 3 are not at hand, the first is image" in said(*both)
    assert "leave them out" in said(*both, "--views", "2")
    assert "leave them out" in said(*both, "--guided")
    assert "--roi-sizes is for heads" in said(*both, "--roi-sizes", "16")
    assert not (tmp_path / "out").exists()
    hints.rename(cache / "hints.json")
    (images := tmp_path / "images").mkdir()
    for file in (scenes / "images").iterdir():
        Image.new("RGB", (5, 5)).save(images / file.name)
    assert "is not at hand: give --images FOLDER" in said(*both, "--images", images)
