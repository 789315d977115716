"""Caches made of caches: every number is the one that was stored."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from frozen_cache.cache import assemble, chosen
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import exit_code
from frozen_cache.errors import UserError
from frozen_cache.stages.cache_merge import cache_merge
from frozen_cache.stages.cache_subset import cache_subset
from frozen_cache.stages.cache_tools import cache_repair
from frozen_cache.stages.extract import extract_features

from .test_cache_relabel import assert_same, edited, extract, views

Folder = tuple[Path, Path]


def of_images(folder: Folder, ids: set[int]) -> Folder:
    """The folder with the annotations of these images only."""

    def fewer(content: dict[str, Any]) -> None:
        content["images"] = [image for image in content["images"] if image["id"] in ids]
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in ids]

    path = edited(folder, fewer)
    return folder[0], path.rename(path.with_name(f"{'-'.join(map(str, sorted(ids)))}.json"))


@pytest.mark.parametrize("precision", ["float16", "coded"])
def test_a_subset_equals_an_extraction_of_these_images(
    folder: Folder, fake: ModuleType, tmp_path: Path, precision: str
) -> None:
    options = {"views": 2, "precision": precision}
    extract(folder, tmp_path / "all.zarr", fake.uneven(), **options)
    (tmp_path / "ids.txt").write_text("60\n0\n\n30\n40\n50\n")
    made = cache_subset(tmp_path / "all.zarr", out=tmp_path / "some.zarr", image_ids=tmp_path / "ids.txt")
    extract(of_images(folder, {0, 30, 40, 50, 60}), tmp_path / "fresh.zarr", fake.uneven(), **options)
    assert (made.images, made.views, made.left) == (5, 10, 0)
    assert_same(tmp_path / "some.zarr", tmp_path / "fresh.zarr")
    counts = [CacheReader(tmp_path / f"{name}.zarr").attributes.data.counts for name in ("some", "fresh")]
    assert counts[0] == counts[1]


def test_subsets_by_category_and_number(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "all.zarr", fake.detector())
    entries = json.loads(folder[1].read_text())["annotations"]
    pears = sorted({entry["image_id"] for entry in entries if entry["category_id"] == 5})
    assert 0 < len(pears) < 7
    cache_subset(tmp_path / "all.zarr", out=tmp_path / "pears.zarr", categories=("pear",))
    assert sorted(key[0] for key in views(tmp_path / "pears.zarr")) == pears
    cache_subset(tmp_path / "all.zarr", out=tmp_path / "two.zarr", categories=("5",), limit=2)
    assert sorted(key[0] for key in views(tmp_path / "two.zarr")) == pears[:2]


def test_parts_merged_equal_the_whole(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(folder, tmp_path / "whole.zarr", fake.uneven())
    parts = []
    for name, ids in (("a", {0, 20, 50}), ("b", {10, 30, 40, 60})):
        extract(of_images(folder, ids), tmp_path / f"{name}.zarr", fake.uneven())
        parts.append(tmp_path / f"{name}.zarr")
    cache_merge(parts, out=tmp_path / "merged.zarr")
    assert_same(tmp_path / "merged.zarr", tmp_path / "whole.zarr")


def test_categories_are_united_and_doubled_annotation_ids_moved(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    extract(of_images(folder, {0, 20, 50}), tmp_path / "a.zarr", fake.detector(), only=("pear", "plum"), force=True)
    path = of_images(folder, {10, 30, 60})[1]
    content = json.loads(path.read_text())
    for number, entry in enumerate(content["annotations"], start=1):
        entry["id"] = number
    path.write_text(json.dumps(content))
    extract((folder[0], path), tmp_path / "b.zarr", fake.detector())
    made = cache_merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], out=tmp_path / "c.zarr")
    assert "annotation ids of 1 caches came twice" in made.text()
    merged = views(tmp_path / "c.zarr")
    names = [category["name"] for category in CacheReader(tmp_path / "c.zarr").attributes.categories]
    ids = np.concatenate([view.truth.annotation_ids for view in merged.values()])
    assert names == ["apple", "pear", "plum"] and len(set(ids.tolist())) == len(ids)
    for name in ("a", "b"):
        own = [category["name"] for category in CacheReader(tmp_path / f"{name}.zarr").attributes.categories]
        for key, view in views(tmp_path / f"{name}.zarr").items():
            assert [names[at] for at in merged[key].labels] == [own[at] for at in view.labels]
            assert [names[at] for at in merged[key].truth.categories] == [own[at] for at in view.truth.categories]


def test_an_image_in_both_is_refused_or_taken_from_the_first(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    extract(of_images(folder, {0, 20}), tmp_path / "a.zarr", fake.detector())

    def emptied(content: dict[str, Any]) -> None:
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in (0, 10)]

    extract((folder[0], edited(folder, emptied)), tmp_path / "b.zarr", fake.detector())
    paths = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    with pytest.raises(UserError, match="2 images are in several caches, the first is image 0: --prefer first"):
        cache_merge(paths, out=tmp_path / "c.zarr")
    assert not (tmp_path / "c.zarr").exists()
    cache_merge(paths, out=tmp_path / "c.zarr", prefer="first")
    found = views(tmp_path / "c.zarr")
    assert len(found) == 7 and len(found[0, 0].truth.boxes) == 3 and not len(found[10, 0].truth.boxes)


def test_killed_and_called_again_it_ends_equal(
    folder: Folder, fake: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(folder, tmp_path / "all.zarr", fake.detector())
    calls: list[int] = []

    def dies(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return assemble.write_copied(*arguments, **options)

    monkeypatch.setattr(chosen, "write_copied", dies)
    with pytest.raises(KeyboardInterrupt):
        cache_subset(tmp_path / "all.zarr", out=tmp_path / "copy.zarr")
    with pytest.raises(UserError, match="has 1 of 3 segments"):
        CacheReader(tmp_path / "copy.zarr")
    with pytest.raises(UserError, match="was made with other"):
        cache_subset(tmp_path / "all.zarr", out=tmp_path / "copy.zarr", limit=5)
    cache_subset(tmp_path / "all.zarr", out=tmp_path / "copy.zarr")
    assert_same(tmp_path / "copy.zarr", tmp_path / "all.zarr")


def test_what_cannot_be_is_named(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    everything = tmp_path / "all.zarr"
    extract(folder, everything, fake.detector())
    out = tmp_path / "out.zarr"
    (tmp_path / "ids.txt").write_text("0\n7\n")
    with pytest.raises(UserError, match=r"1 are not in .*, the first is 7"):
        cache_subset(everything, out=out, image_ids=tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text("0\nseven\n")
    with pytest.raises(UserError, match="line 2: `seven` is no image id"):
        cache_subset(everything, out=out, image_ids=tmp_path / "ids.txt")
    with pytest.raises(UserError, match=r"--image-ids .* is a folder"):
        cache_subset(everything, out=out, image_ids=tmp_path)
    with pytest.raises(UserError, match="there is no category cat; the data set has apple, pear, plum"):
        cache_subset(everything, out=out, categories=("cat",))
    for below in (everything, everything / "new.zarr"):
        with pytest.raises(UserError, match="is a cache that is read, or lies in one"):
            cache_merge([everything, out], out=below)
        with pytest.raises(UserError, match="is a cache that is read, or lies in one"):
            cache_subset(everything, out=below, limit=1)
    other = extract_features(
        detector=fake.retrained(), images=folder[0], annotations=folder[1], out=tmp_path / "other.zarr", workers=1
    )
    with pytest.raises(UserError, match=r"other\.zarr cannot be merged with .*all\.zarr: other the detector's weights"):
        cache_merge([everything, other.out], out=out)
    assert not out.exists()


def test_a_damaged_subset_says_how_it_is_mended(
    folder: Folder, fake: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(folder, tmp_path / "all.zarr", fake.detector())
    cache_subset(tmp_path / "all.zarr", out=tmp_path / "copy.zarr")
    next(tmp_path.glob("copy.zarr/segments/00001.*/c1/c/0")).unlink()
    assert exit_code(["cache", "verify", str(tmp_path / "copy.zarr")]) == 2
    told = capsys.readouterr().err
    assert "cache repair" not in told and "made by `cache subset`, not from images: remove ledger/00001.json" in told
    reader = CacheReader(tmp_path / "copy.zarr")
    with pytest.raises(UserError, match=r"`frozen-cache cache verify .*copy\.zarr` names all that is damaged"):
        [reader.read(index) for index in range(len(reader))]
    with pytest.raises(UserError, match=r"`cache subset`, not from images: remove ledger/00001\.json from it and run"):
        cache_repair(tmp_path / "copy.zarr")
    (tmp_path / "copy.zarr" / "ledger" / "00001.json").unlink()
    with pytest.raises(UserError, match="the same `frozen-cache cache subset` command again finishes it"):
        CacheReader(tmp_path / "copy.zarr")
    cache_subset(tmp_path / "all.zarr", out=tmp_path / "copy.zarr")
    assert_same(tmp_path / "copy.zarr", tmp_path / "all.zarr")
