"""Objects with boxes or points in place of masks, from the annotation file to a trained head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.data.supervision import NO_POINT, Kind, Supervision
from frozen_cache.errors import UserError
from frozen_cache.progress import showing
from frozen_cache.stages.cache_merge import cache_merge
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.cache_subset import cache_subset
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head

Folder = tuple[Path, Path]
Change = Callable[[dict[str, Any], int], None]
POINTS = 4


def weakened(folder: Folder, name: str, kinds: Callable[[int], Kind]) -> Path:
    """The folder's annotations, those that are no crowds by the kind that `kinds` gives for their ids; points are the
    corners of the box's inner half, in, and two around it, out."""
    content = json.loads(folder[1].read_text())
    for entry in content["annotations"]:
        kind = kinds(entry["id"])
        if entry["iscrowd"] or kind == Kind.MASK:
            continue
        del entry["segmentation"]
        if kind == Kind.POINTS:
            x, y, w, h = entry["bbox"]
            entry["point_coords"] = [[x + w / 4, y + h / 4], [x + w * 3 / 4, y + h / 4], [x + w / 2, y + h / 2], [x, y]]
            entry["point_labels"] = [1, 1, 1, 0]
    path = folder[1].with_name(name)
    path.write_text(json.dumps(content))
    return path


def mixed(number: int) -> Kind:
    return Kind(number // 3 % 3)


def extract(folder: Folder, annotations: Path, out: Path, detector: Any, **options: Any) -> CacheReader:
    given = {"segment_views": 4, "batch_size": 1, "workers": 1, "views": 2} | options
    extract_features(detector=detector, images=folder[0], annotations=annotations, out=out, **given)
    return CacheReader(out)


def known(path: Path) -> dict[tuple[int, int], dict[int, list[Any]]]:
    """(image, view) -> annotation id -> what is known of it."""
    reader, found = CacheReader(path), {}
    for index, key in enumerate(reader.views):
        truth = reader.read_stored(index, encoder_layers=(), c1=False).rows.truth
        assert truth.supervision is not None
        found[key] = dict(zip(truth.annotation_ids.tolist(), truth.supervision.listed(), strict=True))
    return found


def test_the_cache_keeps_what_is_known_of_each_object_and_points_go_with_the_view(
    folder: Folder, fake: ModuleType, tmp_path: Path
) -> None:
    reader = extract(folder, weakened(folder, "mixed.json", mixed), tmp_path / "weak.zarr", fake.detector())
    full = extract(folder, folder[1], tmp_path / "full.zarr", fake.detector())
    assert reader.attributes.data.points == POINTS and full.attributes.data.points is None
    assert not list((tmp_path / "full.zarr").glob("segments/*/truth/supervision"))
    assert "points" not in json.loads((tmp_path / "full.zarr" / "zarr.json").read_text())["attributes"]["data"]
    assert not verify_cache(tmp_path / "weak.zarr").damages
    flips, kinds = set(), []
    for index in range(len(reader)):
        view, plain = (each.read_stored(index, encoder_layers=(), c1=False).rows for each in (reader, full))
        truth = view.truth
        assert truth.supervision is not None and plain.truth.supervision is None
        assert truth.annotation_ids.tolist() == plain.truth.annotation_ids.tolist()
        flips.add(view.transform.flip)
        rows = zip(truth.supervision.kinds, truth.supervision.points, plain.truth.masks, truth.masks, strict=True)
        for number, (kind, points, rle, own) in zip(truth.annotation_ids.tolist(), rows, strict=True):
            mask = coco_mask.decode(rle)
            kinds.append(int(kind))
            assert coco_mask.decode(own).sum() == mask.sum(), "boxes here: their own masks"
            for x, y, inside in points[points[:, 2] != NO_POINT]:
                inner = mask[min(int(y), mask.shape[0] - 1), min(int(x), mask.shape[1] - 1)]
                assert inside == 0 or inner == 1, (number, view.view)
        assert truth.match.tolist() == plain.truth.match.tolist()
    assert flips == {False, True} and set(kinds) == set(Kind)
    counts = reader.attributes.data.counts
    assert (counts.points_alone, counts.boxes_alone) == (4, 4)


def test_relabelling_subset_and_merge_keep_it(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    other = weakened(folder, "mixed.json", mixed)
    extract(folder, folder[1], tmp_path / "full.zarr", fake.detector())
    extract(folder, other, tmp_path / "weak.zarr", fake.detector())
    wanted = known(tmp_path / "weak.zarr")
    cache_relabel(tmp_path / "full.zarr", annotations=other, out=tmp_path / "relabelled.zarr")
    assert known(tmp_path / "relabelled.zarr") == wanted
    cache_relabel(tmp_path / "weak.zarr", annotations=folder[1], out=tmp_path / "back.zarr")
    assert CacheReader(tmp_path / "back.zarr").attributes.data.points is None
    cache_subset(tmp_path / "weak.zarr", out=tmp_path / "part.zarr", limit=3)
    assert known(tmp_path / "part.zarr") == {key: value for key, value in wanted.items() if key[0] <= 20}
    ids = tmp_path / "rest.txt"
    ids.write_text("30\n40\n50\n60\n")
    cache_subset(tmp_path / "full.zarr", out=tmp_path / "rest.zarr", image_ids=ids)
    cache_merge([tmp_path / "rest.zarr", tmp_path / "part.zarr"], out=tmp_path / "merged.zarr")
    merged = known(tmp_path / "merged.zarr")
    assert {key: value for key, value in merged.items() if key[0] <= 20} == known(tmp_path / "part.zarr")
    assert all(kind == Kind.MASK for key, value in merged.items() if key[0] > 20 for kind, _ in value.values())
    counts = CacheReader(tmp_path / "merged.zarr").attributes.data.counts
    part = CacheReader(tmp_path / "part.zarr").attributes.data.counts
    assert counts.without_masks == part.without_masks > 0
    for name in ("back", "relabelled", "part", "merged"):
        assert not verify_cache(tmp_path / f"{name}.zarr").damages, name


def test_an_update_needs_the_room_that_the_cache_has(folder: Folder, fake: ModuleType, tmp_path: Path) -> None:
    other = weakened(folder, "mixed.json", mixed)
    extract(folder, other, tmp_path / "weak.zarr", fake.detector())
    more = weakened(folder, "mixed.json", lambda number: Kind.MASK if number == 1 else Kind.BOX)
    extract(folder, more, tmp_path / "weak.zarr", fake.detector(), update=True)
    fresh = extract(folder, more, tmp_path / "fresh.zarr", fake.detector())
    assert known(tmp_path / "weak.zarr") == known(tmp_path / "fresh.zarr")
    assert fresh.attributes.data.points == 0 and CacheReader(tmp_path / "weak.zarr").attributes.data.points == POINTS
    extract(folder, folder[1], tmp_path / "full.zarr", fake.detector())
    with pytest.raises(UserError, match="no room for the objects without masks"):
        extract(folder, more, tmp_path / "full.zarr", fake.detector(), update=True)


SMALL = {"head.width": 16, "head.roi_size": 8, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}
SMALL |= {"optim.epochs": 1.0, "optim.batch_size": 2, "loss.supervision": "dense", "rois.ground_truth": True}


@pytest.mark.parametrize("pictures", [True, False])
@pytest.mark.usefixtures("unplotted")
def test_a_mixed_data_set_trains(
    folder: Folder, fake: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures: bool
) -> None:
    other = weakened(folder, "mixed.json", mixed)
    detector = fake.with_stem() if pictures else fake.detector()
    extract(folder, other, tmp_path / "weak.zarr", detector, c1="recomputed" if pictures else "stored")
    with showing("plain"):
        result = train_head(cache=tmp_path / "weak.zarr", out=tmp_path / "run", overrides=SMALL, device="cpu")
    assert result.steps == 7
    last = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    assert {"bce", "dice", "projection", "annotated"} <= last.keys() and ("pairwise" in last) == pictures
    said = capsys.readouterr().err
    assert "without masks: 4 objects with points, 4 with boxes alone" in said
    assert ("--c1 recomputed keeps the images" in said) != pictures
    with pytest.raises(UserError, match="8 objects without masks"):
        evaluate(cache=tmp_path / "weak.zarr", head=tmp_path / "run", out=tmp_path / "results")
    with pytest.raises(UserError, match="8 objects without masks"):
        train_head(
            cache=tmp_path / "weak.zarr", val_cache=tmp_path / "weak.zarr", out=tmp_path / "other", overrides=SMALL
        )


@pytest.mark.parametrize("change", [(0, 0, 7.0), (0, 1, np.nan), (0, 3, 0.5)])
def test_what_was_never_written_is_not_read(change: tuple[int, int, float]) -> None:
    table = Supervision.of([Kind.POINTS], [[(1.0, 2.0, 1)]]).to_array(2)
    assert Supervision.from_array(table).listed() == [[1, [[1.0, 2.0, 1.0]]]]
    row, column, value = change
    table[row, column] = value
    with pytest.raises(ValueError, match="its objects"):
        Supervision.from_array(table)
