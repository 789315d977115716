"""`head.zoom`: C1 of crops of the boxes, from the original pixels, in training and wherever masks are made."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from frozen_cache.cache.close_up import zoomed_maps
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.stem_files import read_stem
from frozen_cache.cli.main import exit_code
from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.detectors.finer import at_scale
from frozen_cache.detectors.output import added_maps
from frozen_cache.errors import UserError
from frozen_cache.export.onnx_graph import SegmenterGraph
from frozen_cache.head.config import HeadConfig
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.stages.describe import describe
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.live import LiveData
from frozen_cache.stages.train import train_head
from frozen_cache.training.batches import ViewStore, make_batch
from frozen_cache.training.config import load_config

from .recomputed_cache import SMALL, close

ZOOM = SMALL | {"head.zoom": 32, "optim.epochs": 1}


@pytest.fixture(scope="module")
def run(recomputed, tmp_path_factory):
    out = tmp_path_factory.mktemp("zoom") / "run"
    train_head(cache=recomputed, out=out, overrides=ZOOM, device="cpu")
    return out


def test_c1_of_a_crop_is_the_stem_run_on_it_by_hand(recomputed, scenes):
    """The box is 128 pixels wide and 64 tall: a crop of 64 x 64 has the mean of two neighbours in each pixel.

    It is smaller by a thousandth of a pixel: a rounding error could give a bin a sample more than it has pixels.
    """
    reader = CacheReader(recomputed)
    attributes = reader.attributes
    stem = read_stem(recomputed, attributes.stem)
    names = {
        entry["id"]: entry["file_name"] for entry in json.loads((scenes / "annotations.json").read_text())["images"]
    }
    flips = set()
    for index in range(len(reader)):
        view = reader.read(index, close_up=True, encoder_layers=(), c1=False)
        flips.add(view.transform.flip)
        picture = np.asarray(Image.open(scenes / "images" / names[view.image_id]).convert("RGB"))
        x0, y0, x1, y1 = view.transform.crop
        picture = picture[y0:y1, x0:x1]
        picture = picture[:, ::-1] if view.transform.flip else picture
        height, width = picture.shape[:2]
        left, top = (width - 128) // 3, (height - 64) // 2
        crop = picture[top : top + 64, left : left + 128].reshape(64, 64, 2, 3).astype(np.float32).mean(2)
        image = attributes.detector.input.normalise(torch.from_numpy(crop).permute(2, 0, 1)[None])
        box = torch.tensor([[(left + 64) / width, (top + 32) / height, 127.999 / width, 63.999 / height]])
        assert view.close_up is not None
        found, wanted = (
            zoomed_maps([view.close_up], [box], side=64),
            stem.of_crops(image, added_maps(attributes.detector.encoder_levels)),
        )
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))
        assert reader.read(index, encoder_layers=(), c1=False).close_up is None
    assert flips == {False, True}


def test_the_added_maps_follow_c1_raised_to_its_size(recomputed):
    attributes = CacheReader(recomputed).attributes
    levels = attributes.detector.encoder_levels
    [added] = added_maps(levels)
    assert levels[added].source == "backbone stride 8 (added)"
    finer = CacheReader(recomputed, c1_scale=2).attributes.detector.encoder_levels
    [once] = added_maps(finer)
    assert finer[once].channels == levels[added].channels, "of two scales one counts"
    stem, images = read_stem(recomputed, attributes.stem), torch.rand(2, 3, 32, 32)
    c1, maps = stem(dict.fromkeys(stem.config.scales, images))
    raised = F.interpolate(maps[added], size=c1.shape[2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(stem.of_crops(images, [added]), torch.cat([c1, raised], 1))
    assert CacheReader(recomputed).head_inputs().zoom_channels == c1.shape[1] + raised.shape[1]


def test_beyond_the_picture_lies_the_mean_colour(recomputed):
    view = CacheReader(recomputed).read(0, close_up=True)
    [found] = zoomed_maps([view.close_up], [torch.tensor([[2.5, 0.5, 0.5, 0.5]])], side=32)
    attributes = CacheReader(recomputed).attributes
    stem, added = read_stem(recomputed, attributes.stem), added_maps(attributes.detector.encoder_levels)
    close(found, stem.of_crops(torch.zeros(1, 3, 32, 32), added)[0])


def test_a_batch_has_the_crops_of_its_own_rois(recomputed):
    reader = CacheReader(recomputed)
    store = ViewStore(reader, encoder_layer=1, c1=True, memory_bytes=0, close_up=True)
    config = load_config(preset="small-data", overrides={"head.zoom": 32})
    batch = make_batch(store, list(range(len(reader))), config, roi_side=32, seed=0)
    covered = torch.cat([batch.rois.boxes[:, :2], 1.2 * batch.rois.boxes[:, 2:]], dim=1)
    found = batch.zoomed_rois(covered, side=32).zoomed
    assert found is not None and len(found) == len(batch.rois.boxes) > len(reader)
    for at in range(len(reader)):
        mine = batch.rois.image_index == at
        if mine.any():
            near = reader.read(at, close_up=True).close_up
            close(found[mine], zoomed_maps([near], [covered[mine]], side=32))
    assert all(any(each is near.pixels for each in batch.tensors()) for near in batch.close_ups)


def test_masks_of_evaluate_and_predict_are_the_same(run, recomputed, scenes, tmp_path):
    evaluate(cache=recomputed, out=tmp_path / "results", head=run, device="cpu")
    results = json.loads((tmp_path / "results" / "segm_results.json").read_text())
    entry = json.loads((scenes / "annotations.json").read_text())["images"][0]
    picture = scenes / "images" / entry["file_name"]
    segmenter = InstanceSegmenter.load(run, detector=f"hf:{DETECTOR_DIR}", device="cpu")
    found = segmenter(picture, threshold=0)
    wanted = sorted((each for each in results if each["image_id"] == entry["id"]), key=lambda each: -each["score"])
    assert len(found) == len(wanted) > 0
    order = np.argsort(-np.asarray(found.scores), kind="stable")
    assert np.asarray(found.scores)[order] == pytest.approx([each["score"] for each in wanted], abs=1e-4)
    for place, row in enumerate(order[:20]):
        expected = coco_mask.decode(wanted[place]["segmentation"])
        assert (np.asarray(found.masks[row]) != expected).mean() < 1e-3
    blank = Image.new("RGB", Image.open(picture).size)
    prepared = segmenter.prepare(Image.open(picture).convert("RGB"))
    [view] = segmenter.detect([prepared])
    with_blank = segmenter.detect([segmenter.prepare(blank)])[0].close_up
    choice = segmenter.choice(threshold=0)
    changed = segmenter.segment(view.__class__(**(view.__dict__ | {"close_up": with_blank})), choice)
    assert not np.allclose(np.asarray(changed.scores), np.asarray(found.scores), atol=1e-4), "the crops decide"


def test_further_views_of_a_picture_are_looked_at_as_they_show_it(run, scenes):
    picture = Image.open(sorted((scenes / "images").iterdir())[0]).convert("RGB")
    segmenter = InstanceSegmenter.load(run, detector=f"hf:{DETECTOR_DIR}", views=3, device="cpu")
    prepared = segmenter.prepare(picture)
    [further] = segmenter.detect_further([prepared])
    for image, view in zip(prepared.further, further, strict=True):
        x0, y0, x1, y1 = image.transform.crop
        shown = np.asarray(picture)[y0:y1, x0:x1]
        near = view.close_up.pixels.permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(near, shown[:, ::-1] if image.transform.flip else shown)
    crops = {image.transform.crop for image in prepared.further}
    assert len(crops) == 2 and {image.transform.flip for image in prepared.further} == {False, True}
    assert len(segmenter(picture, threshold=0)) > 0


def test_it_is_one_line_where_images_or_stem_are_missing(run, stored, extract_scenes, tmp_path, capsys):
    settings = [text for key, value in ZOOM.items() for text in ("--set", f"{key}={value}")]
    assert exit_code(["train-head", "--cache", str(stored), "--out", str(tmp_path / "no"), *settings]) == 2
    error = capsys.readouterr().err
    assert "does not hold both: extract it with --c1 recomputed, or leave head.zoom out" in error
    assert error.count("\n") == 1 and not (tmp_path / "no").exists()
    with pytest.raises(UserError, match=r"--c1 recomputed"):
        evaluate(cache=stored, out=tmp_path / "results", head=run, device="cpu")


def test_a_live_training_has_none(folder, fake, tmp_path):
    images, annotations = folder
    data = LiveData(detector=fake.with_stem(), images=images, annotations=annotations)
    with pytest.raises(UserError, match=r"head\.zoom reads crops.*cache made with --c1 recomputed"):
        train_head(live=data, out=tmp_path / "run", overrides=ZOOM, device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_graph_cannot_hold_it():
    model = SimpleNamespace(head=SimpleNamespace(config=HeadConfig(zoom=32)))
    with pytest.raises(UserError, match=r"head\.zoom cannot become ONNX"):
        SegmenterGraph(model, gather=False, pasted=False)


def test_describe_counts_the_stem_on_the_crops(recomputed):
    options = {"preset": "small-data", "detector_shapes": str(recomputed), "image_size": (64, 64), "boxes": 3}
    found = describe(overrides={"head.zoom": 32}, **options)
    assert found.zoom_macs is not None and found.zoom_macs > 0
    assert describe(overrides={"head.zoom": 64}, **options).zoom_macs == 4 * found.zoom_macs
    assert "the detector's stem on 3 crops" in found.text()
    assert describe(**options).zoom_macs is None


def test_a_detector_of_another_scale_offers_the_same_stem(fake):
    detector = fake.with_stem()
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(at_scale(detector, 2).stem().of_crops(images), detector.stem().of_crops(images))
