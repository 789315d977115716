"""What an extraction says before it starts and after it ended."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from frozen_cache.cache.attributes import Precision
from frozen_cache.cache.ledger import committed_segments, read_record
from frozen_cache.cache.quantise import coded_bits
from frozen_cache.cache.reader import CacheReader
from frozen_cache.data.truth import mask_boxes
from frozen_cache.errors import UserError
from frozen_cache.progress import showing
from frozen_cache.stages import extract_gauge, extract_measure, extract_table
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


@pytest.mark.parametrize(
    ("precision", "value_bytes"),
    [("float32", 4), ("float16", 2), ("int8", 1), ("coded", coded_bits(1, packed=True) / 8)],
)
def test_the_bytes_foretold_are_those_of_the_maps(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch, precision: Precision, value_bytes: float
) -> None:
    foretold = []
    bytes_of = extract_table.planned_bytes
    monkeypatch.setattr(extract_table, "planned_bytes", lambda *plan: foretold.append(bytes_of(*plan)) or foretold[-1])
    extract(folder, fake, tmp_path / "x.zarr", precision=precision)
    reader = CacheReader(tmp_path / "x.zarr")
    views = [reader.read(at) for at in range(len(reader))]
    maps = sum(a_map.numel() for view in views for a_map in [view.c1, *view.encoder[next(iter(view.encoder))]])
    layers = len(reader.attributes.detector.encoder_layers)
    if layers == 1:
        assert foretold[0] >= value_bytes * maps
    assert foretold[0] <= 1.5 * value_bytes * maps * layers + 1e5


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
    assert "\n".join(found.lines()) in summary.text()
    assert CacheGauge(images=5, objects=0, covered=0, box_ap=0.0).lines() == []


@pytest.mark.parametrize(("covered", "warns"), [(0, True), (9, True), (10, False), (100, False)])
def test_so_few_matches_that_something_must_be_wrong_are_a_warning(covered: int, warns: bool) -> None:
    lines = CacheGauge(images=5, objects=100, covered=covered, box_ap=0.1).lines()
    assert (len(lines) == 3) is warns
    assert not warns or ("label" in lines[2] and "colour" in lines[2] and "form of box" in lines[2])


def test_what_is_said_of_all_of_coco_fits_80_columns() -> None:
    train2017 = 118_287
    gauge = CacheGauge(images=train2017, objects=849_949, covered=839_949, box_ap=0.612)
    view = SimpleNamespace(transform=SimpleNamespace(resized_size=(800, 1120)))
    measured = extract_measure.Measured(views=64, bytes=64 * 1_817_000, scale=1.0, seconds_per_pixel=1e-7)
    views: Any = [view] * train2017
    lines = [*gauge.lines(), *measured.text(size=train2017 * 1.817e6, views=views, free=1_234_000_000_000).splitlines()]
    assert "118,287 views to extract: 214.9 GB of 1.234 TB free, about 2.9 hours" in lines[-1]
    assert max(len(line) for line in lines) <= 80


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


def said_of(folder: Folder, fake: ModuleType, out: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    """What an extraction in segments of two says beside its bars."""
    with showing("plain"):
        extract(folder, fake, out, segment_views=2, workers=1, **options)
    return capsys.readouterr().err


def test_the_first_segment_tells_what_the_rest_will_take(
    folder: Folder,
    fake: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "measured" not in said_of(folder, fake, tmp_path / "plain.zarr", capsys)  # not worth it
    monkeypatch.setattr(extract_measure, "MEASURED_FROM", 1)
    said = said_of(folder, fake, tmp_path / "x.zarr", capsys, batch_size=1)
    found = re.search(
        r"measured  (\S+) kB a view \(2 views\)\n *5 views to extract: (\S+) kB of .* free, about \d+ sec", said
    )
    assert found is not None, said
    record = read_record(tmp_path / "x.zarr", 0, CacheReader(tmp_path / "x.zarr").attributes.fingerprint)
    kilobytes = sum(size for size, _ in record.files.values()) / 1000
    assert float(found[1]) == pytest.approx(kilobytes / 2, rel=1e-3)
    assert float(found[2]) == pytest.approx(kilobytes / 2 * 5, rel=1e-3)  # all are stretched to one size
    assert "measured" not in said_of(folder, fake, tmp_path / "x.zarr", capsys)


def test_a_disk_that_the_first_segment_shows_too_small_ends_it_and_loses_nothing(
    folder: Folder,
    fake: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "x.zarr"
    monkeypatch.setattr(extract_measure, "MEASURED_FROM", 1)
    with monkeypatch.context() as patch:
        patch.setattr(extract_table, "free_bytes", lambda folder: 60_000)  # by arithmetic enough
        with pytest.raises(UserError, match=r"needs up to .* more, 60 kB are free"):
            said_of(folder, fake, out, capsys, batch_size=1)
        assert committed_segments(out) == [0]
        line = (out / "ledger" / "00000.json").read_bytes()
        assert "measured" in said_of(folder, fake, out, capsys, force=True)
    assert len(CacheReader(out)) == 7 and (out / "ledger" / "00000.json").read_bytes() == line


def test_a_dry_run_measures_a_few_views_elsewhere(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.zarr"
    extract(folder, fake, out, segment_views=2)
    assert "measured" not in extract(folder, fake, out, segment_views=2, dry_run=True).text()
    for segment in (1, 3):
        (out / "ledger" / f"0000{segment}.json").unlink()
    before = sorted(out.rglob("*"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    text = extract(folder, fake, out, segment_views=2, batch_size=None, dry_run=True).text()
    assert re.search(r"measured  \S+ kB a view \(3 views\)\n *3 views to extract: .* of .* free, about 1 seconds", text)
    text = extract(folder, fake, out, segment_views=2, dry_run=True, shard=(1, 4)).text()
    assert re.search(r"\(2 views\)\n *2 views to extract", text)
    assert sorted(out.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "x.zarr"]
