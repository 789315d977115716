"""extract-features --copy-paste: the detector and the ground truth see the same pasted objects; what does not go
together is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.data.checks import check_annotations
from frozen_cache.data.choices import AnnotationChoices
from frozen_cache.data.coco import CocoDataset, read_coco
from frozen_cache.data.copy_paste import draw_paste, is_pasted, paste_sources, pasted_objects, pasted_picture
from frozen_cache.data.images import plain_reader
from frozen_cache.data.truth import view_truth
from frozen_cache.data.views import apply_view
from frozen_cache.errors import UserError
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.cache_subset import cache_subset
from frozen_cache.stages.cache_tools import cache_repair

from .test_cache_relabel import assert_same_views, views
from .test_extract_update import changed, extract

Folder = tuple[Path, Path]
VIEWS = 4
OPTIONS: dict[str, Any] = {"views": VIEWS, "copy_paste": True, "precision": "float32", "segment_views": 28}


@pytest.fixture(scope="module")
def original(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Seven images. Not to be changed."""
    return fake.write_folder(tmp_path_factory.mktemp("pasted") / "data")


@pytest.fixture(scope="module")
def pasted(original: Folder) -> Path:
    """Their cache by the fake detector, in segments of five views. Not to be changed."""
    out = original[0].parents[1] / "pasted.zarr"
    pasted_cache(original, out, f"{Path(__file__).parent / 'fake_detector.py'}:detector", segment_views=5)
    return out


def pasted_cache(folder: Folder, out: Path, detector: Any, **options: Any) -> str:
    """What the extraction says."""
    return extract(folder, out, detector, **OPTIONS | options).text()


def read(folder: Folder) -> CocoDataset:
    dataset = read_coco(folder[1])
    check_annotations(dataset, dataset.images, choices=AnnotationChoices())
    return dataset


def add_small_objects(annotations: Path) -> None:
    """Eight of 2 x 2 pixels in the middle row of each image, which others cover easily."""
    content = json.loads(annotations.read_text())
    for image in content["images"]:
        for at in range(8):
            x, y = at * image["width"] // 8, image["height"] // 2
            box = {"bbox": [x, y, 2, 2], "area": 4, "segmentation": [[x, y, x + 2, y, x + 2, y + 2, x, y + 2]]}
            key = 1000 + len(content["annotations"])
            content["annotations"].append({"id": key, "image_id": image["id"], "category_id": 3, "iscrowd": 0, **box})
    annotations.write_text(json.dumps(content))


def test_detector_and_truth_see_what_the_recipe_lays_there(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    add_small_objects(folder[1])
    detector, dataset = fake.detector(), read(folder)
    said = pasted_cache(folder, tmp_path / "x.zarr", detector, force=True)
    reader, sources = CacheReader(tmp_path / "x.zarr"), paste_sources(dataset.images)
    images, index = (
        {image.id: image for image in dataset.images},
        {key: at for at, key in enumerate(dataset.categories)},
    )
    added, covered = 0, 0
    for at, (number, view_index) in enumerate(reader.views):
        image, view = images[number], reader.read(at)
        pixels, truth = plain_reader().read(folder[0] / image.file_name), view_truth(image, view.transform, index)
        if (paste := draw_paste(image, sources, view_index=view_index)) is not None:
            found = pasted_objects(image, paste)
            added, covered = added + found.added, covered + found.covered
            pixels = pasted_picture(pixels, paste, plain_reader().read(folder[0] / paste.source.file_name))
            truth = view_truth(found.image, view.transform, index)
        seen = apply_view(pixels, view.transform, detector.spec.input)
        torch.testing.assert_close(view.c1, detector(detector.spec.input.normalise(seen[None].float())).c1[0])
        assert view.truth.masks == truth.masks
        np.testing.assert_array_equal(view.truth.categories, truth.categories)
    assert added and covered
    assert f"pasted {added} objects; {covered} that they cover were dropped" in said


def test_views_without_pasted_objects_are_those_of_a_cache_without(
    original: Folder, pasted: Path, fake: ModuleType, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.zarr"
    pasted_cache(original, plain, fake.detector(), copy_paste=False)
    assert "copy_paste" not in (plain / "zarr.json").read_text()
    ours, theirs = views(pasted), views(plain)
    same = {key: torch.equal(view.c1, theirs[key].c1) for key, view in ours.items()}
    assert not all(same.values()) and all(equal for key, equal in same.items() if not is_pasted(*key))


def test_it_depends_on_no_batch_no_process_and_not_on_what_is_there(
    original: Folder, pasted: Path, fake: ModuleType, tmp_path: Path
) -> None:
    parts, whole = tmp_path / "parts.zarr", tmp_path / "whole.zarr"
    for shard in ((1, 2), (0, 2)):
        pasted_cache(original, parts, fake.detector(), shard=shard, segment_views=14)
    assert_same_views(parts, pasted)
    other = tmp_path / "other.json"
    content = json.loads(original[1].read_text())
    other.write_text(json.dumps(content | {"images": content["images"][::-1]}))
    pasted_cache((original[0], other), whole, fake.detector(), batch_size=5, workers=3)
    ours, theirs = views(whole), views(pasted)
    for key, view in ours.items():
        torch.testing.assert_close(view.c1, theirs[key].c1)
        assert view.truth.masks == theirs[key].truth.masks


def test_a_repair_pastes_the_same_again(pasted: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pasted, tmp_path / "copy.zarr")
    for segment in ("00000", "00003"):
        file = max(copy.glob(f"segments/{segment}*/c1/c/**/*"), key=lambda path: path.stat().st_size)
        file.write_bytes(bytes(file.stat().st_size))
    assert len(verify_cache(copy).damages) == 2
    cache_repair(copy, device="cpu")
    assert_same_views(copy, pasted)


def test_an_update_ends_as_extracted_anew_and_keeps_views_without_pasted_objects(
    folder: Folder, pasted: Path, fake: ModuleType, tmp_path: Path
) -> None:
    out, part, fresh = shutil.copytree(pasted, tmp_path / "x.zarr"), tmp_path / "part.zarr", tmp_path / "fresh.zarr"
    changed(folder)
    said = extract(folder, out, fake.detector(), **OPTIONS | {"segment_views": 5}, update=True)
    pasted_cache(folder, fresh, fake.detector())
    assert_same_views(out, fresh)
    stays = [key for key in CacheReader(out).views if key[0] not in (5, 30, 60) and not is_pasted(*key)]
    assert said.views == 7 * VIEWS - len(stays)
    assert pasted_cache(folder, out, fake.detector(), segment_views=5).startswith("nothing is left to do")

    content = json.loads(folder[1].read_text())
    content["images"] = content["images"][:4]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    folder[1].write_text(json.dumps(content))
    (tmp_path / "ids.txt").write_text("\n".join(map(str, kept)))
    cache_subset(out, out=part, image_ids=tmp_path / "ids.txt")
    pasted_cache(folder, part, fake.detector(), segment_views=5, update=True)
    pasted_cache(folder, tmp_path / "fresh part.zarr", fake.detector())
    assert_same_views(part, tmp_path / "fresh part.zarr")


def test_an_image_that_is_broken_is_pasted_nowhere(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    images = read(folder).images
    drawn = (draw_paste(image, paste_sources(images), view_index=view) for image in images for view in range(VIEWS))
    broken = next(paste.source for paste in drawn if paste is not None)
    (folder[0] / broken.file_name).write_bytes(b"no image")
    with pytest.raises(UserError, match=broken.file_name):
        pasted_cache(folder, tmp_path / "none.zarr", fake.detector())
    said = pasted_cache(folder, tmp_path / "x.zarr", fake.detector(), skip_broken=True)
    assert "left out 1 broken images" in said
    reader = CacheReader(tmp_path / "x.zarr")
    own = {annotation.id for annotation in broken.annotations}
    assert len(reader.views) == 6 * VIEWS
    for at in range(len(reader.views)):
        assert own.isdisjoint(reader.read(at).truth.annotation_ids.tolist())


def _without_masks(content: dict[str, Any]) -> None:
    for entry in content["annotations"][:2]:
        entry["segmentation"] = []


def _without_objects(content: dict[str, Any]) -> None:
    content["annotations"] = [entry for entry in content["annotations"] if entry["iscrowd"]]


REFUSALS: dict[str, tuple[Callable[[dict[str, Any]], None], dict[str, Any], str]] = {
    "recomputed": (lambda content: None, {"c1": "recomputed"}, "leave one of the two out"),
    "no masks": (_without_masks, {}, "2 annotations have none"),
    "no objects": (_without_objects, {"force": True}, "no image has an object to paste"),
    "one view": (lambda content: None, {"views": 1}, "give --views 2 or more"),
}


@pytest.mark.parametrize(("edit", "options", "why"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_go_together_is_refused(edit, options, why, folder, fake, tmp_path) -> None:
    content = json.loads(folder[1].read_text())
    edit(content)
    folder[1].write_text(json.dumps(content))
    with pytest.raises(UserError, match=why):
        pasted_cache(folder, tmp_path / "x.zarr", fake.detector(), **options)
    assert not (tmp_path / "x.zarr").exists()


def test_a_cache_with_pasted_objects_takes_no_other_annotations_and_no_other_views(
    original: Folder, pasted: Path, fake: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--copy-paste.*extract it again"):
        cache_relabel(pasted, annotations=original[1], out=tmp_path / "new.zarr")
    with pytest.raises(UserError, match=r"copy_paste \(there .*set by --copy-paste"):
        pasted_cache(original, pasted, fake.detector(), copy_paste=False, segment_views=5)
