"""The ground truth of a segment, read once for all its views."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache.cache.contents import NotWhole
from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.truth_table import TruthRoom, TruthTable
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


def arrays() -> dict[str, Any]:
    """Of two views, 4 x 5 with one object and 6 x 3 with two, after other views of their segment."""
    sizes = np.array([[4, 5], [6, 3]])
    masks = [coco_mask.encode(np.ones((h, w), np.uint8, order="F"))["counts"] for h, w in sizes[[0, 1, 1]].tolist()]
    lengths = [len(mask) for mask in masks]
    objects = np.array([[7 + at, at, 0, at, length] for at, length in enumerate(lengths)])
    return {
        "objects": objects,
        "boxes": np.zeros((3, 5), np.float32),
        "rle": np.frombuffer(b"".join(masks), np.uint8),
        "supervision": np.array([[0, 0, 0, -1], [1, 2, 3, 1], [2, 0, 0, -1]], np.float32),
        "starts": np.array([[10, 90], [11, 90 + lengths[0]], [13, 90 + sum(lengths)]]),
        "sizes": sizes,
    }


def test_a_view_gets_its_own_part() -> None:
    given = arrays()
    table = TruthTable(**given)
    first, second = table.view(0), table.view(1)
    assert [mask["size"] for mask in first.masks + second.masks] == [[4, 5], [6, 3], [6, 3]]
    assert second.masks[0]["size"] is not second.masks[1]["size"]
    assert first.annotation_ids.tolist() == [7]
    assert second.annotation_ids.tolist() == [8, 9]
    assert [coco_mask.area(mask) for mask in second.masks] == [18, 18]
    assert second.supervision is not None
    assert second.supervision.listed() == [[1, [[2, 3, 1]]], [2, []]]
    assert TruthTable(**given | {"supervision": None}).view(1).supervision is None


@pytest.mark.parametrize("fault", ["a byte from one mask to the next", "a view begins late", "another size"])
def test_what_contradicts_itself_is_an_error(fault: str) -> None:
    given = arrays()
    if fault == "a byte from one mask to the next":
        given["objects"][0, -1] -= 1
        given["objects"][1, -1] += 1
    elif fault == "a view begins late":
        given["starts"][1, 1] += 1
    else:
        given["sizes"][1] = [6, 4]
    with pytest.raises(ValueError if fault == "another size" else NotWhole):
        TruthTable(**given)
