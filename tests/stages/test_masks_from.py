"""`cache relabel --masks-from`: boxes become masks, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from frozen_cache.cache.integrity import verify_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import exit_code
from frozen_cache.errors import UserError
from frozen_cache.prompted import kept_answers
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.cache_subset import cache_subset
from frozen_cache.stages.cache_tools import cache_info
from frozen_cache.stages.train import train_head

from .conftest import FAKE
from .prompters import Folder, TruePrompter, use, write_ellipses
from .test_cache_relabel import assert_same, extract, views

MODEL = "hf:model"


def changed_boxes(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        if not entry["iscrowd"]:
            change(entry)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["uneven", "uneven_with_stem"])
def test_a_model_that_knows_the_masks_makes_the_cache_that_the_masks_make(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    masks, boxes = write_ellipses(folder)
    options = {"views": 3, "c1": "recomputed" if "stem" in kind else "stored"}
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:{kind}", **options)
    cache_relabel(tmp_path / "boxes.zarr", annotations=masks, out=tmp_path / "masks.zarr")
    prompter = TruePrompter(folder[0], masks)
    use(monkeypatch, prompter, "cache_relabel")
    if "stem" in kind:
        shutil.move(folder[0], tmp_path / "elsewhere")  # the cache has the images
    made = cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "own.zarr", masks_from=MODEL)
    assert_same(tmp_path / "own.zarr", tmp_path / "masks.zarr")
    assert any(view.transform.flip for view in views(tmp_path / "own.zarr").values())
    assert sorted(prompter.asked) == [0, 20, 30, 40, 50, 60], "each image once, whatever its views"
    assert made.masks is not None and (made.masks.given, made.masks.refused.total()) == (12, 0)
    attributes = CacheReader(tmp_path / "own.zarr").attributes
    assert attributes.data.points is None and attributes.data.counts.without_masks == 0
    assert [(by.model, by.sha256) for by in attributes.data.masks_from] == [("hf:truth", "5" * 64)]
    text = cache_info(tmp_path / "own.zarr").text()
    assert "12 masks given by a model" in text and "hf:truth (sha256 555555555555)" in text
    if "stem" not in kind:
        cache_relabel(tmp_path / "masks.zarr", annotations=boxes, out=tmp_path / "both.zarr", masks_from=MODEL)
        assert_same(tmp_path / "both.zarr", tmp_path / "masks.zarr")


def test_masks_that_are_there_stay_unless_all_are_replaced(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, boxes = write_ellipses(folder)
    full = {entry["id"]: entry for entry in json.loads(folder[1].read_text())["annotations"]}  # filled boxes
    changed_boxes(boxes, lambda entry: entry["id"] % 2 and entry.update(segmentation=full[entry["id"]]["segmentation"]))
    extract((folder[0], boxes), tmp_path / "mixed.zarr", f"{FAKE}:detector", views=2)
    use(monkeypatch, TruePrompter(folder[0], masks), "cache_relabel")
    cache_relabel(tmp_path / "mixed.zarr", out=tmp_path / "some.zarr", masks_from=MODEL)
    cache_relabel(tmp_path / "mixed.zarr", out=tmp_path / "all.zarr", masks_from=MODEL, replace_masks=True)
    cache_relabel(tmp_path / "mixed.zarr", annotations=masks, out=tmp_path / "masks.zarr")
    assert_same(tmp_path / "all.zarr", tmp_path / "masks.zarr")
    wanted = views(tmp_path / "masks.zarr")
    for key, view in views(tmp_path / "some.zarr").items():
        for number, mask, true, crowd in zip(
            view.truth.annotation_ids, view.truth.masks, wanted[key].truth.masks, view.truth.crowd, strict=False
        ):
            if key[1] == 0 and not crowd:
                assert (mask == true) == (number % 2 == 0), number
    with pytest.raises(UserError, match="all objects have masks; --replace-masks"):
        cache_relabel(tmp_path / "some.zarr", out=tmp_path / "again.zarr", masks_from=MODEL)


def without(rows: slice, columns: slice) -> Any:
    """Nothing of a mask in a part of its own box, given in tenths."""

    def change(mask: np.ndarray) -> np.ndarray:
        x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask))).astype(int)
        made = mask.copy()
        made[y + h * rows.start // 10 : y + h * rows.stop // 10, x + w * columns.start // 10 : x + w] = 0
        return made

    return change


ABSURD: list[tuple[str, dict[str, Any]]] = [
    ("low", {"iou": 0.49}),
    ("low", {"iou": float("nan")}),
    ("no pixel", {"change": lambda mask: mask * 0}),
    ("outside", {"change": lambda mask: 1 - mask}),
    ("a part", {"change": without(slice(3, 10), slice(0, 10))}),
]


def test_absurd_masks_are_counted_and_the_boxes_stay(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector")
    for number, (reason, options) in enumerate(ABSURD):
        out = tmp_path / f"{number}.zarr"
        use(monkeypatch, TruePrompter(folder[0], masks, **options), "cache_relabel")
        made = cache_relabel(tmp_path / "boxes.zarr", out=out, masks_from=MODEL)
        assert "0 masks given by the model, 12 of its masks not believed" in made.text() and reason in made.text()
        assert_same(out, tmp_path / "boxes.zarr")
        attributes = CacheReader(out).attributes
        assert (attributes.data.points, attributes.data.counts.boxes_alone) == (0, 12)
        assert "12 masks of a model not believed" in cache_info(out).text()


def test_a_mask_is_cut_at_its_box_which_stays_and_matches(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box's matches and numbers stay, though the mask's own box is another one."""
    masks, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector")

    def specked(mask: np.ndarray) -> np.ndarray:
        made = without(slice(8, 10), slice(0, 10))(mask)
        made[[0, -1], [0, -1]] = 1
        return made

    use(monkeypatch, TruePrompter(folder[0], masks, change=specked), "cache_relabel")
    cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "new.zarr", masks_from=MODEL)
    before, smaller = views(tmp_path / "boxes.zarr"), 0
    for key, view in views(tmp_path / "new.zarr").items():
        old = before[key].truth
        assert np.array_equal(view.truth.boxes, old.boxes) and np.array_equal(view.truth.match, old.match)
        assert view.selected == before[key].selected and len(view.labels) == len(before[key].labels)
        for mask, area, filled, crowd in zip(view.truth.masks, view.truth.areas, old.masks, old.crowd, strict=True):
            assert crowd or not (coco_mask.decode(mask) & ~coco_mask.decode(filled)).any()
            assert crowd or area == coco_mask.area(mask)
            smaller += coco_mask.toBbox(mask)[3] < coco_mask.toBbox(filled)[3]
    assert smaller == 12


def test_what_was_asked_before_a_kill_is_not_asked_again(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector")
    prompter = TruePrompter(folder[0], masks)
    use(monkeypatch, prompter, "cache_relabel")
    monkeypatch.setattr(kept_answers, "SECONDS", 0.0)
    given = {"out": tmp_path / "new.zarr", "masks_from": MODEL}

    def dies(mask: np.ndarray) -> np.ndarray:
        if len(prompter.asked) == 4:
            raise KeyboardInterrupt
        return mask

    prompter.change = dies
    with pytest.raises(KeyboardInterrupt):
        cache_relabel(tmp_path / "boxes.zarr", **given)
    kept = tmp_path / "new.zarr.masks"
    assert sorted(path.name for path in kept.iterdir()) == ["000000.json", "000001.json", "000002.json"]
    (kept / "000001.json").write_bytes(b'{"question"')  # by whatever
    cache_relabel(tmp_path / "boxes.zarr", **given)
    assert prompter.asked == [0, 20, 30, 40, 20, 40, 50, 60]
    assert not kept.exists()
    cache_relabel(tmp_path / "boxes.zarr", **given)
    assert len(prompter.asked) == 8, "it is all there"
    cache_relabel(tmp_path / "boxes.zarr", annotations=masks, out=tmp_path / "masks.zarr")
    assert_same(tmp_path / "new.zarr", tmp_path / "masks.zarr")
    with pytest.raises(UserError, match="images or annotations"):
        cache_relabel(tmp_path / "boxes.zarr", least_iou=0.6, **given)
    assert len(prompter.asked) == 14, "another question"


def test_a_subset_and_a_training_know_whose_masks_they_are(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, boxes = write_ellipses(folder)
    extract((folder[0], boxes), tmp_path / "boxes.zarr", f"{FAKE}:detector")
    use(monkeypatch, TruePrompter(folder[0], masks), "cache_relabel")
    cache_relabel(tmp_path / "boxes.zarr", out=tmp_path / "new.zarr", masks_from=MODEL)
    cache_subset(tmp_path / "new.zarr", out=tmp_path / "part.zarr", limit=3)
    assert not verify_cache(tmp_path / "part.zarr").damages
    small = {"head.width": 16, "head.roi_size": 8, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}
    run = tmp_path / "run"
    monkeypatch.setattr("frozen_cache.stages.train.plot_run", lambda *arguments: None)
    train_head(cache=tmp_path / "part.zarr", out=run, overrides=small | {"optim.epochs": 1.0}, device="cpu")
    for file in ("README.md", "report.html"):
        assert "hf:truth (sha256 555555555555)" in (run / file).read_text(), file


@pytest.fixture
def boxed(folder: Folder, tmp_path: Path) -> Path:
    """A cache of boxes alone, without images."""
    extract((folder[0], write_ellipses(folder)[1]), tmp_path / "boxes.zarr", f"{FAKE}:detector")
    return tmp_path / "boxes.zarr"


def test_what_is_missing_is_one_line(
    boxed: Path, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*options: Any) -> str:
        assert exit_code(["cache", "relabel", str(boxed), "--out", str(tmp_path / "new.zarr"), *map(str, options)]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    assert "give --annotations FILE, or --masks-from MODEL" in said()
    assert "are for --masks-from" in said("--annotations", folder[1], "--replace-masks")
    assert "are for --annotations" in said("--masks-from", "hf:x", "--only", "apple")
    assert f"{tmp_path / 'none'} does not exist" in said("--masks-from", f"hf:{tmp_path / 'none'}")
    assert "give hf:FOLDER" in said("--masks-from", "sam-vit-base")
    use(monkeypatch, TruePrompter(folder[0], folder[1].with_name("masks.json")), "cache_relabel")
    (boxed / "hints.json").rename(tmp_path / "hints.json")
    assert "whose folder is not known: give --images" in said("--masks-from", "hf:x")
    assert "not known how they are named" in said("--masks-from", "hf:x", "--images", folder[0])
    (tmp_path / "hints.json").rename(boxed / "hints.json")
    asked = ("--masks-from", "hf:x")
    assert "is no folder" in said(*asked, "--images", tmp_path / "none")
    (folder[0] / "002.png").unlink()
    assert "1 of 6 are not in" in (line := said(*asked)) and "image 20 (002.png)" in line
    (folder[0] / "002.png").write_bytes(b"no image")
    assert "image 20 (002.png)" in said(*asked)
    shutil.move(folder[0], tmp_path / "elsewhere")
    assert "whose folder is not known: give --images" in said(*asked)
    assert not (tmp_path / "new.zarr").exists()
