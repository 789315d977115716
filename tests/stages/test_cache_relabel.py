"""Relabelling: the ground truth is that of a fresh extraction, everything else what was there."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from frozen_cache.cache import relabel
from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.errors import UserError
from frozen_cache.remote import CachePath
from frozen_cache.stages import cache_relabel as stage
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.extract import extract_features

Folder = tuple[Path, Path]
ALL_PAIRS = 36
"""Queries times labels of the fake detector."""


def extract(folder: Folder, out: Path, detector: Any, **options: Any) -> CacheReader:
    given = {"segment_views": 3, "batch_size": 1, "workers": 1} | options
    extract_features(detector=detector, images=folder[0], annotations=folder[1], out=out, **given)
    return CacheReader(out)


def edited(folder: Folder, change: Any) -> Path:
    """Another annotation file beside the folder's."""
    content = json.loads(folder[1].read_text())
    change(content)
    path = folder[1].with_name("other.json")
    path.write_text(json.dumps(content))
    return path


def views(path: CachePath, **options: Any) -> dict[tuple[int, int], CachedView]:
    reader = CacheReader(path)
    return {key: reader.read(index, **options) for index, key in enumerate(reader.views)}


def assert_same(found: Path, wanted: Path) -> None:
    """Every number of two caches is the same, and so is the order of their views."""
    assert list(CacheReader(found).views) == list(CacheReader(wanted).views)
    assert_same_views(found, wanted)


def assert_same_views(found: CachePath, wanted: CachePath) -> None:
    """The views of two caches are the same, in whichever order."""
    assert not verify_cache(found).damages
    assert CacheReader(found).attributes.categories == CacheReader(wanted).attributes.categories
    ours, theirs = views(found), views(wanted)
    assert sorted(ours) == sorted(theirs)
    for key, view in ours.items():
        other = theirs[key]
        assert (view.transform, view.selected) == (other.transform, other.selected)
        for name in ("queries", "boxes", "scores", "labels", "c1"):
            assert torch.equal(getattr(view, name), getattr(other, name)), name
        for layer, levels in view.encoder.items():
            assert all(torch.equal(a, b) for a, b in zip(levels, other.encoder[layer], strict=True))
        assert view.truth.masks == other.truth.masks
        for name in ("boxes", "categories", "crowd", "areas", "annotation_ids", "match"):
            assert np.array_equal(getattr(view.truth, name), getattr(other.truth, name)), name
    for path in (found, wanted):
        reader = CacheReader(path)
        for index, key in enumerate(reader.views):
            assert reader.matched(index) == (ours[key].truth.match >= 0).sum()


def moved_masks(content: dict[str, Any]) -> None:
    """Other masks, one object less, one image emptied, categories renumbered in another order."""
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        if not entry["iscrowd"]:
            entry["bbox"] = [x + 1, y, w - 1, h]
            entry["segmentation"] = [[x + 1, y, x + w, y, x + w, y + h, x + 1, y + h]]
            entry["area"] = (w - 1) * h
        entry["category_id"] = {3: 30, 5: 20, 9: 10}[entry["category_id"]]
    content["annotations"] = [e for e in content["annotations"] if e["image_id"] != 20][1:]
    content["categories"] = [{"id": 30, "name": "apple"}, {"id": 20, "name": "pear"}, {"id": 10, "name": "plum"}]


@pytest.mark.parametrize("precision", ["float16", "coded"])
def test_where_all_pairs_are_stored_it_equals_a_fresh_extraction(
    folder: Folder, fake: ModuleType, tmp_path: Path, precision: str
) -> None:
    options = {"top_k": ALL_PAIRS, "views": 2, "precision": precision}
    extract(folder, tmp_path / "old.zarr", fake.uneven(), **options)
    other = edited(folder, moved_masks)
    made = cache_relabel(tmp_path / "old.zarr", annotations=other, out=tmp_path / "new.zarr")
    extract((folder[0], other), tmp_path / "fresh.zarr", fake.uneven(), **options)
    assert_same(tmp_path / "new.zarr", tmp_path / "fresh.zarr")
    assert (made.views, made.unused, made.left) == (14, 0, 0)


def test_maps_are_shared_and_the_old_cache_may_go(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "old.zarr", fake.detector())
    before = views(tmp_path / "old.zarr")
    cache_relabel(tmp_path / "old.zarr", annotations=edited(folder, moved_masks), out=tmp_path / "new.zarr")
    maps = list((tmp_path / "new.zarr").glob("segments/*/c1/c/*"))
    assert maps and all(path.stat().st_nlink == 2 for path in maps)
    shutil.rmtree(tmp_path / "old.zarr")
    assert all(torch.equal(view.c1, before[key].c1) for key, view in views(tmp_path / "new.zarr").items())


def test_the_same_annotations_change_nothing(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "old.zarr", fake.detector(), top_k=2, views=2)
    cache_relabel(tmp_path / "old.zarr", annotations=folder[1], out=tmp_path / "new.zarr")
    assert_same(tmp_path / "new.zarr", tmp_path / "old.zarr")


def test_with_few_rows_each_object_gets_a_query_of_its_own(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "old.zarr", fake.detector(), top_k=4)
    cache_relabel(tmp_path / "old.zarr", annotations=edited(folder, moved_masks), out=tmp_path / "new.zarr")
    total = 0
    for view in views(tmp_path / "new.zarr").values():
        match = view.truth.match[~view.truth.crowd]
        assert (view.truth.match[view.truth.crowd] == -1).all()
        assert (match >= 0).all() and len({tuple(view.boxes[row].tolist()) for row in match}) == len(match)
        total += len(match)
    assert total == 9


def test_rows_of_a_category_that_is_gone_are_dropped(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "old.zarr", fake.detector(), top_k=ALL_PAIRS)
    cache_relabel(tmp_path / "old.zarr", annotations=folder[1], out=tmp_path / "new.zarr", only=("pear", "plum"))
    extract(folder, tmp_path / "fresh.zarr", fake.detector(), top_k=ALL_PAIRS, only=("pear", "plum"))
    assert_same(tmp_path / "new.zarr", tmp_path / "fresh.zarr")


def test_killed_and_called_again_it_ends_equal(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(folder, tmp_path / "old.zarr", fake.detector())
    other = edited(folder, moved_masks)
    cache_relabel(tmp_path / "old.zarr", annotations=other, out=tmp_path / "whole.zarr")
    calls: list[int] = []

    def dies(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return relabel.relabel_segment(*arguments, **options)

    monkeypatch.setattr(stage, "relabel_segment", dies)
    with pytest.raises(KeyboardInterrupt):
        cache_relabel(tmp_path / "old.zarr", annotations=other, out=tmp_path / "new.zarr")
    with pytest.raises(UserError, match="has 1 of 3"):
        CacheReader(tmp_path / "new.zarr")
    cache_relabel(tmp_path / "old.zarr", annotations=other, out=tmp_path / "new.zarr")
    assert_same(tmp_path / "new.zarr", tmp_path / "whole.zarr")


def test_what_does_not_fit_is_named(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    old = tmp_path / "old.zarr"
    extract(folder, old, fake.detector(), only=("pear", "plum"))
    new = {"out": tmp_path / "new.zarr"}
    with pytest.raises(UserError, match=r"category 3 \(apple\) is the detector's label 0"):
        cache_relabel(old, annotations=folder[1], **new)
    with pytest.raises(UserError, match="is a cache that is read"):
        cache_relabel(old, annotations=folder[1], out=old)

    def fewer(content: dict[str, Any]) -> None:
        content["images"] = content["images"][1:]
        content["annotations"] = [e for e in content["annotations"] if e["image_id"] != 0]

    with pytest.raises(UserError, match=r"lacks 1 images that .* the first is image 0"):
        cache_relabel(old, annotations=edited(folder, fewer), only=("pear", "plum"), **new)

    def larger(content: dict[str, Any]) -> None:
        content["images"][0]["height"] += 1
        content["annotations"] = [e for e in content["annotations"] if e["image_id"] != 0]

    with pytest.raises(UserError, match=r"image 0 is .* in the annotations"):
        cache_relabel(old, annotations=edited(folder, larger), only=("pear", "plum"), **new)
