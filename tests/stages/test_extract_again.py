"""Extraction on what is there already: an empty folder, a damaged cache, another batch size, images that changed."""

import os
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.ledger import committed_segments
from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.stages.cache_tools import cache_repair

sys.path.insert(0, str(Path(__file__).parent))
from test_extract import FAKE, PROCESSES, Folder, extract, folder_of, tree

sys.path.pop(0)


@pytest.fixture(scope="module")
def data(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Seven images that nobody changes."""
    return fake.write_folder(tmp_path_factory.mktemp("again") / "data")


@pytest.fixture(scope="module")
def whole(data: Folder) -> Path:
    """Their cache: three segments."""
    extract(data, data[1].parent / "whole.zarr", f"{FAKE}:detector", batch_size=2)
    return data[1].parent / "whole.zarr"


@pytest.fixture
def cache(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "x.zarr"))


def test_a_root_with_any_byte_wrong_is_written_again_by_the_same_command(
    data: Folder, fake: ModuleType, cache: Path, whole: Path
) -> None:
    root = cache / "zarr.json"
    before = root.read_bytes()
    spots = [*range(0, len(before), len(before) // 6), before.index(b'"format_version": ') + 18, len(before) - 1]
    for place in spots:
        root.write_bytes(before[:place] + bytes([before[place] ^ 0x08]) + before[place + 1 :])
        with pytest.raises(UserError, match=str(cache)) as caught:
            CacheReader(cache)
        if isinstance(caught.value, DamagedCacheError):
            assert "same `frozen-cache extract-features` command as at first writes it again" in str(caught.value)
        summary = extract(data, cache, fake.detector(), batch_size=2)
        assert (summary.views, root.read_bytes()) == (0, before)
    root.unlink()
    extract(data, cache, fake.detector(), batch_size=2)
    assert tree(cache) == tree(whole)


@pytest.mark.parametrize("options", [{"top_k": 3}, {"batch_size": 1}, {"segment_views": 4}, {"views": 2}])
def test_a_damaged_root_is_not_written_by_another_command(
    data: Folder, fake: ModuleType, cache: Path, options: dict[str, int]
) -> None:
    (cache / "zarr.json").write_bytes((cache / "zarr.json").read_bytes().replace(b'"top_k"', b'"top_j"'))
    before = tree(cache)
    with pytest.raises(UserError, match=r"give the first run's command exactly, --batch-size too") as caught:
        extract(data, cache, fake.detector(), **{"batch_size": 2} | options)
    assert str(cache) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert tree(cache) == before


@pytest.mark.parametrize("where", ["a folder", "a link", "below new parents"])
def test_a_new_cache_is_made_in_place_and_all_parents_are_flushed(
    data: Folder, fake: ModuleType, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    out = tmp_path / "new" / "deep" / "x.zarr"
    if where != "below new parents":
        out.mkdir(parents=True)
        (out / ".DS_Store").touch()
    if where == "a link":
        out.rename(tmp_path / "elsewhere")
        out.symlink_to(tmp_path / "elsewhere")
    inode = out.stat().st_ino if out.exists() else None
    flushed: list[Path] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda f: flushed.append(Path(f"/proc/self/fd/{f}").resolve()) or real(f))
    extract(data, out, fake.detector(), batch_size=2)
    (out / ".DS_Store").unlink(missing_ok=True)
    assert {name: content for name, content in tree(out).items() if "hints" not in name} == tree(whole)
    assert inode in (None, out.stat().st_ino) and out.is_symlink() == (where == "a link")
    folders = [out, out / "ledger", out / "segments"]
    folders += [tmp_path, tmp_path / "new", tmp_path / "new" / "deep"] if where == "below new parents" else []
    assert {folder.resolve() for folder in folders} <= set(flushed)


def test_a_link_to_nothing_is_named(data: Folder, fake: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "x.zarr").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"x.zarr is a link to .*gone, which is not there"):
        extract(data, tmp_path / "x.zarr", fake.detector())
    assert not (tmp_path / "gone").exists()


def test_another_batch_size_is_refused_with_option_and_both_values(data: Folder, fake: ModuleType, cache: Path) -> None:
    (cache / "ledger" / "00001.json").unlink()
    before = tree(cache)
    with pytest.raises(UserError, match=r"batch_size \(there 2, now 3\), set by --batch-size"):
        extract(data, cache, fake.detector(), batch_size=3)
    assert tree(cache) == before
    assert extract(data, cache, fake.detector()).views == 3  # not given: that of the first run


def plain_pngs(folder: Folder) -> None:
    """Images whose files keep their size whatever they show."""
    for number in range(7):
        repaint(folder, number, 0)


def repaint(folder: Folder, number: int, by: int) -> None:
    path = folder[0] / f"{number:03d}.png"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    size = path.stat().st_size
    Image.fromarray(pixels + np.uint8(by)).save(path, compress_level=0)
    assert by == 0 or path.stat().st_size == size


@pytest.mark.parametrize("finished", [True, False])
def test_an_image_of_equal_size_and_other_bytes_is_named(
    folder: Folder, fake: ModuleType, tmp_path: Path, finished: bool
) -> None:
    plain_pngs(folder)
    out = tmp_path / "x.zarr"
    extract(folder, out, fake.detector())
    if not finished:
        (out / "ledger" / "00002.json").unlink()
    repaint(folder, 1, 9)
    before = tree(out)
    with pytest.raises(UserError, match=r"001.png \(image 10\) has other bytes than when .*x.zarr was begun") as caught:
        extract(folder, out, fake.detector())
    assert "another --out" in str(caught.value)
    assert tree(out) == before


def test_views_of_one_image_in_two_segments_are_of_the_same_bytes(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frozen_cache.cache.same_images.SAMPLE", 1)  # as in a large data set, where it looks elsewhere
    plain_pngs(folder)
    out = tmp_path / "x.zarr"
    extract(folder, out, fake.detector(), views=2, segment_views=1, shard=(0, 2))
    repaint(folder, 4, 9)
    with pytest.raises(UserError, match=r"image 40 has other bytes than when .*x.zarr was made"):
        extract(folder, out, fake.detector(), views=2, segment_views=1)
    reader = CacheReader(out, allow_incomplete=True)
    assert [view for image, view in reader.views if image == 40] == [0]
    assert not verify_cache(out).damages
    repaint(folder, 4, 256 - 9)
    extract(folder, out, fake.detector(), views=2, segment_views=1)
    assert len(CacheReader(out)) == 14


def test_a_lost_segment_is_named_with_the_way_on_and_repair_brings_its_numbers_back(
    data: Folder, fake: ModuleType, cache: Path, whole: Path
) -> None:
    shutil.rmtree(folder_of(cache, 1))
    with pytest.raises(DamagedCacheError, match=r"segment 1: .* is missing; `frozen-cache cache repair .*x.zarr`"):
        extract(data, cache, fake.detector())
    assert cache_repair(cache).text() == "segment 1 was damaged and extracted again"
    assert tree(cache) == tree(whole)


@pytest.mark.parametrize("moment", ["move", "commit"])
def test_a_repair_that_dies_and_is_run_again_mends_damaged_and_open_segments(
    data: Folder, cache: Path, whole: Path, moment: str
) -> None:
    for segment in (0, 1):
        shutil.rmtree(folder_of(cache, segment))
    (cache / "ledger" / "00001.json").unlink()
    next(folder_of(cache, 2).glob("c1/c/*")).write_bytes(b"")
    options = {"path": cache, "detector": f"{FAKE}:dies_before_{moment}", "images": data[0], "annotations": data[1]}
    process = PROCESSES.Process(target=cache_repair, kwargs=options)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert committed_segments(cache) == [0, 2]
    repair = cache_repair(cache, detector=f"{FAKE}:detector", images=data[0], annotations=data[1])
    assert (repair.damaged, repair.opened) == ([2], [1])
    assert len(list((cache / "segments").iterdir())) == 4, "what the dead one had renamed is gone"
    assert tree(cache) == tree(whole)
    assert cache_repair(cache).text() == "nothing is damaged"
