"""Test-time augmentation from the commands on: the cache's views, fused results, the same on pictures, refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache import InstanceSegmenter
from frozen_cache.boxes import to_pixels
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import exit_code
from frozen_cache.data.tta import TTA_VIEWS, tta_view
from frozen_cache.evaluation.fusion import fuse
from frozen_cache.stages.cache_tools import cache_info, cache_repair
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.train import train_head

from .test_average import SMALL
from .test_cache_relabel import assert_same_views


@dataclass(frozen=True)
class Made:
    """Images, their cache of test-time augmentation, one of plain views, a head."""

    detector: str
    images: Path
    annotations: Path
    cache: Path
    plain: Path
    run: Path


@pytest.fixture(scope="module")
def made(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("tta")
    images, annotations = fake.write_folder(folder / "data")
    found = Made(f"{Path(fake.__file__)}:uneven", images, annotations, folder / "tta.zarr", folder / "plain.zarr",
                 folder / "run")  # fmt: skip
    assert exit_code(extraction(found, found.cache, "--tta")) == 0
    assert exit_code(extraction(found, found.plain)) == 0
    train_head(cache=found.plain, out=found.run, overrides=SMALL, device="cpu")
    return found


def extraction(made: Made, out: Path, *options: str) -> list[str]:
    given = ["--detector", made.detector, "--images", str(made.images), "--annotations", str(made.annotations)]
    return ["extract-features", *given, "--out", str(out), "--precision", "float32", "--batch-size", "1", *options]


def results(out: Path, kind: str = "segm") -> list[dict[str, Any]]:
    return json.loads((out / f"{kind}_results.json").read_text())


def test_the_cache_holds_the_views_of_test_time_augmentation(made):
    reader = CacheReader(made.cache)
    assert reader.attributes.tta and reader.attributes.views == TTA_VIEWS
    assert not CacheReader(made.plain).attributes.tta
    assert f"({TTA_VIEWS} per image for test-time augmentation)" in cache_info(made.cache).text()
    assert "(1 per image)" in cache_info(made.plain).text()
    rule = reader.attributes.detector.input
    seen = set()
    for at, (image, number) in enumerate(reader.views):
        transform = reader.read(at, encoder_layers=(), c1=False).transform
        assert transform == tta_view(rule, transform.original_size, view_index=number)
        seen.add((image, number))
    images = {image for image, _ in CacheReader(made.plain).views}
    assert seen == {(image, number) for image in images for number in range(TTA_VIEWS)}


def test_evaluated_boxes_are_those_of_the_views_fused(made, tmp_path, capsys):
    line = ["evaluate", "--cache", str(made.cache), "--head", str(made.run), "--tta", "--out", str(tmp_path / "a")]
    assert exit_code([*line, "--device", "cpu"]) == 0
    assert ", test-time augmentation\n" in capsys.readouterr().out
    reader = CacheReader(made.cache)
    categories = [category["id"] for category in reader.attributes.categories]
    views: dict[int, dict[int, Any]] = {}
    for at, (image, number) in enumerate(reader.views):
        views.setdefault(image, {})[number] = reader.read(at, encoder_layers=(), c1=False)
    several = 0
    for image, by_number in views.items():
        plain, *others = (by_number[number] for number in range(TTA_VIEWS))
        fused = fuse(plain, others)
        several += int(((fused.members[: fused.selected] >= 0).sum(1) > 1).sum())
        mine = [entry for entry in results(tmp_path / "a", "bbox") if entry["image_id"] == image]
        corners = to_pixels(fused.boxes[: fused.selected], plain.transform.original_size)
        assert [entry["category_id"] for entry in mine] == [
            categories[label] for label in fused.labels[: fused.selected].tolist()
        ]
        assert [entry["score"] for entry in mine] == pytest.approx(fused.scores[: fused.selected].tolist())
        expected = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
        torch.testing.assert_close(torch.tensor([entry["bbox"] for entry in mine]), expected, atol=0.01, rtol=0)
    assert several > 5
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["of"]["tta"] is True
    assert "of the frozen detector, views fused" in (tmp_path / "a" / "report.html").read_text()
    assert metrics["mean_iou"]["all"] is not None
    evaluate(cache=made.cache, baseline="box", tta=True, out=tmp_path / "b", device="cpu", ladder=True)
    assert results(tmp_path / "b", "bbox") == results(tmp_path / "a", "bbox")
    evaluate(cache=made.cache, head=made.run, out=tmp_path / "c", device="cpu")
    assert results(tmp_path / "c", "bbox") != results(tmp_path / "a", "bbox")


def test_the_plain_view_of_the_cache_is_that_of_any_other(made, tmp_path):
    for name, cache in (("a", made.cache), ("b", made.plain)):
        evaluate(cache=cache, head=made.run, out=tmp_path / name, device="cpu")
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_the_ladder_and_a_threshold_take_fused_boxes(made, tmp_path):
    found = evaluate(cache=made.cache, head=made.run, tta=True, out=tmp_path / "a", device="cpu", ladder=True)
    assert found.summary["ladder"]["as it is"]["AP"] == pytest.approx(found.metrics["segm"]["AP"])
    every = results(tmp_path / "a", "bbox")
    middle = sorted(entry["score"] for entry in every)[len(every) // 2]
    evaluate(cache=made.cache, head=made.run, tta=True, out=tmp_path / "b", device="cpu", threshold=middle)
    above = results(tmp_path / "b", "bbox")
    assert 0 < len(above) < len(every)
    assert above == [entry for entry in every if entry["score"] >= middle]


def test_pictures_get_the_masks_of_evaluate(made, tmp_path):
    evaluate(cache=made.cache, head=made.run, tta=True, guided=True, out=tmp_path / "a", device="cpu")
    names = {image["id"]: image["file_name"] for image in json.loads(made.annotations.read_text())["images"]}
    segmenter = InstanceSegmenter.load(made.run, device="cpu", tta=True, guided=True)
    pictures = [made.images / name for name in names.values()]
    line = ["predict", "--model", str(made.run), "--tta", "--guided", "--threshold", "0", "--device", "cpu"]
    assert exit_code([*line, "--out", str(tmp_path / "p"), *map(str, pictures)]) == 0
    assert json.loads((tmp_path / "p" / "predict.json").read_text())["tta"] is True
    images = json.loads((tmp_path / "p" / "images.json").read_text())["images"]
    areas = 0
    for image, name in names.items():
        theirs = [entry for entry in results(tmp_path / "a") if entry["image_id"] == image]
        [key] = [entry["id"] for entry in images if Path(entry["file_name"]).name == Path(name).name]
        by_command = [entry for entry in results(tmp_path / "p") if entry["image_id"] == key]
        for found in (segmenter(made.images / name, threshold=0).to_coco(image), by_command):
            assert len(found) == len(theirs)
            for here, there in zip(found, theirs, strict=True):
                assert here["category_id"] == there["category_id"]
                assert here["score"] == pytest.approx(there["score"], abs=1e-5)
                one, other = here["segmentation"], there["segmentation"]
                areas += float(coco_mask.area(other))
                assert not coco_mask.area(other) or coco_mask.iou([one], [other], [0])[0, 0] > 0.99
    assert areas > 0


def test_classes_and_thresholds_choose_among_the_fused(made):
    segmenter = InstanceSegmenter.load(made.run, device="cpu", tta=True)
    picture = sorted(made.images.iterdir())[0]
    every = segmenter(picture, threshold=0)
    some = segmenter(picture, threshold=0, classes=[every.names[0]])
    assert 0 < len(some) <= len(every) and set(some.names) == {every.names[0]}
    assert len(segmenter(picture, threshold=float(every.scores.max()) - 1e-6)) >= 1


def test_a_repair_makes_the_same_views_again(made, tmp_path):
    copy = shutil.copytree(made.cache, tmp_path / "copy.zarr")
    file = max(copy.glob("segments/00000*/c1/c/**/*"), key=lambda path: path.stat().st_size)
    file.write_bytes(bytes(file.stat().st_size))
    assert len(verify_cache(copy).damages) == 1
    cache_repair(copy, device="cpu")
    assert_same_views(made.cache, copy)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tta", "--views", "3"], f"--views 3: --tta makes {TTA_VIEWS} views of each image; leave --views out"),
        (["--tta", "--copy-paste"], "--tta makes views to measure on, --copy-paste views to train on"),
        (["--views", str(TTA_VIEWS)], "--tta"),
    ],
)
def test_an_extraction_that_does_not_fit_is_refused(made, tmp_path, capsys, options, said):
    out = made.cache if "--tta" not in options else tmp_path / "x.zarr"
    assert exit_code(extraction(made, out, *options)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate --cache {plain} --head {run} --tta --out {out}", "--tta, but"),
        ("evaluate --cache {plain} --head {run} --tta --out {out}", "extract them with --tta"),
        ("evaluate --cache {cache} --head {run} --tta --views 2 --out {out}", "--tta fuses the boxes too"),
        ("predict --model {run} --tta --views 2 --out {out} {images}", "tta fuses the boxes too"),
    ],
)
def test_what_cannot_be_fused_is_one_line(made, tmp_path, capsys, command, said):
    line = command.format(**vars(made), out=tmp_path / "x").split()
    assert exit_code([*line, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "x" / "metrics.json").exists()
