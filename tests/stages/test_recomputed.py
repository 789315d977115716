"""`--c1 recomputed`: the cache keeps image files and the detector's stem instead of C1 and the added maps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from frozen_cache.cache.from_image import joined_images
from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.report.photographs import photographs
from frozen_cache.stages.cache_tools import cache_info
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head

from .recomputed_cache import SMALL, close, copied


def test_every_map_is_that_of_the_detector(stored, recomputed) -> None:
    one, other = CacheReader(stored), CacheReader(recomputed)
    assert list(one.views) == list(other.views)
    assert {view for _, view in one.views} == {0, 1}
    assert one.head_inputs() == other.head_inputs()
    for index in range(len(one)):
        wanted, found = one.read(index), other.read(index)
        close(found.c1, wanted.c1)
        [levels], [wanted_levels] = found.encoder.values(), wanted.encoder.values()
        assert len(levels) == len(wanted_levels) == len(one.attributes.detector.encoder_levels)
        for level, wanted_level in zip(levels, wanted_levels, strict=True):
            close(level, wanted_level)
        assert torch.equal(found.queries, wanted.queries)
        assert other.read(index, c1=False).c1 is None
    assert other.read_stored(0, encoder_layers=(), c1=False).image is None, "nothing is decoded for rows alone"


def test_the_file_of_an_image_lies_once_in_a_segment_and_reads_with_zarr_alone(recomputed, scenes) -> None:
    attributes = CacheReader(recomputed).attributes
    assert attributes.segment_count == 2
    names = {
        entry["id"]: entry["file_name"] for entry in json.loads((scenes / "annotations.json").read_text())["images"]
    }
    for segment in zarr.open_group(str(recomputed), mode="r")["segments"].groups():
        group = segment[1]
        assert "c1" not in group
        ids, spans = group["views"][:, 0].tolist(), group["image_spans"][:]
        for image, (start, end) in zip(ids, spans.tolist(), strict=True):
            assert group["images"][start:end].tobytes() == (scenes / "images" / names[image]).read_bytes()
        assert group["images"].size == sum((scenes / "images" / names[image]).stat().st_size for image in set(ids))


def test_it_trains_and_evaluates_from_the_cache_alone(recomputed, stored, scenes, tmp_path, monkeypatch) -> None:
    cache = Path(shutil.move(copied(recomputed, tmp_path), tmp_path / "moved.zarr"))
    (cache / "hints.json").unlink()
    monkeypatch.setattr("frozen_cache.detectors.load.load_detector", lambda *given, **options: pytest.fail("loaded"))
    results = []
    for source in (cache, stored):
        out = tmp_path / f"run-{source.stem}"
        train_head(cache=source, val_cache=source, out=out, overrides=SMALL | {"optim.epochs": 1}, device="cpu")
        found = evaluate(cache=source, out=tmp_path / f"eval-{source.stem}", head=out, device="cpu")
        results.append((json.loads((out / "metrics.jsonl").read_text().splitlines()[0]), found.metrics["segm"]["AP"]))
    (one, ap), (other, other_ap) = results
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert ap == pytest.approx(other_ap, abs=1e-3)


def test_views_of_one_size_run_together_and_stay_apart(recomputed) -> None:
    reader = CacheReader(recomputed)
    views = [reader.read_stored(index).image for index in range(len(reader))]
    made = joined_images(views, pinned=False).maps()
    for index in range(len(reader)):
        close(made.of(index).c1, reader.read(index).c1)
    assert not made.c1.requires_grad


def test_c1_none_leaves_it_out(extract_scenes, stored, tmp_path) -> None:
    cache = extract_scenes("none", c1="none", backbone_strides=())
    reader = CacheReader(cache)
    assert reader.read(0).c1 is None
    assert reader.head_inputs().c1 is None
    assert "C1          left out" in cache_info(cache).text()
    assert "c1" not in cache_info(cache).part_bytes
    train_head(cache=cache, out=tmp_path / "run", overrides=SMALL | {"optim.epochs": 1}, device="cpu")


def test_a_detector_of_code_may_offer_its_stem(folder, tmp_path) -> None:
    images, annotations = folder
    options = {"images": images, "annotations": annotations, "device": "cpu"}
    here = Path(__file__).parent / "fake_detector.py"
    with pytest.raises(UserError, match=r"fake offers no stem.*take --c1 stored, or none"):
        extract_features(detector=f"{here}:detector", out=tmp_path / "a.zarr", c1="recomputed", **options)
    assert not (tmp_path / "a.zarr").exists()
    for c1 in ("stored", "recomputed"):
        extract_features(
            detector=f"{here}:with_stem", out=tmp_path / f"{c1}.zarr", c1=c1, precision="float32", **options
        )
    one, other = CacheReader(tmp_path / "stored.zarr"), CacheReader(tmp_path / "recomputed.zarr")
    for index in range(len(one)):
        close(other.read(index).c1, one.read(index).c1)
    with pytest.raises(UserError, match="gives another C1 than the detector"):
        extract_features(detector=f"{here}:with_wrong_stem", out=tmp_path / "b.zarr", c1="recomputed", **options)


def test_the_pictures_of_reports_and_of_the_guided_filter_are_those_in_the_cache(extract_scenes, scenes, tmp_path):
    shutil.copytree(scenes / "images", tmp_path / "moved")
    cache = extract_scenes("moved", c1="recomputed", images=tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved")
    reader = CacheReader(cache)
    pictures = photographs(cache, reader=reader)
    assert pictures.note == "" and pictures.folder is None
    for entry in json.loads((scenes / "annotations.json").read_text())["images"]:
        with Image.open(scenes / "images" / entry["file_name"]) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(np.asarray(pictures.find(entry["id"], expected.shape[:2])), expected)
    assert pictures.find(12345, (8, 8)) is None
    found = []
    for out, images in (("own", None), ("given", scenes / "images")):
        evaluate(cache=cache, out=tmp_path / out, baseline="box", guided=True, images=images, device="cpu")
        found.append((tmp_path / out / "segm_results.json").read_text())
    assert found[0] == found[1]
    evaluate(cache=cache, out=tmp_path / "plain", baseline="box", device="cpu")
    assert (tmp_path / "plain" / "segm_results.json").read_text() != found[0]
