"""What an extraction says before it starts and after it ended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from frozen_cache.cache.reader import CacheReader
from frozen_cache.data.truth import mask_boxes
from frozen_cache.errors import UserError
from frozen_cache.stages import extract_gauge, extract_table
from frozen_cache.stages.cache_tools import cache_info
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.extract_gauge import CacheGauge, gauge_cache, refuse_nothing_matched

Folder = tuple[Path, Path]


def extract(folder: Folder, fake: ModuleType, out: Path, **options: Any) -> Any:
    return extract_features(detector=fake.detector(), images=folder[0], annotations=folder[1], out=out, **options)


def test_a_dry_run_tells_all_and_writes_nothing(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    content = json.loads(folder[1].read_text())
    content["annotations"][0]["area"] = 0
    content["annotations"][1]["bbox"] = [0, 0, 0, 0]
    folder[1].write_text(json.dumps(content))
    text = extract(folder, fake, tmp_path / "x.zarr", dry_run=True).text()
    objects = sum(not a["iscrowd"] for a in content["annotations"])
    crowds = len(content["annotations"]) - objects
    assert f"7 images, {objects} objects, {crowds} crowds" in text
    assert "1 areas taken from their masks" in text and "1 boxes taken from their masks" in text
    for label, name in fake.NAMES.items():
        assert f"{label} {name} -> " in text
    assert "a view" in text and "free" in text and "nothing was written" in text
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_bytes_foretold_are_those_of_the_maps(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch
) -> None:
    foretold = []
    bytes_of = extract_table.planned_bytes
    monkeypatch.setattr(extract_table, "planned_bytes", lambda *plan: foretold.append(bytes_of(*plan)) or foretold[-1])
    extract(folder, fake, tmp_path / "x.zarr", precision="float32")
    reader = CacheReader(tmp_path / "x.zarr")
    views = [reader.read(at) for at in range(len(reader))]
    maps = sum(a_map.numel() for view in views for a_map in [view.c1, *view.encoder[next(iter(view.encoder))]])
    layers = len(reader.attributes.detector.encoder_layers)
    if layers == 1:
        assert foretold[0] >= 4 * maps
    assert foretold[0] <= 1.5 * 4 * maps * layers + 1e5


def test_too_little_space_is_said_before_the_work(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(extract_table, "free_bytes", lambda out: 10)
    with pytest.raises(UserError, match=r"needs up to .* more, .* are free: .*--force"):
        extract(folder, fake, tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()
    extract(folder, fake, tmp_path / "x.zarr", force=True)


def test_repairs_and_labels_stay_in_the_cache(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    content = json.loads(folder[1].read_text())
    content["annotations"][0]["area"] = 0
    folder[1].write_text(json.dumps(content))
    extract(folder, fake, tmp_path / "x.zarr", crowds="as-objects")
    data = CacheReader(tmp_path / "x.zarr").attributes.data
    assert data.counts.repaired_areas == 1 and data.counts.crowds == 0
    text = cache_info(tmp_path / "x.zarr").text()
    assert "1 areas taken from their masks" in text and "crowds read as objects" in text
    assert all(f"{label} {name} -> " in text for label, name in fake.NAMES.items())
    with pytest.raises(UserError, match=r"crowds.*there as-objects, now as-marked"):
        extract(folder, fake, tmp_path / "x.zarr")


def test_the_end_says_how_many_objects_are_covered_and_the_box_ap(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    summary = extract(folder, fake, tmp_path / "x.zarr")
    found = gauge_cache(tmp_path / "x.zarr")
    content = json.loads(folder[1].read_text())
    assert found.objects == sum(not a["iscrowd"] for a in content["annotations"])
    assert found.lines()[0] in summary.text()


@pytest.mark.parametrize(("covered", "warns"), [(0, True), (9, True), (10, False), (100, False)])
def test_so_few_matches_that_something_must_be_wrong_are_a_warning(covered: int, warns: bool) -> None:
    lines = CacheGauge(images=5, objects=100, covered=covered, box_ap=0.1).lines()
    assert (len(lines) == 2) is warns
    assert not warns or ("label" in lines[1] and "colour" in lines[1] and "form of box" in lines[1])


def test_nothing_matched_at_all_is_an_error_unless_forced(tmp_path: Path) -> None:
    gauge = CacheGauge(images=5, objects=extract_gauge.FEW_OBJECTS, covered=0, box_ap=0.0)
    with pytest.raises(UserError, match=r"no detection covers any of its 50 objects.*label.*--force"):
        refuse_nothing_matched(gauge, tmp_path, force=False)
    refuse_nothing_matched(gauge, tmp_path, force=True)
    refuse_nothing_matched(CacheGauge(images=5, objects=49, covered=0, box_ap=0.0), tmp_path, force=False)


def test_objects_are_covered_by_detections_of_their_own_class_only(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch
) -> None:
    extract(folder, fake, tmp_path / "x.zarr")
    reader = CacheReader(tmp_path / "x.zarr")
    view = next(view for view in map(reader.read, range(len(reader))) if (~view.truth.crowd).any())
    mine = ~view.truth.crowd
    boxes = torch.from_numpy(mask_boxes(view.truth.masks))[mine]
    labels = torch.from_numpy(view.truth.categories)[mine]
    exact = replace(view, selected=len(labels), labels=labels)
    assert extract_gauge._covered(exact, boxes).all()
    assert not extract_gauge._covered(replace(exact, labels=labels + 1), boxes)[0]
    assert not extract_gauge._covered(exact, boxes + 100).any()


def test_a_finished_cache_needs_no_space(folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch) -> None:
    extract(folder, fake, tmp_path / "x.zarr", segment_views=2)
    monkeypatch.setattr(extract_table, "free_bytes", lambda out: 0)
    assert extract(folder, fake, tmp_path / "x.zarr", segment_views=2).views == 0
