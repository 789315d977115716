"""`--update` of a cache in an object store: it ends as one extracted anew, wherever it is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from frozen_cache.cache import replacing
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.remote import RemotePath

from .test_cache_relabel import assert_same_views
from .test_extract_update import Folder, changed, extract


def assert_clean(cache: RemotePath) -> None:
    """Nothing lies in or beside the cache that is not of it."""
    assert cache.parent.names() == ([], [cache.name])
    assert len((cache / "segments").names()[1]) == CacheReader(cache).attributes.segment_count
    assert not verify_cache(cache).strange


def test_it_ends_as_extracted_anew_and_runs_the_detector_on_what_changed(
    folder: Folder, fake: ModuleType, bucket: RemotePath, tmp_path: Path
) -> None:
    out, detector = bucket / "x.zarr", fake.detector()
    extract(folder, out, detector)
    changed(folder)
    assert extract(folder, out, detector, update=True).views == 3
    extract(folder, tmp_path / "fresh.zarr", detector)
    assert_same_views(out, tmp_path / "fresh.zarr")
    assert_clean(out)
    assert extract(folder, out, detector).text().startswith("nothing is left to do")


def test_segments_that_stay_whole_are_copied_by_the_store(
    folder: Folder, fake: ModuleType, bucket: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = bucket / "x.zarr"
    extract(folder, out, fake.detector())
    content = json.loads(folder[1].read_text())
    content["images"] = content["images"][:-1]  # 60: alone in the last segment
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 60]
    folder[1].write_text(json.dumps(content))
    sent, put = [], RemotePath.put

    def recorded(self: RemotePath, content: bytes | Path) -> None:
        sent.append(str(self))
        put(self, content)

    monkeypatch.setattr(RemotePath, "put", recorded)
    assert extract(folder, out, fake.detector(), update=True).views == 0
    assert not [name for name in sent if "/segments/0" in name]
    assert len((out / "ledger").names()[0]) == 2
    extract(folder, tmp_path / "fresh.zarr", fake.detector())
    assert_same_views(out, tmp_path / "fresh.zarr")
    assert_clean(out)


POINTS: dict[str, tuple[Any, str, int, bool]] = {
    "while its segments are copied": (RemotePath, "copy_below", 1, True),
    "before the lines": (replacing, "finish_replacing", 0, False),
    "among the lines": (replacing, "write_durably", 1, False),
    "before the next state is removed": (RemotePath, "remove_below", 3, False),
}
"""Whose function, after how many calls, and whether the old cache is still there."""


def test_interrupted_and_called_again_it_ends_equal(
    folder: Folder, fake: ModuleType, bucket: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(folder, bucket / "old.zarr", fake.detector())
    before = CacheReader(bucket / "old.zarr").attributes.fingerprint
    changed(folder)
    extract(folder, tmp_path / "fresh.zarr", fake.detector())
    for number, (point, (owner, name, calls, is_old)) in enumerate(POINTS.items()):
        out = bucket / f"at{number}" / "x.zarr"
        (bucket / "old.zarr").copy_below(out)
        call, left = getattr(owner, name), [calls]

        def dies(*arguments: Any, call: Any = call, left: list[int] = left, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return call(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dies)
            with pytest.raises(KeyboardInterrupt):
                extract(folder, out, fake.detector(), update=True)
        if is_old:
            assert CacheReader(out).attributes.fingerprint == before, point
        elif owner is replacing:
            with pytest.raises(DamagedCacheError, match="belongs to another cache"):
                CacheReader(out)
        extract(folder, out, fake.detector(), update=is_old)
        assert_same_views(out, tmp_path / "fresh.zarr")
        assert_clean(out)


def test_a_cache_that_was_changed_meanwhile_stays(
    folder: Folder, fake: ModuleType, bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, copy = bucket / "x.zarr", RemotePath.copy_below
    extract(folder, out, fake.detector())
    changed(folder)

    def late(self: RemotePath, to: RemotePath) -> None:
        copy(self, to)
        (out / "zarr.json").put(b"of another process")

    monkeypatch.setattr(RemotePath, "copy_below", late)
    with pytest.raises(UserError, match=r"x\.zarr was changed by another process while it was updated"):
        extract(folder, out, fake.detector(), update=True)
    assert (out / "zarr.json").read_bytes() == b"of another process"
