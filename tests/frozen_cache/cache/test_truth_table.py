"""The ground truth of a segment, read once for all its views."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.truth_table import TruthRoom
from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth

Make = Callable[..., Path]
View = Callable[..., CachedView]


@pytest.fixture
def views(make_view: View) -> list[CachedView]:
    return [make_view(number, objects=objects) for number, objects in enumerate((2, 0, 5, 1))]


@pytest.fixture
def cache(make_cache: Make, views: list[CachedView], tmp_path: Path) -> Path:
    return make_cache(tmp_path / "x.zarr", views, per_segment=4)


def assert_equal(found: GroundTruth, wanted: GroundTruth) -> None:
    for field in fields(GroundTruth):
        one, other = getattr(found, field.name), getattr(wanted, field.name)
        same = np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
        assert same, field.name


def without_truth(cache: Path) -> None:
    for folder in cache.glob("segments/*/truth/*/c"):
        shutil.rmtree(folder)


def test_it_is_read_with_the_first_view_and_then_kept(cache: Path, views: list[CachedView]) -> None:
    reader = CacheReader(cache)
    reader.read_stored(2)
    without_truth(cache)
    for index, view in enumerate(views):
        assert_equal(reader.read_stored(index).rows.truth, view.truth)


def test_where_there_is_no_room_each_view_reads_its_own(
    cache: Path, views: list[CachedView], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frozen_cache.cache.truth_table.TruthRoom.take", lambda room, size: False)
    reader = CacheReader(cache)
    for index, view in enumerate(views):
        assert_equal(reader.read_stored(index).rows.truth, view.truth)
    without_truth(cache)
    with pytest.raises(DamagedCacheError, match=r"image 2 of .* is missing"):
        reader.read_stored(2)


def test_a_view_may_be_written_to_without_harm_to_the_next(cache: Path, views: list[CachedView]) -> None:
    reader = CacheReader(cache)
    truth = reader.read_stored(0).rows.truth
    for values in (truth.boxes, truth.areas, truth.categories, truth.crowd, truth.match, truth.annotation_ids):
        values[:] = 1
    truth.masks[0]["size"][0] = 1
    assert_equal(reader.read_stored(0).rows.truth, views[0].truth)


def test_threads_that_begin_at_once_get_the_same(cache: Path, views: list[CachedView]) -> None:
    for _ in range(20):
        reader = CacheReader(cache)
        with ThreadPoolExecutor(4) as pool:
            for index, stored in enumerate(pool.map(reader.read_stored, range(4))):
                assert_equal(stored.rows.truth, views[index].truth)


def test_there_is_room_until_it_is_taken() -> None:
    room = TruthRoom(10)
    assert [room.take(size) for size in (6, 5, 4, 1)] == [True, False, True, False]
