"""`--update`: the cache ends as one that is extracted anew, and only what changed went through the detector."""

import json
import multiprocessing
import os
import re
import shutil
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.stages import extract_update
from frozen_cache.stages.cache_subset import cache_subset
from frozen_cache.stages.cache_tools import cache_repair
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.extract_summary import ExtractSummary

from .test_cache_relabel import assert_same_views
from .test_extract import tree

Folder = tuple[Path, Path]
FAKE = Path(__file__).parent / "fake_detector.py"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["frozen_cache.stages.extract"])


def extract(folder: Folder, out: Path, detector: Any, **options: Any) -> ExtractSummary:
    given = {"segment_views": 3, "batch_size": 1, "workers": 1} | options
    return extract_features(detector=detector, images=folder[0], annotations=folder[1], out=out, **given)


def changed(folder: Folder, *, number: int = 0) -> None:
    """One image more, one less, one of other pixels, one of other annotations."""
    content = json.loads(folder[1].read_text())
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder[0] / f"more{number}.png")
    content["images"].append({"id": 5 + number, "file_name": f"more{number}.png", "height": 24, "width": 40})
    box = {"bbox": [2, 3, 8, 9], "area": 72, "iscrowd": 0, "segmentation": [[2, 3, 10, 3, 10, 12, 2, 12]]}
    content["annotations"].append({"id": 900 + number, "image_id": 5 + number, "category_id": 3, **box})
    gone, edited = 20, 30
    content["images"] = [image for image in content["images"] if image["id"] != gone]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != gone]
    next(entry for entry in content["annotations"] if entry["image_id"] == edited)["category_id"] = 9 - 4 * number
    folder[1].write_text(json.dumps(content))
    other = np.asarray(Image.open(folder[0] / "006.png")).copy()
    other[number] = 255 - other[number]
    Image.fromarray(other).save(folder[0] / "006.png")


@pytest.mark.parametrize("options", [{}, {"views": 2, "precision": "coded"}], ids=["float16", "coded, 2 views"])
def test_it_ends_as_extracted_anew_and_runs_the_detector_on_what_changed(
    folder: Folder, fake: ModuleType, tmp_path: Path, options: dict[str, Any]
) -> None:
    out, views = tmp_path / "x.zarr", options.get("views", 1)
    extract(folder, out, fake.uneven(), **options)
    for number in range(2):
        changed(folder, number=number)
        summary = extract(folder, out, fake.uneven(), update=True, **options)
        assert summary.views == 3 * views
        extract(folder, tmp_path / f"fresh{number}.zarr", fake.uneven(), **options)
        assert_same_views(out, tmp_path / f"fresh{number}.zarr")
        assert extract(folder, out, fake.uneven(), **options).text().startswith("nothing is left to do")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "fresh0.zarr", "fresh1.zarr", "x.zarr"]


def test_image_files_and_stem_are_taken_over(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    out, detector = tmp_path / "x.zarr", fake.with_stem()
    extract(folder, out, detector, c1="recomputed")
    changed(folder)
    assert extract(folder, out, detector, c1="recomputed", update=True).views == 3
    assert verify_cache(out).stem is None
    extract(folder, tmp_path / "fresh.zarr", detector, c1="recomputed")
    assert_same_views(out, tmp_path / "fresh.zarr")


def test_segments_that_stay_whole_are_linked(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "x.zarr"
    extract(folder, out, fake.detector())
    files = {path.stat().st_ino for path in out.glob("segments/*/c1/c/*")}
    content = json.loads(folder[1].read_text())
    content["images"] = content["images"][:-1]  # 60: alone in the last segment
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 60]
    folder[1].write_text(json.dumps(content))
    assert extract(folder, out, fake.detector(), update=True).views == 0
    now = {path.stat().st_ino for path in out.glob("segments/*/c1/c/*")}
    assert len(now) == 2 and now < files


def test_without_update_the_difference_is_an_error_that_counts(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "x.zarr"
    extract(folder, out, fake.detector())
    changed(folder)
    wanted = r"4 images differ from what .*x\.zarr was made of \(1 new, 1 gone, 1 with other bytes, 1 with other"
    with pytest.raises(UserError, match=wanted):
        extract(folder, out, fake.detector())
    said = extract(folder, out, fake.detector(), update=True, dry_run=True).text()
    wanted = "1 new, 1 gone, 1 with other bytes, 1 with other annotations\n *3 views are to be extracted, 4 stay\n"
    assert re.search(wanted, said)
    assert not extract_update.next_path(out).exists()
    with pytest.raises(UserError, match="the detector's weights"):
        extract(folder, out, fake.retrained(), update=True)
    with pytest.raises(UserError, match="--update is one process's work"):
        extract(folder, out, fake.detector(), update=True, shard=(0, 2))
    content = json.loads(folder[1].read_text())
    content["categories"][0]["name"] = "damson"
    folder[1].write_text(json.dumps(content))
    with pytest.raises(UserError, match="cache relabel"):
        extract(folder, out, fake.detector(), update=True, label_map=("damson=plum",))


def test_a_cache_of_format_1_knows_its_annotations_by_its_ground_truth(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frozen_cache.stages import extract_plan

    out = tmp_path / "x.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(extract_plan, "FORMAT_VERSION", 1)
        extract(folder, out, fake.detector(), views=2)
    assert CacheReader(out).attributes.format_version == 1
    changed(folder)
    assert extract(folder, out, fake.detector(), views=2, update=True).views == 6
    extract(folder, tmp_path / "fresh.zarr", fake.detector(), views=2)
    assert_same_views(out, tmp_path / "fresh.zarr")


def test_a_subset_grows_to_the_whole(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "all.zarr", fake.detector())
    cache_subset(tmp_path / "all.zarr", out=tmp_path / "x.zarr", limit=4)
    assert extract(folder, tmp_path / "x.zarr", fake.detector(), update=True).views == 3
    assert_same_views(tmp_path / "x.zarr", tmp_path / "all.zarr")
    cache_subset(tmp_path / "x.zarr", out=tmp_path / "y.zarr")
    assert_same_views(tmp_path / "y.zarr", tmp_path / "all.zarr")


def test_an_updated_cache_is_repaired(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "x.zarr"
    detector = f"{FAKE}:detector"
    extract(folder, out, detector)
    changed(folder)
    extract(folder, out, detector, update=True)
    shutil.copytree(out, tmp_path / "before.zarr")
    shutil.rmtree(next(out.glob("segments/00001.*")))
    (out / "ledger" / "00002.json").write_bytes(b"{}")
    assert cache_repair(out, device="cpu", workers=1).damaged == [1, 2]
    assert_same_views(out, tmp_path / "before.zarr")


POINTS: dict[str, tuple[str, str]] = {
    "before the take-over": ("Update", "take_over"),
    "at the first copied segment": ("Update", "_copy"),
    "before the old cache is moved": ("Update", "put_in_place"),
    "between the two moves": ("extract_update", "move_durably"),
    "before the old cache is removed": ("Update", "close"),
}


def _update_and_die(folder: Folder, out: Path, owner: str, name: str) -> None:
    def dies(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(extract_update if owner == "extract_update" else extract_update.Update, name, dies)
    extract(folder, out, f"{FAKE}:detector", update=True)


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_called_again_it_ends_equal(folder: Folder, tmp_path: Path, point: str) -> None:
    out = tmp_path / "x.zarr"
    extract(folder, out, f"{FAKE}:detector")
    before = [CacheReader(out).read(index).boxes for index in range(7)]
    shutil.copytree(out, tmp_path / "unharmed.zarr")
    changed(folder)
    process = PROCESSES.Process(target=_update_and_die, args=(folder, out, *POINTS[point]))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    if point == "between the two moves":
        with pytest.raises(UserError, match="there is no cache"):
            CacheReader(out)
    elif point != "before the old cache is removed":
        found = [CacheReader(out).read(index).boxes for index in range(7)]
        assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True))
        with pytest.raises(UserError, match="4 images differ"):
            extract(folder, out, f"{FAKE}:detector")
    extract(folder, out, f"{FAKE}:detector", update=True)
    extract(folder, tmp_path / "unharmed.zarr", f"{FAKE}:detector", update=True)
    assert tree(out) == tree(tmp_path / "unharmed.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "unharmed.zarr", "x.zarr"]


def test_an_update_to_another_state_begins_anew(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.zarr"
    extract(folder, out, fake.detector())
    changed(folder)

    def stops(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extract_update.Update, "put_in_place", stops)
        with pytest.raises(KeyboardInterrupt):
            extract(folder, out, fake.detector(), update=True)
    assert not verify_cache(extract_update.next_path(out)).open
    changed(folder, number=1)
    extract(folder, out, fake.detector(), update=True)
    extract(folder, tmp_path / "fresh.zarr", fake.detector())
    assert_same_views(out, tmp_path / "fresh.zarr")
