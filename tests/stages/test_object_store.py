"""Caches in an object store: a server of the S3 protocol on loopback, and what a cache must bear there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from frozen_cache.cache import ranges
from frozen_cache.cache import writer as writer_module
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.hints import read_hints
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.ledger import committed_segments
from frozen_cache.cache.leftovers import remove_leftovers
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import exit_code
from frozen_cache.durable import first_one_wins
from frozen_cache.errors import UserError
from frozen_cache.remote import RemotePath, cache_path
from frozen_cache.stages.cache_copy import cache_copy
from frozen_cache.stages.cache_merge import cache_merge
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.cache_subset import cache_subset
from frozen_cache.stages.cache_tools import cache_info, cache_repair
from frozen_cache.stages.extract import extract_features
from frozen_cache.training.run_directory import load_record

from .test_cache_relabel import assert_same_views
from .test_extract import FAKE, tree

SMALL = {"head.width": 16, "head.roi_size": 16, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}


@pytest.fixture(scope="module")
def folder(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return fake.write_folder(tmp_path_factory.mktemp("store") / "data")


def extract(folder: tuple[Path, Path], out: Any, name: str = "detector", **options: Any) -> Any:
    given = {"segment_views": 3, "workers": 1, "batch_size": 1} | options
    return extract_features(detector=f"{FAKE}:{name}", images=folder[0], annotations=folder[1], out=out, **given)


@pytest.fixture(scope="module")
def made(folder: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the disk: a cache of three segments, its C1 recomputed."""
    out = tmp_path_factory.mktemp("disk") / "x.zarr"
    extract(folder, out, "with_stem", c1="recomputed")
    return out


def downloaded(place: RemotePath, to: Path) -> Path:
    """All objects below `place`, as files."""
    for name in place.below():
        file = to / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((place / name).read_bytes())
    return to


def test_a_copy_there_and_back_has_the_same_bytes(
    made: Path, bucket: RemotePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = bucket / "x.zarr"
    assert exit_code(["cache", "copy", str(made), str(there)]) == 0
    assert tree(downloaded(there, tmp_path / "seen.zarr")) == tree(made)
    assert exit_code(["cache", "copy", str(there), str(tmp_path / "back.zarr")]) == 0
    assert tree(tmp_path / "back.zarr") == tree(made)
    assert read_hints(there) == read_hints(made)
    assert exit_code(["cache", "copy", str(there), str(bucket / "again.zarr")]) == 0
    assert tree(downloaded(bucket / "again.zarr", tmp_path / "again.zarr")) == tree(made)
    assert exit_code(["cache", "verify", str(there)]) == 0
    capsys.readouterr()
    assert exit_code(["cache", "info", str(there), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == cache_info(made).as_json() | {"cache": str(there)}


def test_it_reads_equal_numbers(made: Path, bucket: RemotePath) -> None:
    cache_copy(made, bucket / "x.zarr")
    ours, theirs = CacheReader(str(bucket / "x.zarr")), CacheReader(made)
    assert list(ours.views) == list(theirs.views) and len(ours) == 7
    for index in range(len(ours)):
        one, other = ours.read(index), theirs.read(index)
        for name in ("queries", "boxes", "scores", "labels", "c1"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert all(torch.equal(a, b) for a, b in zip(one.encoder[2], other.encoder[2], strict=True))
        assert one.truth.masks == other.truth.masks


def test_extraction_there_ends_with_the_bytes_of_one_on_the_disk(
    folder: tuple[Path, Path], bucket: RemotePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = bucket / "x.zarr"
    images, annotations = map(str, folder)
    command = ["extract-features", "--detector", f"{FAKE}:detector", "--images", images, "--annotations", annotations]
    command += ["--out", str(there), "--segment-images", "3", "--workers", "1", "--batch-size", "1"]
    assert exit_code([*command, "--shard", "1/2"]) == 0
    assert committed_segments(there) == [1]
    assert exit_code(command) == 0
    assert f"cache: {there}" in capsys.readouterr().out
    assert exit_code(command) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    extract(folder, tmp_path / "disk.zarr")
    assert tree(downloaded(there, tmp_path / "seen.zarr")) == tree(tmp_path / "disk.zarr")
    assert not verify_cache(there).strange


def test_the_first_line_wins_and_the_other_segment_is_removed(
    folder: tuple[Path, Path], bucket: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, commit = bucket / "x.zarr", writer_module.commit_record

    def late(cache: Any, record: Any) -> bool:
        with monkeypatch.context() as patch:  # another process does all of it before our first line
            patch.setattr(writer_module, "commit_record", commit)
            extract(folder, there)
        monkeypatch.setattr(writer_module, "commit_record", commit)
        return commit(cache, record)

    monkeypatch.setattr(writer_module, "commit_record", late)
    assert extract(folder, there).segments_left == 0
    assert len((there / "segments").names()[1]) == 3
    assert not verify_cache(there).damages


def test_what_a_killed_writer_left_goes_and_the_rest_is_made(
    folder: tuple[Path, Path], bucket: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = bucket / "x.zarr"
    with monkeypatch.context() as patch:

        def dies(*arguments: Any) -> bool:
            raise KeyboardInterrupt

        patch.setattr(writer_module, "commit_record", dies)
        patch.setattr(writer_module.CacheWriter, "_discard", lambda *arguments: None)
        with pytest.raises(KeyboardInterrupt):
            extract(folder, there)
    assert committed_segments(there) == [] and len((there / "segments").names()[1]) == 1
    assert remove_leftovers(there) == 0  # its writer, this process, lives
    left = (there / "segments").names()[1][0]
    dead = there / "segments" / left.replace(left.split("-")[1], str(2**22 + 7))
    for name in (there / "segments" / left).below():
        (dead / name).put((there / "segments" / left / name).read_bytes())
    assert remove_leftovers(there) == 1
    assert (there / "segments").names()[1] == [left]
    assert extract(folder, there).segments_left == 0
    assert not verify_cache(there).damages


def test_damage_is_named_and_repaired(folder: tuple[Path, Path], bucket: RemotePath, tmp_path: Path) -> None:
    there = bucket / "x.zarr"
    extract(folder, there)
    extract(folder, tmp_path / "disk.zarr")
    segments = there / "segments"
    first, second, _ = sorted(segments.names()[1])
    file = segments / first / "c1/c/0"
    content = file.read_bytes()
    file.put(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    (segments / second / "encoder/2/c/0").unlink()
    (there / "ledger" / "00002.json").put(b"{}")
    with pytest.raises(UserError, match=r"segment 00002 of s3://.* is damaged: its line in the ledger"):
        CacheReader(there)
    found = sorted(str(damage) for damage in verify_cache(there).damages)
    assert found[:2] == ["segment 00000: c1/c/0 has changed", "segment 00001: encoder/2/c/0 is missing"]
    assert found[2].startswith("segment 00002: ") and len(found) == 3
    (there / "ledger" / "00002.json").put((tmp_path / "disk.zarr" / "ledger" / "00002.json").read_bytes())
    reader = CacheReader(there)
    for index, what in ((0, r"image \d+ .*segment 00000|segment 00000.*image \d+"), (3, "encoder/2/c/0 is missing")):
        with pytest.raises(DamagedCacheError, match=what):
            reader.read(index)
    assert cache_repair(there, device="cpu", workers=1).damaged == [0, 1, 2]
    assert tree(downloaded(there, tmp_path / "seen.zarr")) == tree(tmp_path / "disk.zarr")


def test_subset_merge_and_relabel_work_there(made: Path, folder: tuple[Path, Path], bucket: RemotePath) -> None:
    there = bucket / "x.zarr"
    cache_copy(made, there)
    ids = folder[1].with_name("ids.txt")
    for name, numbers in (("a", (0, 20, 40, 60)), ("b", (10, 30, 50))):
        ids.write_text("\n".join(map(str, numbers)))
        cache_subset(there, out=bucket / f"{name}.zarr", image_ids=ids)
    cache_merge([bucket / "a.zarr", bucket / "b.zarr"], out=bucket / "both.zarr")
    assert_same_views(bucket / "both.zarr", made)
    cache_relabel(there, annotations=folder[1], out=bucket / "relabelled.zarr")
    assert_same_views(bucket / "relabelled.zarr", made)
    with pytest.raises(UserError, match="is a cache that is read"):
        cache_subset(there, out=RemotePath(f"{there}/"))


@pytest.mark.parametrize(("small", "requests"), [(ranges.SMALL_BYTES, 0), (0, 4)], ids=["small arrays", "large arrays"])
def test_a_view_takes_a_request_an_array_and_none_where_they_are_small(
    folder: tuple[Path, Path],
    bucket: RemotePath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: int,
    requests: int,
) -> None:
    import obstore

    on_disk, there = tmp_path / "x.zarr", bucket / "x.zarr"
    extract(folder, on_disk, precision="coded")
    cache_copy(on_disk, there)
    monkeypatch.setattr(ranges, "SMALL_BYTES", small)
    reader = CacheReader(there)
    reader.read(0)  # opens the segment; the indices of its shards are known from here on
    counted = []
    for name in ("get", "get_range", "get_async", "get_range_async", "head", "list"):
        call = getattr(obstore, name)

        def counting(*arguments: Any, call: Any = call, **options: Any) -> Any:
            counted.append(arguments)
            return call(*arguments, **options)

        monkeypatch.setattr(obstore, name, counting)
    view = reader.read(2)
    assert len(counted) == requests, counted  # rows, C1, two encoder layers; the truth is that of the segment
    assert view.truth.masks and view.c1 is not None and len(view.encoder) == 2
    assert_same_views(there, on_disk)


def test_a_store_that_fails_is_no_damage(made: Path, bucket: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    there = bucket / "x.zarr"
    cache_copy(made, there)
    monkeypatch.setattr(ranges, "SMALL_BYTES", 0)
    reader = CacheReader(there)
    reader.read(0)

    def fails(*arguments: Any, **options: Any) -> None:
        raise obstore.exceptions.GenericError("the wire is cut")

    for name in ("get_async", "get_range_async", "get_range"):
        monkeypatch.setattr(obstore, name, fails)
    with pytest.raises(OSError, match="the wire is cut") as caught:
        reader.read(1)
    assert str(caught.value.filename).startswith(f"{there}/segments/00000.")


def test_it_trains_and_evaluates_from_there(scene_cache: Path, bucket: RemotePath, tmp_path: Path) -> None:
    there = bucket / "scenes.zarr"
    cache_copy(scene_cache, there)
    options = ["--epochs", "1", "--batch-size", "1", "--device", "cpu"]
    options += [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    numbers = []
    for cache, run in ((str(scene_cache), tmp_path / "disk"), (str(there), tmp_path / "store")):
        assert exit_code(["train-head", "--cache", cache, "--val-cache", cache, "--out", str(run), *options]) == 0
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        numbers.append([{key: line[key] for key in line if "time" not in key} for line in lines])
    assert numbers[0] == numbers[1] and numbers[0]
    assert load_record(tmp_path / "store").val_cache == there
    out = tmp_path / "evaluated"
    assert (
        exit_code(["evaluate", "--cache", str(there), "--baseline", "box", "--out", str(out), "--device", "cpu"]) == 0
    )
    assert json.loads((out / "metrics.json").read_text())["of"]["cache"] == str(there)


def test_what_cannot_be_is_one_line(
    made: Path, bucket: RemotePath, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket / "other" / "file.txt").put(b"mine")
    cases = {
        ("cache", "info", str(bucket / "nowhere.zarr")): "there is no cache s3://",
        ("cache", "info", str(bucket / "other")): "is not a cache: it holds no zarr.json",
        ("cache", "copy", str(made), str(bucket / "other")): "exists and is not a cache",
        ("cache", "info", "s3://no-such-bucket-here/x.zarr"): "x.zarr: there is no such bucket: make it",
        ("cache", "copy", str(made), "s3://no-such-bucket-here/x.zarr"): ": there is no such bucket: make it",
        ("cache", "info", "ftp://host/x.zarr"): "is no place in an object store",
    }
    for arguments, said in cases.items():
        assert exit_code(list(arguments)) == 2, arguments
        error = capsys.readouterr().err.strip()
        assert said in error and "\n" not in error and error.startswith("error: ")
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert exit_code(["cache", "info", str(bucket / "x.zarr")]) == 2
    assert "pip install 'frozen-cache[remote]'" in capsys.readouterr().err


def test_a_line_is_replaced_only_if_it_is_still_the_same(bucket: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    place = bucket / "line"
    assert place.create(b"one") and place.create(b"one") and not place.create(b"two")
    assert not place.replace(b"two", b"three") and place.read_bytes() == b"one"
    assert place.replace(b"one", b"three") and place.read_bytes() == b"three"
    assert not (bucket / "nothing").replace(b"", b"x") and not (bucket / "nothing").exists()
    put = obstore.put

    def later(store: Any, key: str, content: bytes, **options: Any) -> None:
        put(store, key, b"faster")  # another process, between the look and the put
        put(store, key, content, **options)

    monkeypatch.setattr(obstore, "put", later)
    assert not place.replace(b"three", b"four") and place.read_bytes() == b"faster"


def test_a_store_that_ignores_conditions_is_found_out(bucket: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_one_wins(bucket / "ledger") and not bucket.exists()

    def always(self: RemotePath, content: bytes) -> bool:
        self.put(content)
        return True

    monkeypatch.setattr(RemotePath, "create", always)
    assert not first_one_wins(bucket / "ledger") and not bucket.exists()


def test_what_a_store_does_not_keep_is_not_committed(
    made: Path, bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, put = bucket / "x.zarr", RemotePath.put

    def loses(self: RemotePath, content: bytes | Path) -> None:
        if not str(self).endswith("rows/c/0/0"):
            put(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "put", loses)
        with pytest.raises(OSError, match="has not kept all that was sent to it"):
            cache_copy(made, there)
    assert committed_segments(there) == [] and (there / "segments").names()[1] == []
    assert cache_copy(made, there).segments == 3


def test_places_are_told_apart_by_their_form() -> None:
    assert cache_path("a/b.zarr") == Path("a/b.zarr")
    place = cache_path("s3://bucket/a/b.zarr/")
    assert isinstance(place, RemotePath) and str(place) == "s3://bucket/a/b.zarr"
    assert (place.name, str(place.parent), place / "c" / "d") == (
        "b.zarr", "s3://bucket/a", RemotePath("s3://bucket/a/b.zarr/c/d"),
    )  # fmt: skip
