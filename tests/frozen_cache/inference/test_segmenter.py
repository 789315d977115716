"""Masks on pictures are those of `evaluate`, whatever form the picture comes in."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from frozen_cache.data.images import BrokenImageError
from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.errors import UserError
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.export import export_model
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head
from frozen_cache.training.run_directory import RUN_FILE, load_record
from tests.frozen_cache.inference.conftest import FAKE, SMALL, with_id_0


@pytest.fixture(scope="module")
def segmenter(trained: Any) -> InstanceSegmenter:
    return InstanceSegmenter.load(trained.run, device="cpu")


@pytest.fixture(scope="module")
def expected(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The results of `evaluate`, by kind."""
    out = tmp_path_factory.mktemp("results") / "out"
    evaluate(cache=trained.cache, head=trained.run, out=out, device="cpu")
    return {kind: json.loads((out / f"{kind}_results.json").read_text()) for kind in ("segm", "bbox")}


def photos(trained: Any) -> dict[int, Path]:
    """Image id -> file."""
    images = json.loads(trained.annotations.read_text())["images"]
    return {image["id"]: trained.images / image["file_name"] for image in images}


def test_the_masks_boxes_and_scores_are_those_of_evaluate(trained, segmenter, expected):
    for image_id, path in photos(trained).items():
        found = segmenter(path, threshold=0)
        for kind in ("segm", "bbox"):
            theirs = [entry for entry in expected[kind] if entry["image_id"] == image_id]
            assert found.to_coco(image_id, kind=kind) == theirs
    assert sum(coco_mask.area(entry["segmentation"]) for entry in expected["segm"]) > 0


def test_the_mean_over_views_is_that_of_evaluate(trained, tmp_path):
    """Of a picture alone, and of two of one size together."""
    several = InstanceSegmenter.load(trained.run, views=3, device="cpu")
    plain = InstanceSegmenter.load(trained.run, device="cpu")
    objects = json.loads(trained.annotations.read_text())["annotations"]
    paths = {each: path for each, path in photos(trained).items() if any(one["image_id"] == each for one in objects)}
    changed = 0
    for image_id, path in paths.items():
        cache, out = tmp_path / f"{image_id}.zarr", tmp_path / str(image_id)
        one = with_id_0(trained.annotations, image_id, tmp_path / "one.json")
        extract_features(detector=f"{FAKE}:uneven", images=trained.images, annotations=one, out=cache, views=3,
                         precision="float32", batch_size=1)  # fmt: skip
        evaluate(cache=cache, head=trained.run, out=out, views=3, device="cpu")
        found = several(path, threshold=0)
        theirs = json.loads((out / "segm_results.json").read_text())
        for mine, other in zip(found.to_coco(), theirs, strict=True):
            assert mine | {"score": None} == other | {"score": None}
            assert mine["score"] == pytest.approx(other["score"], abs=1e-6)
        upside_down = Image.open(path).convert("RGB").transpose(Image.Transpose.ROTATE_180)
        pair = several([path, upside_down], threshold=0, batch_size=2)
        for in_batch, alone in zip(pair, (found, several(upside_down, threshold=0)), strict=True):
            np.testing.assert_allclose(in_batch.probabilities, alone.probabilities, atol=1e-4)
        before = plain(path, threshold=0)
        np.testing.assert_array_equal(before.mask_boxes, found.mask_boxes)
        changed += not np.allclose(before.probabilities, found.probabilities, atol=1e-3)
    assert changed > 3


@pytest.mark.parametrize(
    ("precision", "step", "c1", "least"),
    [
        ("float16", None, "stored", 0.99),
        ("int8", None, "stored", 1.0),
        ("coded", None, "stored", 1.0),
        ("coded", 2.2, "stored", 1.0),
        ("coded", 1.0, "recomputed", 1.0),
    ],
)
def test_maps_are_rounded_as_in_the_cache_that_the_head_was_trained_from(scenes, tmp_path, precision, step, c1, least):
    """Here and from an exported folder; other heads see maps as they are."""
    extract_features(detector=f"hf:{DETECTOR_DIR}", images=scenes / "images", annotations=scenes / "annotations.json",
                     out=tmp_path / "x.zarr", precision=precision, step=step, c1=c1, batch_size=1)  # fmt: skip
    train_head(cache=tmp_path / "x.zarr", out=tmp_path / "run", overrides=SMALL)
    evaluate(cache=tmp_path / "x.zarr", head=tmp_path / "run", out=tmp_path / "out", device="cpu")
    theirs = json.loads((tmp_path / "out" / "segm_results.json").read_text())
    export_model(run=tmp_path / "run", out=tmp_path / "model")
    plain = tmp_path / "plain"
    shutil.copytree(tmp_path / "run", plain)
    record = json.loads((plain / RUN_FILE).read_text())
    record["source"].pop("kept")
    (plain / RUN_FILE).write_text(json.dumps(record))
    for model, rounds in ((tmp_path / "run", True), (tmp_path / "model", True), (plain, False)):
        segmenter = InstanceSegmenter.load(model, device="cpu")
        found = [
            entry
            for image in json.loads((scenes / "annotations.json").read_text())["images"]
            for entry in segmenter(scenes / "images" / image["file_name"], threshold=0).to_coco(image["id"])
        ]
        assert len(found) == len(theirs) > 100
        ious = [
            float(coco_mask.iou([a["segmentation"]], [b["segmentation"]], [0])[0, 0])
            for a, b in zip(found, theirs, strict=True)
            if coco_mask.area(b["segmentation"]) > 100
        ]
        assert len(ious) > 20
        if rounds or precision == "float16":
            assert min(ious) >= least
        else:
            assert min(ious) < 0.99


def test_masks_are_at_the_image_s_own_size_and_equal_their_run_lengths(trained, segmenter):
    for path in photos(trained).values():
        found = segmenter(path, threshold=0)
        with Image.open(path) as image:
            assert found.masks.shape == (6, image.height, image.width)
        assert found.masks.dtype == bool
        for mask, rle in zip(found.masks, found.rles, strict=True):
            assert (coco_mask.decode(rle) == mask).all()


def test_a_picture_may_come_in_any_form(trained, segmenter):
    path = photos(trained)[20]
    picture = Image.open(path).convert("RGB")
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    forms = [str(path), picture, array, array[:, ::-1][:, ::-1], tensor, tensor / 255, tensor.double() / 255]
    expected = segmenter(path, threshold=0)
    assert len(expected) == 6
    for found in segmenter(forms, threshold=0):
        assert found.to_coco() == expected.to_coco()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_list_gives_what_each_image_gives_alone_in_its_order(trained, segmenter, batch_size):
    paths = [path for path in photos(trained).values() for _ in range(2)]
    several = segmenter(paths, threshold=0, batch_size=batch_size)
    assert len(several) == len(paths)
    for path, found in zip(paths, several, strict=True):
        alone = segmenter(path, threshold=0)
        assert found.size == alone.size
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-4)
        np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-4)


def test_a_threshold_leaves_out_masks_and_changes_none(trained, segmenter):
    for path in photos(trained).values():
        everything = segmenter(path, threshold=0)
        threshold = float(np.sort(everything.scores)[3])
        kept = segmenter(path, threshold=threshold)
        expected = everything[everything.scores >= threshold]
        assert kept.labels.tolist() == expected.labels.tolist()
        np.testing.assert_allclose(kept.scores, expected.scores, rtol=1e-5)
        np.testing.assert_allclose(kept.probabilities, expected.probabilities, atol=1e-5)


def test_classes_and_the_number_of_detections_are_the_user_s_choice(trained, segmenter):
    path = photos(trained)[20]
    everything = segmenter(path, threshold=0)
    some = segmenter(path, threshold=0, classes=["pear", 9])
    assert set(some.names) <= {"pear", "plum"}
    assert len(some) == sum(name in ("pear", "plum") for name in everything.names) > 0
    best = segmenter(path, threshold=0, max_detections=2)
    assert sorted(best.scores) == sorted(everything.scores)[-2:]
    assert (np.diff(best.box_scores) <= 0).all()


def test_the_mask_threshold_says_where_masks_end(trained, segmenter):
    path = photos(trained)[20]
    areas = [segmenter(path, threshold=0, mask_threshold=value).masks.sum() for value in (0.2, 0.5, 0.8)]
    assert areas[0] >= areas[1] >= areas[2]
    assert areas[0] > areas[2]


def test_a_file_is_turned_upright_and_a_picture_in_memory_is_taken_as_it_is(segmenter, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    upright = Image.fromarray(np.rot90(pixels, -1).copy())
    found = segmenter(tmp_path / "turned.png", threshold=0)
    assert found.size == (50, 30)
    assert found.to_coco() == segmenter(upright, threshold=0).to_coco()
    with Image.open(tmp_path / "turned.png") as opened:
        assert segmenter(opened, threshold=0).size == (30, 50)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), "uint8 RGB"),
        (np.zeros((4, 4, 3), np.float32), "uint8 RGB"),
        (torch.zeros(4, 4, 3), r"\(3, H, W\)"),
        (torch.full((3, 4, 4), 2.0), "0..1"),
        (torch.full((3, 4, 4), float("nan")), "0..1"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "uint8"),
        (7, "int"),
        ("nowhere.jpg", "nowhere.jpg"),
    ],
)
def test_what_is_no_image_is_one_clear_line(segmenter, image, said):
    with pytest.raises(UserError, match=said):
        segmenter(image)


def test_a_broken_file_is_named(segmenter, tmp_path):
    (tmp_path / "words.jpg").write_text("dear")
    with pytest.raises(BrokenImageError, match=r"words\.jpg"):
        segmenter(tmp_path / "words.jpg")


def test_only_formats_of_photographs_are_opened_whatever_a_file_s_name(segmenter, tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "drawing.jpg", format="EPS")  # Pillow would start Ghostscript for it
    with pytest.raises(BrokenImageError, match=r"drawing\.jpg is not an image that can be read: it is none of JPEG"):
        segmenter(tmp_path / "drawing.jpg")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"mask_threshold": -1}, "mask_threshold"),
        ({"max_detections": 0}, "max_detections"),
        ({"batch_size": 0}, "batch_size"),
        ({"classes": ["peer"]}, "apple, pear, plum"),
    ],
)
def test_a_wrong_option_is_one_clear_line(trained, segmenter, options, said):
    with pytest.raises(UserError, match=said):
        segmenter(photos(trained)[0], **options)


def test_threads_share_a_segmenter(trained, segmenter):
    paths = list(photos(trained).values())
    expected = [segmenter(path, threshold=0).to_coco() for path in paths]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: segmenter(path, threshold=0).to_coco(), paths * 4))
    assert found == expected * 4


def test_nothing_found_is_an_empty_result(segmenter):
    found = segmenter(np.zeros((20, 30, 3), np.uint8), threshold=1.0)
    assert len(found) == 0
    assert found.masks.shape == (0, 20, 30)
    assert found.to_coco() == found.rles == found.names == []
    with pytest.raises(UserError, match="kind polygon: give segm or bbox"):
        found.to_coco(kind="polygon")
    assert len(found.to_supervision()) == 0


def test_supervision_takes_over_everything(trained, segmenter):
    found = segmenter(photos(trained)[20], threshold=0)
    theirs = found.to_supervision()
    assert (theirs.mask == found.masks).all()
    assert (theirs.xyxy == found.boxes).all()
    assert theirs.confidence.tolist() == found.scores.tolist()
    assert theirs.class_id.tolist() == found.labels.tolist()
    assert theirs.data["class_name"].tolist() == found.names


def test_what_instances_cannot_become_is_an_error_of_our_own(segmenter, trained, monkeypatch):
    found = segmenter(photos(trained)[20], threshold=0)
    with pytest.raises(UserError, match="kind polygons: give segm or bbox"):
        found.to_coco(1, kind="polygons")
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"pip install 'frozen-cache\[supervision\]'"):
        found.to_supervision()


def test_instances_are_picked_as_from_an_array(trained, segmenter):
    found = segmenter(photos(trained)[20], threshold=0)
    for where in (slice(1, 3), [1, 2], np.array([False, True, True, False, False, False])):
        some = found[where]
        assert some.to_coco() == found.to_coco()[1:3]
        assert (some.masks == found.masks[1:3]).all()
    assert found[0].to_coco() == found.to_coco()[:1]


def test_attention_between_objects_sees_all_of_them_whatever_is_kept(trained, tmp_path):
    overrides = {
        "head.width": 16, "head.roi_size": 8, "head.image_layers": 0, "head.query_blocks": ["o2o"],
        "head.mask_scoring": False, "optim.epochs": 0.1,
    }  # fmt: skip
    train_head(cache=trained.cache, out=tmp_path / "run", overrides=overrides)
    segmenter = InstanceSegmenter.load(tmp_path / "run", device="cpu")
    path = photos(trained)[20]
    everything = segmenter(path, threshold=0)
    some = segmenter(path, threshold=float(np.sort(everything.scores)[4]))
    assert 0 < len(some) < 6
    assert some.to_coco() == everything[everything.scores >= some.scores.min()].to_coco()
    pears = np.array([name == "pear" for name in everything.names])
    assert segmenter(path, threshold=0, classes=["pear"]).to_coco() == everything[pears].to_coco()
    assert 0 < pears.sum() < 6


def changed_run(trained: Any, tmp_path: Path, **source: Any) -> Path:
    """The run with another record of its detector."""
    run = tmp_path / "run"
    run.mkdir()
    record = json.loads((trained.run / RUN_FILE).read_text())
    record["source"] |= source
    (run / RUN_FILE).write_text(json.dumps(record))
    (run / "last.safetensors").write_bytes((trained.run / "last.safetensors").read_bytes())
    return run


def test_a_detector_that_has_moved_is_given_anew(trained, tmp_path):
    factory = load_record(trained.run).source.detector
    run = changed_run(trained, tmp_path, detector=f"{tmp_path}/gone.py:uneven")
    with pytest.raises(UserError, match=r"gone\.py.*--detector"):
        InstanceSegmenter.load(run, device="cpu")
    path = photos(trained)[20]
    moved = InstanceSegmenter.load(run, detector=factory, device="cpu")(path, threshold=0)
    assert moved.to_coco() == InstanceSegmenter.load(trained.run)(path, threshold=0).to_coco()


def test_a_detector_of_other_weights_or_features_is_refused(trained, fake_module):
    with pytest.raises(UserError, match="other weights"):
        InstanceSegmenter.load(trained.run, detector=fake_module.retrained())
    with pytest.raises(UserError, match="input was"):
        InstanceSegmenter.load(trained.run, detector=fake_module.detector())


def test_the_code_of_a_run_from_another_computer_is_not_run(trained, tmp_path):
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    run = changed_run(trained, tmp_path, detector=f"{evil}:factory", machine="elsewhere")
    with pytest.raises(UserError, match=r"evil\.py.*--detector"):
        InstanceSegmenter.load(run)
    assert not (tmp_path / "ran").exists()


def test_a_run_of_an_earlier_version_needs_its_detector_named(trained, fake_module, tmp_path):
    run = changed_run(trained, tmp_path)
    record = json.loads((run / RUN_FILE).read_text())
    del record["source"]
    (run / RUN_FILE).write_text(json.dumps(record))
    with pytest.raises(UserError, match="--detector"):
        InstanceSegmenter.load(run)
    path = photos(trained)[20]
    found = InstanceSegmenter.load(run, detector=fake_module.uneven())(path, threshold=0)
    assert found.to_coco() == InstanceSegmenter.load(trained.run)(path, threshold=0).to_coco()


def test_no_model_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        InstanceSegmenter.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"run\.json"):
        InstanceSegmenter.load(tmp_path)
