"""`cache relabel --masks-from RUN`: the masks that a head, trained on boxes, gives to these boxes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import exit_code
from frozen_cache.evaluation.object_masks import ObjectMasks, object_masks
from frozen_cache.prompted import kept_answers
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.cache_tools import cache_info
from frozen_cache.stages.train import train_head

from .conftest import FAKE
from .prompters import Folder, write_ellipses
from .test_cache_relabel import assert_same, extract, views

SMALL = {
    "head.width": 16,
    "head.roi_size": 8,
    "head.roi_scale": 1.25,
    "head.image_layers": 0,
    "head.box_layers": 1,
    "head.mask_scoring": False,
    "loss.supervision": "dense",
    "optim.epochs": 3.0,
}


def trained(cache: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Path:
    monkeypatch.setattr("frozen_cache.stages.train.plot_run", lambda *arguments: None)
    train_head(cache=cache, out=out, overrides=SMALL | overrides, device="cpu")
    return out


def sure(monkeypatch: pytest.MonkeyPatch, *, masks: float = 0.2, kill_at: int | None = None) -> list[int]:
    """Heads of so few steps believe in nothing: theirs are made surer. Returns a list that grows with each image."""
    asked: list[int] = []

    def surer(*given: Any, **named: Any) -> ObjectMasks:
        asked.append(1)
        if len(asked) == kill_at:
            raise KeyboardInterrupt
        found = object_masks(*given, **named)
        centre = found.masks.mean((1, 2), keepdim=True)
        return replace(
            found, masks=(found.masks - centre + 0.5 + masks).clamp(0, 1), scores=torch.full_like(found.scores, 0.9)
        )

    monkeypatch.setattr("frozen_cache.stages.head_masks.object_masks", surer)
    return asked


def test_a_head_gives_masks_to_the_boxes_and_nothing_else_changes(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector", views=2)
    run = trained(tmp_path / "boxes.zarr", tmp_path / "first", monkeypatch)
    sure(monkeypatch)
    made = cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "new.zarr", masks_from=str(run), device="cpu")
    assert not verify_cache(tmp_path / "new.zarr").damages
    assert made.masks is not None and made.masks.given > 6
    before, drawn = views(tmp_path / "boxes.zarr"), 0
    for key, view in views(tmp_path / "new.zarr").items():
        old = before[key]
        assert torch.equal(view.c1, old.c1) and torch.equal(view.queries, old.queries)
        if key[1]:
            continue
        assert np.array_equal(view.truth.boxes, old.truth.boxes) and np.array_equal(view.truth.match, old.truth.match)
        for mask, filled, crowd in zip(view.truth.masks, old.truth.masks, old.truth.crowd, strict=True):
            assert crowd or not (coco_mask.decode(mask) & ~coco_mask.decode(filled)).any()
            drawn += not crowd and mask != filled
    assert drawn == made.masks.given
    attributes = CacheReader(tmp_path / "new.zarr").attributes
    assert [by.model for by in attributes.data.masks_from] == ["the head of first"]
    assert "the head of first (sha256 " in cache_info(tmp_path / "new.zarr").text()
    second = trained(tmp_path / "new.zarr", tmp_path / "second", monkeypatch)
    assert "the head of first (sha256 " in (second / "README.md").read_text()


def test_without_pictures_the_masks_are_those_that_the_head_drew(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ellipses, which a first round guesses."""
    _, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector")
    run = trained(tmp_path / "boxes.zarr", tmp_path / "run", monkeypatch)

    def without_the_right(*given: Any, **named: Any) -> ObjectMasks:
        found = object_masks(*given, **named)
        masks = torch.ones_like(found.masks)
        masks[:, :, 6:] = 0  # from 0.81 of the box on, as the RoI is a quarter wider
        return replace(found, masks=masks, scores=torch.full_like(found.scores, 0.9))

    monkeypatch.setattr("frozen_cache.stages.head_masks.object_masks", without_the_right)
    folder[0].rename(tmp_path / "elsewhere")
    made = cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "new.zarr", masks_from=str(run), device="cpu")
    assert made.masks is not None and made.masks.given > 6
    seen = 0
    for view in views(tmp_path / "new.zarr").values():
        for (x0, y0, x1, y1), rle, crowd in zip(view.truth.boxes, view.truth.masks, view.truth.crowd, strict=True):
            if crowd or x1 - x0 < 3:
                continue
            rows = coco_mask.decode(rle)[int(y0) + 1 : int(y1) - 1]
            left, right = (rows[:, int(x0 + (x1 - x0) * at)].mean() for at in (0.2, 0.93))
            seen += left > 0.9 and right < 0.1
    assert seen > 6


def test_the_masks_follow_the_colours_and_the_points(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that hardly says anything leaves it to the picture and the points."""
    _, boxes = write_ellipses(folder)
    content = json.loads(boxes.read_text())
    for entry in content["annotations"]:
        if not entry["iscrowd"]:
            x, y, w, h = entry["bbox"]
            entry["point_coords"] = [[x + w * 0.25, y + h * 0.25], [x + w * 0.75, y + h * 0.75]]
            entry["point_labels"] = [0, 1]
    points = boxes.with_name("points.json")
    points.write_text(json.dumps(content))
    extract((folder[0], points), tmp_path / "points.zarr", f"{FAKE}:detector")
    run = trained(tmp_path / "points.zarr", tmp_path / "run", monkeypatch)
    sure(monkeypatch, masks=0.0)
    cache_relabel(tmp_path / "points.zarr", out=tmp_path / "new.zarr", masks_from=str(run), device="cpu")
    heard = 0
    for key, view in views(tmp_path / "new.zarr").items():
        for (x0, y0, x1, y1), rle, crowd in zip(view.truth.boxes, view.truth.masks, view.truth.crowd, strict=True):
            if not crowd and key[1] == 0:
                mask = coco_mask.decode(rle)
                out, inside = (mask[int(y0 + (y1 - y0) * at), int(x0 + (x1 - x0) * at)] for at in (0.25, 0.75))
                heard += bool(inside) and not out
    assert heard >= 8, "points in are in, points outside are outside"


def test_a_kill_costs_little_and_ends_equal(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector")
    run = trained(tmp_path / "boxes.zarr", tmp_path / "run", monkeypatch)
    given = {"masks_from": str(run), "device": "cpu"}
    sure(monkeypatch)
    whole = cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "whole.zarr", **given)
    assert whole.masks is not None and whole.masks.given > 6
    monkeypatch.setattr(kept_answers, "SECONDS", 0.0)
    asked = sure(monkeypatch, kill_at=3)
    with pytest.raises(KeyboardInterrupt):
        cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "new.zarr", **given)
    cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "new.zarr", **given)
    assert len(asked) == 3 + 4, "of six images two were known"
    assert not (tmp_path / "new.zarr.masks").exists()
    assert_same(tmp_path / "new.zarr", tmp_path / "whole.zarr")


def test_unsure_masks_and_objects_without_a_query_keep_their_boxes(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector")
    run = trained(tmp_path / "boxes.zarr", tmp_path / "run", monkeypatch)
    made = cache_relabel(
        tmp_path / "boxes.zarr", out=tmp_path / "none.zarr", masks_from=str(run), least_iou=1.0, device="cpu"
    )
    assert made.masks is not None and made.masks.given == 0 and made.masks.refused["unsure"] > 6
    assert_same(tmp_path / "none.zarr", tmp_path / "boxes.zarr")
    monkeypatch.setattr(
        "frozen_cache.stages.head_masks.object_masks",
        lambda views, segmenter, **named: object_masks([], segmenter, **named),
    )
    made = cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "lost.zarr", masks_from=str(run), device="cpu")
    assert made.masks is not None and dict(made.masks.refused) == {"unmatched": 12}
    assert "12: no detection is matched with the object" in made.text()


def test_what_is_no_head_for_the_cache_is_one_line(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector")

    def said(source: Path | str) -> str:
        given = [str(tmp_path / "boxes.zarr"), "--out", str(tmp_path / "new.zarr"), "--masks-from", str(source)]
        assert exit_code(["cache", "relabel", *given]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    assert "--masks-from" in said("facebook/sam-vit-base") and "hf:" in said("facebook/sam-vit-base")
    extract((folder[0], boxes), tmp_path / "other.zarr", f"{FAKE}:uneven")
    run = trained(tmp_path / "other.zarr", tmp_path / "run", monkeypatch)
    assert "was trained on detector" in said(run)
