"""Caches with image files and a stem grow, shrink, are joined and told about like any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import zarr

from frozen_cache.cache.reader import CacheReader
from frozen_cache.stages.cache_merge import cache_merge
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.cache_subset import cache_subset
from frozen_cache.stages.cache_tools import cache_info, cache_verify
from frozen_cache.stages.extract import extract_features

from .recomputed_cache import WEIGHTS, same_views


def test_the_file_of_an_image_lies_once_in_the_cache_however_its_views_differ(folder, fake, tmp_path) -> None:
    """All views of an image are in one segment; so they are after an update, a subset and a merge."""
    images, annotations = folder
    detector, out = fake.uneven_with_stem(), tmp_path / "x.zarr"
    options = {"images": images, "annotations": annotations, "views": 3, "c1": "recomputed", "device": "cpu"}
    extract_features(detector=detector, out=out, segment_views=8, **options)
    reader = CacheReader(out)
    assert reader.attributes.views_per_segment == 6
    assert len({reader.resized_size(index) for index in range(len(reader))}) > 3
    assert kept_once(out) == {0, 10, 20, 30, 40, 50, 60}
    content = json.loads(annotations.read_text())
    content["images"] = [image for image in content["images"] if image["id"] not in (20, 50)]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in (20, 50)]
    annotations.write_text(json.dumps(content))
    extract_features(detector=detector, out=out, update=True, **options)
    assert kept_once(out) == {0, 10, 30, 40, 60}
    extract_features(detector=detector, out=tmp_path / "fresh.zarr", **options)
    same_views(out, tmp_path / "fresh.zarr")
    for name, ids in (("a", "0\n10\n30\n"), ("b", "40\n60\n")):
        (tmp_path / "ids.txt").write_text(ids)
        cache_subset(out, out=tmp_path / f"{name}.zarr", image_ids=tmp_path / "ids.txt")
    cache_merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], out=tmp_path / "both.zarr")
    assert kept_once(tmp_path / "both.zarr") == kept_once(out)
    same_views(tmp_path / "both.zarr", out)


def kept_once(cache: Path) -> set[int]:
    """The images whose files a cache keeps; each once."""
    ids: list[int] = []
    for _, group in zarr.open_group(str(cache), mode="r")["segments"].groups():
        order = group["views"][:, [9, 10, 0, 1]].tolist()
        assert order == sorted(order), "batches of one size"
        ids += {row[2] for row in order}
    assert len(ids) == len(set(ids))
    return set(ids)


def test_subset_merge_and_relabel_keep_images_and_stem(recomputed, scenes, tmp_path) -> None:
    reader = CacheReader(recomputed)
    wanted = {key: reader.read(index).c1 for index, key in enumerate(reader.views)}
    first, second = sorted({image for image, _ in reader.views})[:2]
    for image in (first, second):
        (tmp_path / "ids.txt").write_text(f"{image}\n")
        cache_subset(recomputed, out=tmp_path / f"{image}.zarr", image_ids=tmp_path / "ids.txt")
    cache_merge([tmp_path / f"{first}.zarr", tmp_path / f"{second}.zarr"], out=tmp_path / "both.zarr")
    cache_relabel(recomputed, annotations=scenes / "annotations.json", out=tmp_path / "again.zarr")
    for name, images in (("both", 2), ("again", 3)):
        cache = tmp_path / f"{name}.zarr"
        assert not cache_verify(cache).damages
        other = CacheReader(cache)
        assert len(other) == 2 * images
        for index, key in enumerate(other.views):
            assert torch.equal(other.read(index).c1, wanted[key])


def test_info_says_what_is_saved(recomputed, stored) -> None:
    info, plain = cache_info(recomputed), cache_info(stored)
    text = info.text()
    assert "at stride 4 (recomputed from the image)" in text
    assert "images" in info.part_bytes
    assert "c1" not in info.part_bytes
    saved = plain.part_bytes["c1"] + plain.part_bytes["encoder/1"] - info.part_bytes["encoder/1"]
    assert 2 * info.saved_bytes == pytest.approx(saved, rel=0.02), "half of what float32 takes, chunks' sums aside"
    assert "recomputed  " in text
    assert "recomputed  " not in plain.text()


def test_info_as_json_and_the_table_before_an_extraction_tell_of_images_and_stem(
    recomputed, stored, folder, fake, tmp_path
) -> None:
    found = cache_info(recomputed).as_json()
    assert found["c1"] == "recomputed"
    assert found["stem_bytes"] == (recomputed / WEIGHTS).stat().st_size
    assert found["arrays"]["images"]["bytes"] > 0
    assert "stem_bytes" not in cache_info(stored).as_json()
    images, annotations = folder
    for detector, c1, says in ((fake.with_stem(), "stored", True), (fake.with_stem(), "none", False)):
        text = extract_features(
            detector=detector, images=images, annotations=annotations, out=tmp_path / "x.zarr", c1=c1, dry_run=True
        ).text()
        assert ("of it: --c1 recomputed keeps image files" in text) == says
        assert max(map(len, text.splitlines())) <= 80
