"""Extraction: what is stored, what is continued, what is refused, and that a kill changes nothing."""

import errno
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from frozen_cache.cache.attributes import read_attributes
from frozen_cache.cache.hints import HINTS_FILE
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.ledger import read_record
from frozen_cache.cache.locks import SegmentLocks
from frozen_cache.cache.reader import CacheReader
from frozen_cache.detectors.selection import select_pairs
from frozen_cache.errors import UserError
from frozen_cache.stages.cache_tools import cache_info, cache_repair
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.extract_summary import ExtractSummary

Folder = tuple[Path, Path]
FAKE = Path(__file__).parent / "fake_detector.py"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["frozen_cache.stages.extract"])
"""torch is imported once, by a process without threads from which the others are forked."""


def extract(folder: Folder, out: Path, detector: Any, **options: Any) -> ExtractSummary:
    return extract_features(
        detector=detector, images=folder[0], annotations=folder[1], out=out, **{"segment_views": 3} | options
    )


TOKEN = re.compile(r"(0000[0-9])\.[0-9a-f]{8}-[0-9]+-[0-9a-f]{12}")
"""What makes a writer's names unlike all others."""


def tree(cache: Path) -> dict[str, bytes]:
    """Every file but the lock, the hints, which hold paths, and what a killed writer left; without the writers' tokens,
    and the sums in the ledger that cover these."""
    found = {}
    for path in sorted(cache.rglob("*")):
        name = path.relative_to(cache).as_posix()
        if path.is_file() and path.name not in (".lock", HINTS_FILE) and not name.startswith("staging/"):
            content = path.read_bytes()
            if name.startswith("ledger/"):
                content = re.sub(r'"sha256":"[0-9a-f]+"', "", TOKEN.sub(r"\1", content.decode())).encode()
            found[TOKEN.sub(r"\1", name)] = content
    return found


def folder_of(cache: Path, segment: int) -> Path:
    """Where a committed segment lies."""
    return read_record(cache, segment, read_attributes(cache).fingerprint).folder_in(cache)


def edit(folder: Folder, change: Any) -> None:
    content = json.loads(folder[1].read_text())
    change(content)
    folder[1].write_text(json.dumps(content))


def test_the_cache_holds_what_the_detector_gave(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    detector = fake.detector()
    summary = extract(folder, tmp_path / "x.zarr", detector, precision="float32", batch_size=1)
    assert (summary.views, summary.images, summary.segments_left) == (7, 7, 0)
    reader = CacheReader(tmp_path / "x.zarr")
    assert [category["name"] for category in reader.attributes.categories] == ["apple", "pear", "plum"]
    for index, (image_id, _) in enumerate(reader.views):
        view = reader.read(index)
        image = Image.open(folder[0] / f"{image_id // 10:03d}.png").convert("RGB")
        pixels = detector.spec.input.normalise(detector.spec.input.resize_image(image, (32, 32)))
        output = detector(pixels[None])
        pairs = select_pairs(output.scores[0], k=6)
        assert torch.equal(view.scores[:6], pairs.scores)
        assert torch.equal(view.labels[:6], pairs.column)
        assert torch.equal(view.queries[:6], output.queries[0, pairs.query_index])
        assert torch.equal(view.boxes[:6], output.boxes[0, pairs.query_index])
        assert view.c1 is not None and torch.equal(view.c1, output.c1[0])
        assert all(torch.equal(a, b[0]) for a, b in zip(view.encoder[2], output.encoder[2], strict=True))


def test_every_object_that_is_no_crowd_is_matched_and_extra_rows_lie_behind(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    extract(folder, tmp_path / "x.zarr", fake.detector(), top_k=2)
    reader = CacheReader(tmp_path / "x.zarr")
    extra = 0
    for index in range(len(reader)):
        view = reader.read(index)
        match, crowd = view.truth.match, view.truth.crowd
        assert (match[crowd] == -1).all()
        assert (match[~crowd] >= 0).all()
        assert len(set(match[~crowd])) == (~crowd).sum()
        assert view.selected == 2
        extra += len(view.queries) - 2
        behind = match >= view.selected
        assert (view.labels.numpy()[match[behind]] == view.truth.categories[behind]).all()
    assert extra > 0


def test_the_same_command_again_finds_nothing_to_do(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "x.zarr", fake.detector())
    before = tree(tmp_path / "x.zarr")
    summary = extract(folder, tmp_path / "x.zarr", fake.detector(), segment_views=None)
    assert summary.views == 0
    assert "nothing is left to do" in summary.text()
    assert str(tmp_path / "x.zarr") in summary.text()
    assert tree(tmp_path / "x.zarr") == before


@pytest.mark.parametrize("factory", ["detector", "uneven"])
def test_views_shapes_and_limits_hold(folder: Folder, fake: ModuleType, tmp_path: Path, factory: str) -> None:
    detector = getattr(fake, factory)()
    extract(folder, tmp_path / "x.zarr", detector, views=3, limit=4, workers=2)
    reader = CacheReader(tmp_path / "x.zarr")
    assert sorted(reader.views) == [(image * 10, view) for image in range(4) for view in range(3)]
    for index, (_, number) in enumerate(reader.views):
        view = reader.read(index)
        assert view.transform.is_plain or number > 0
        assert view.transform.resized_size == reader.resized_size(index)
        height, width = view.transform.resized_size
        assert reader.shapes(index)[0] == (2, height // 4, width // 4)
        assert all(mask["size"] == [*view.transform.crop_size] for mask in view.truth.masks)


def test_a_share_that_is_none_is_told_before_the_detector_is_loaded(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--shard 2/2: the first number runs from 0 to 1"):
        extract(folder, tmp_path / "x.zarr", "hf:nowhere", shard=(2, 2))


def test_shards_fill_one_cache_between_them(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "whole.zarr", fake.uneven())
    left = [extract(folder, tmp_path / "x.zarr", fake.uneven(), shard=(shard, 2)).segments_left for shard in (1, 0)]
    assert left == [2, 0]
    assert tree(tmp_path / "x.zarr") == tree(tmp_path / "whole.zarr")


def test_a_segment_that_another_process_holds_is_left_to_it(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "x.zarr", fake.detector())
    (tmp_path / "x.zarr" / "ledger" / "00001.json").unlink()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 1); print(1); input()"
    command = [sys.executable, "-u", "-c", hold, str(tmp_path / "x.zarr" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"1\n"
        summary = extract(folder, tmp_path / "x.zarr", fake.detector())
        assert (summary.views, summary.segments_left) == (0, 1)
        other.kill()
    with SegmentLocks(tmp_path / "x.zarr") as locks:
        assert locks.claim(1)
    assert extract(folder, tmp_path / "x.zarr", fake.detector()).views == 3


def start(folder: Folder, out: Path, factory: str) -> BaseProcess:
    """An extraction in a process of its own."""
    options = {"images": folder[0], "annotations": folder[1], "out": out, "segment_views": 3, "batch_size": 2}
    process = PROCESSES.Process(target=extract_features, kwargs=options | {"detector": f"{FAKE}:{factory}"})
    process.start()
    return process


def test_a_run_killed_at_any_moment_and_repeated_equals_one_that_was_not(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.zarr", tmp_path / "x.zarr"
    extract(folder, whole, fake.uneven(), batch_size=2)
    moments = random.Random(5)
    kills = 0
    for _ in range(4):
        process = start(folder, out, "slow")
        while process.is_alive() and not out.exists():
            time.sleep(0.01)
        process.join(timeout=moments.uniform(0, 0.6))
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
        assert not verify_cache(out).damages
    assert kills
    extract(folder, out, fake.uneven(), batch_size=2)
    assert tree(out) == tree(whole)


@pytest.mark.parametrize("moment", ["finish", "move", "commit"])
def test_a_run_that_dies_between_the_steps_of_a_commit_leaves_nothing_half(
    folder: Folder, fake: ModuleType, tmp_path: Path, moment: str
) -> None:
    whole, out = tmp_path / "whole.zarr", tmp_path / "x.zarr"
    extract(folder, whole, fake.detector(), batch_size=2)
    process = start(folder, out, f"dies_before_{moment}")
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(CacheReader(out, allow_incomplete=True)) == 3
    assert not verify_cache(out).damages
    extract(folder, out, fake.detector(), segment_views=None)
    assert tree(out) == tree(whole)


def test_a_full_disk_is_one_line_and_loses_nothing(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import frozen_cache.cache.segment_writer as module

    original, calls = module.flush_tree, []

    def full(path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path)

    monkeypatch.setattr(module, "flush_tree", full)
    with pytest.raises(OSError, match=r"No space left on device: .*x\.zarr'$"):
        extract(folder, tmp_path / "x.zarr", fake.detector())
    assert len(CacheReader(tmp_path / "x.zarr", allow_incomplete=True)) == 3
    assert not list((tmp_path / "x.zarr" / "staging").iterdir())
    assert extract(folder, tmp_path / "x.zarr", fake.detector()).views == 4


def test_repair_extracts_just_what_is_damaged(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "x.zarr"
    extract(folder, out, f"{FAKE}:detector")
    before = tree(out)
    times = {path: path.stat().st_mtime_ns for path in folder_of(out, 0).rglob("*")}
    target = folder_of(out, 1) / "c1" / "c" / "0"
    target.write_bytes(target.read_bytes()[:-3])
    (out / "segments" / "zarr.json").write_text("{}")
    options = {"detector": f"{FAKE}:detector", "images": folder[0], "annotations": folder[1]}
    repair = cache_repair(out)
    assert (repair.damaged, repair.opened, repair.node) == ([1], [], True)
    assert repair.text() == "segments/zarr.json written anew\nsegment 1 was damaged and extracted again"
    assert tree(out) == before
    assert {path: path.stat().st_mtime_ns for path in folder_of(out, 0).rglob("*")} == times
    assert len(list((out / "segments").iterdir())) == 4
    assert cache_repair(out, **options).text() == "nothing is damaged"  # type: ignore[arg-type]
    (folder_of(out, 1) / "c1" / "c" / "0").unlink()
    with pytest.raises(UserError, match="other the detector's weights"):
        cache_repair(out, **options | {"detector": f"{FAKE}:retrained"})  # type: ignore[arg-type]
    assert (out / "ledger" / "00001.json").is_file()


def test_repair_reads_images_and_annotations_as_the_extraction_did(folder: Folder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for path in folder[0].iterdir():
        width, height = Image.open(path).size
        Image.fromarray(rng.integers(0, 4096, (height, width), dtype=np.uint16)).save(path)
    out = tmp_path / "x.zarr"
    chosen: dict[str, Any] = {
        "bit_depth": 12,
        "crowds": "as-objects",
        "only": ("apple", "9"),
        "labels": ("kiwi", "melon", "fig"),
        "label_map": ("apple=kiwi", "plum=1"),
        "skip_bad_annotations": True,
    }
    extract(folder, out, f"{FAKE}:detector", **chosen)
    before = tree(out)
    (folder_of(out, 1) / "c1" / "c" / "0").unlink()
    assert cache_repair(out).damaged == [1]
    assert tree(out) == before


def test_info_counts_segments_and_bytes(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "x.zarr", fake.detector())
    info = cache_info(tmp_path / "x.zarr")
    files = [path for path in (tmp_path / "x.zarr" / "segments").rglob("*") if path.is_file()]
    node = (tmp_path / "x.zarr" / "segments" / "zarr.json").stat().st_size
    assert info.part_bytes.total() == sum(path.stat().st_size for path in files) - node
    assert "3 of 3 committed" in info.text()
    assert all(f" {name}" in info.text() for name in ("apple", "pear", "plum"))


def test_coded_caches_keep_their_step_and_say_what_a_value_takes(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "x.zarr"
    extract(folder, out, f"{FAKE}:detector", precision="coded", step=1.5)
    reader, info = CacheReader(out), cache_info(out)
    c1 = reader.read_stored(0).c1
    assert c1 is not None and c1.shifts is not None and c1.unpacked().abs().max() <= 8
    found = info.as_json()
    sizes = {name: array["bytes"] for name, array in found["arrays"].items()}
    assert sum(sizes.values()) == found["bytes"] == info.part_bytes.total()
    assert (found["step"], found["views"], found["segments"], found["segments_total"]) == (1.5, 7, 3, 3)
    values = sum(math.prod(reader.shapes(at)[0]) for at in range(7))
    assert found["arrays"]["c1"]["bits_a_value"] == pytest.approx(8 * sizes["c1"] / values, abs=1e-3)
    levels = sum(math.prod(shape) for at in range(7) for shape in reader.shapes(at)[1:])
    for layer in reader.attributes.detector.encoder_layers:
        name = f"encoder/{layer}"
        assert found["arrays"][name]["bits_a_value"] == pytest.approx(8 * sizes[name] / levels, abs=1e-3)
    assert "bits_a_value" not in found["arrays"]["rows"]
    assert "coded, step 1.5" in info.text() and "bits a value" in info.text()
    (folder_of(out, 1) / "c1" / "c" / "0").unlink()
    assert cache_repair(out).damaged == [1]
    extract(folder, out, f"{FAKE}:detector", precision="coded")  # the step is that of the cache
    with pytest.raises(UserError, match=r"step \(there 1.5, now 1.0\), set by --step"):
        extract(folder, out, f"{FAKE}:detector", precision="coded", step=1.0)


def test_coded_caches_of_before_are_continued_with_a_byte_for_each_integer(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, new = tmp_path / "x.zarr", tmp_path / "new.zarr"
    with monkeypatch.context() as before:
        before.setattr("frozen_cache.stages.extract_plan.best_packing", lambda step: "bytes")
        extract(folder, out, f"{FAKE}:detector", precision="coded")
    assert "packing" not in json.loads((out / "zarr.json").read_text())["attributes"]
    (folder_of(out, 1) / "c1" / "c" / "0").unlink()
    assert cache_repair(out).damaged == [1]
    extract(folder, out, f"{FAKE}:detector", precision="coded")
    extract(folder, new, f"{FAKE}:detector", precision="coded")
    assert json.loads((new / "zarr.json").read_text())["attributes"]["packing"] == "nibbles"
    for at in range(7):
        one, other = CacheReader(out).read(at), CacheReader(new).read(at)
        assert one.c1 is not None and other.c1 is not None and torch.equal(one.c1, other.c1)
    with pytest.raises(UserError, match="precision"):
        extract(folder, new, f"{FAKE}:detector", precision="float16")


def other_pixels(folder: Folder) -> None:
    image = Image.open(folder[0] / "005.png")
    Image.new("RGB", image.size).save(folder[0] / "005.png")


@pytest.mark.parametrize(
    ("prepare", "options", "says"),
    [
        (None, {"detector": "retrained"}, "the detector's weights"),
        (None, {"detector": "uneven"}, "detector.input"),
        (None, {"views": 2}, r"views \(there 1, now 2\)"),
        (None, {"top_k": 3}, r"top_k \(there 6, now 3\)"),
        (None, {"precision": "float32"}, "precision"),
        (None, {"limit": 3}, "data.limit"),
        (None, {"segment_views": 2}, "views_per_segment"),
        (None, {"bit_depth": 12}, r"data.bit_depth \(there None, now 12\), set by --bit-depth"),
        (other_pixels, {}, r"1 image differs from what .* \(1 with other bytes\)"),
        (
            lambda f: edit(f, lambda c: c["annotations"][0].update(segmentation=[[1, 1, 3, 1, 3, 3]])),
            {},
            "1 with other an",
        ),
        (lambda f: edit(f, lambda c: c["categories"][0].update(id=4)), {}, "not in the list `categories`"),
    ],
)
def test_a_cache_made_from_something_else_is_not_continued(
    folder: Folder, fake: ModuleType, tmp_path: Path, prepare: Any, options: dict[str, Any], says: str
) -> None:
    out = tmp_path / "x.zarr"
    extract(folder, out, fake.detector())
    before = tree(out)
    if prepare:
        prepare(folder)
    detector = getattr(fake, options.pop("detector", "detector"))()
    with pytest.raises(UserError, match=says) as caught:
        extract(folder, out, detector, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert tree(out) == before


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("prepare", "options", "says"),
    [
        (lambda f: shutil.rmtree(f[0]), {}, "no image folder"),
        (lambda f: [path.unlink() for path in f[0].iterdir()], {}, "is empty"),
        (lambda f: f[1].unlink(), {}, "no annotation file"),
        (lambda f: f[1].write_text("{"), {}, "not JSON"),
        (lambda f: (f[0] / "003.png").unlink(), {}, r"003.png \(image 30\) is named .* --skip-missing"),
        (lambda f: damage(f[0] / "003.png"), {}, "003.png is not an image that can be read"),
        (lambda f: (f[0] / "003.png").write_text("x"), {}, "003.png is not an image"),
        (lambda f: edit(f, lambda c: c["images"][2].update(file_name="../instances.json")), {}, "leads out of"),
        (lambda f: edit(f, lambda c: c["images"][2].update(height=3)), {}, "malformed|pixels"),
        (lambda f: edit(f, lambda c: c["categories"][0].update(name="zebra")), {}, "no label for 1 .*zebra"),
        (None, {"views": 0}, "--views 0"),
        (None, {"batch_size": 0}, "--batch-size 0"),
        (None, {"top_k": -1}, "--top-k -1"),
        (None, {"top_k": 99999}, "--top-k 99999: .* gives no more than [0-9]+ pairs of query and label"),
        (None, {"shard": (3, 3)}, "--shard 3/3"),
        (None, {"shard": (0, 0)}, "--shard 0/0: the second number, of how many, is 1 or more"),
        (None, {"device": "warp"}, "--device warp"),
        (None, {"step": 0.5}, "--step 0.5 belongs to --precision coded, not to float16"),
        (None, {"precision": "coded", "step": 0.0}, "--step 0: give standard deviations between 0.05 and 8"),
        (None, {"precision": "coded", "step": float("nan")}, "--step nan: give standard deviations"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    folder: Folder, fake: ModuleType, tmp_path: Path, prepare: Any, options: dict[str, Any], says: str
) -> None:
    if prepare:
        prepare(folder)
    with pytest.raises(UserError, match=says) as caught:
        extract(folder, tmp_path / "x.zarr", fake.detector(), **options)
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_values_beyond_float16_stop_the_run_in_words(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite in float16; try --precision float32"):
        extract(folder, tmp_path / "x.zarr", fake.huge())
    extract(folder, tmp_path / "y.zarr", fake.huge(), precision="float32")


def test_an_output_that_is_something_else_is_not_touched(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file.zarr").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for name in ("file.zarr", "full"):
        with pytest.raises(UserError, match="exists and is not a cache"):
            extract(folder, tmp_path / name, fake.detector())
    assert (tmp_path / "file.zarr").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert extract(folder, tmp_path / "empty", fake.detector()).views == 7


def test_missing_images_are_left_out_and_counted_when_asked(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    (folder[0] / "003.png").unlink()
    summary = extract(folder, tmp_path / "x.zarr", fake.detector(), skip_missing=True)
    assert (summary.skipped_missing, summary.views) == (1, 6)
    reader = CacheReader(tmp_path / "x.zarr")
    assert reader.attributes.data.missing == (30,)
    assert 30 not in [image for image, _ in reader.views]


def test_broken_images_are_left_out_and_recorded_when_asked(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    for number in (0, 1, 2, 4):  # the whole first segment among them
        damage(folder[0] / f"{number:03d}.png")
    summary = extract(folder, tmp_path / "x.zarr", fake.detector(), skip_broken=True)
    assert (summary.skipped_broken, summary.views) == (4, 3)
    reader = CacheReader(tmp_path / "x.zarr")
    assert [broken.image_id for broken in reader.broken] == [0, 10, 20, 40]
    assert "004.png is not an image" in reader.broken[-1].reason
    assert [image for image, _ in reader.views] == [30, 50, 60]
    assert not verify_cache(tmp_path / "x.zarr").damages
    assert np.isfinite(reader.read(2).boxes.numpy()).all()
    assert "broken      image 40" in cache_info(tmp_path / "x.zarr").text()


def test_an_image_that_breaks_underway_keeps_the_finished_segments(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frozen_cache.stages.extract.check_images", lambda *args, **options: iter(()))
    damage(folder[0] / "006.png")
    with pytest.raises(UserError, match=r"006.png .*--skip-broken leaves such images out"):
        extract(folder, tmp_path / "x.zarr", fake.detector(), batch_size=1)
    assert len(CacheReader(tmp_path / "x.zarr", allow_incomplete=True)) in (3, 6)
    assert extract(folder, tmp_path / "x.zarr", fake.detector(), skip_broken=True).skipped_broken == 1


def test_images_without_objects_only_crowds_and_one_pixel_wide_work(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    Image.new("L", (1, 30)).save(folder[0] / "000.png")

    def change(content: dict[str, Any]) -> None:
        content["images"][0].update(height=30, width=1)
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 0 and a["iscrowd"]]

    edit(folder, change)
    for number, detector in enumerate((fake.detector(), fake.uneven())):
        extract(folder, tmp_path / f"{number}.zarr", detector, views=2, force=True)
        reader = CacheReader(tmp_path / f"{number}.zarr")
        assert len(reader) == 14
        assert all((reader.read(index).truth.match == -1).all() for index in range(14))


def test_ctrl_c_leaves_committed_segments_and_no_thread_behind(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "x.zarr"
    process = start(folder, out, "very_slow")
    while not list(out.glob("ledger/*.json")):
        time.sleep(0.02)
        assert process.is_alive()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=20)
    assert process.exitcode not in (0, None)
    assert not list((out / "staging").iterdir())
    assert not verify_cache(out).damages


@pytest.mark.parametrize("lost", ["a segment", "a segment and the root document"])
def test_a_cache_begun_as_format_1_is_continued_as_format_1(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    with monkeypatch.context() as then:
        then.setattr("frozen_cache.stages.extract_plan.FORMAT_VERSION", 1)
        extract(folder, tmp_path / "x.zarr", fake.detector())
    before = tree(tmp_path / "x.zarr")
    (tmp_path / "x.zarr" / "ledger" / "00000.json").unlink()
    if "root" in lost:
        (tmp_path / "x.zarr" / "zarr.json").unlink()
    extract(folder, tmp_path / "x.zarr", fake.detector())
    assert read_attributes(tmp_path / "x.zarr").format_version == 1
    shutil.rmtree(tmp_path / "x.zarr" / "staging")
    assert tree(tmp_path / "x.zarr").keys() >= before.keys()
    assert not verify_cache(tmp_path / "x.zarr").damages
    extract(folder, tmp_path / "new.zarr", fake.detector())
    assert read_attributes(tmp_path / "new.zarr").format_version == 2
