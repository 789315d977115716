"""The detector that comes with the demo is small, loads by the ordinary way, and detects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from frozen_cache.demo import DETECTOR_DIR, write_scenes
from frozen_cache.demo.shapes import CATEGORY_IDS
from frozen_cache.evaluation.coco import coco_metrics
from frozen_cache.evaluation.matching import coco_in_memory

UNSEEN_SEED = 4711
"""None of the seeds of the training or of its evaluations."""


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForObjectDetection.from_pretrained(DETECTOR_DIR).eval()


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoImageProcessor.from_pretrained(DETECTOR_DIR)


@torch.inference_mode()
def detect(model: Any, processor: Any, picture: Image.Image) -> dict[str, torch.Tensor]:
    """Scores (N,), labels (N,) and boxes (N, 4) xyxy in the picture's pixels."""
    output = model(**processor(images=picture, return_tensors="pt"))
    sizes = [(picture.height, picture.width)]
    (found,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=sizes)
    return cast("dict[str, torch.Tensor]", found)


def test_the_weights_are_under_four_megabytes() -> None:
    assert (DETECTOR_DIR / "model.safetensors").stat().st_size < 4_000_000


def test_it_knows_the_classes_by_name_and_computes_in_float32(model: Any) -> None:
    assert list(model.config.id2label.items()) == list(enumerate(CATEGORY_IDS))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_its_maps_have_the_strides_that_a_mask_head_needs(model: Any, processor: Any) -> None:
    pixels = processor(images=Image.new("RGB", (200, 160)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 192, 192)
    with torch.inference_mode():
        output = model(pixel_values=pixels)
        c1 = model.model.backbone.model(pixels, output_hidden_states=True).hidden_states[1]
    assert c1.shape == (1, 48, 48, 48)
    assert [tuple(level.shape) for level in output.encoder_last_hidden_state] == [
        (1, 64, 24, 24),
        (1, 64, 12, 12),
        (1, 64, 6, 6),
    ]


def test_boxes_come_back_in_pixels_of_the_picture(model: Any, processor: Any, tmp_path: Path) -> None:
    write_scenes(tmp_path, images=1, seed=UNSEEN_SEED)
    with Image.open(tmp_path / "images" / "000000.jpg") as picture:
        found = detect(model, processor, picture)
        sure = found["boxes"][found["scores"] > 0.5]
        assert len(sure) > 0
        assert (sure > -8).all()
        assert (sure[:, [0, 2]] < picture.width + 8).all()
        assert (sure[:, [1, 3]] < picture.height + 8).all()
        assert (sure[:, 2:] > sure[:, :2]).all()


def test_its_box_ap_on_unseen_scenes_is_at_least_sixty(model: Any, processor: Any, tmp_path: Path) -> None:
    content = json.loads(write_scenes(tmp_path, images=60, seed=UNSEEN_SEED).read_text())
    results = []
    for image in content["images"]:
        with Image.open(tmp_path / "images" / image["file_name"]) as picture:
            found = detect(model, processor, picture)
        for score, label, (x0, y0, x1, y1) in zip(
            found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True
        ):
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": CATEGORY_IDS[model.config.id2label[label]],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": score,
                }
            )
    assert coco_metrics(coco_in_memory(content), results, "bbox")["AP"] >= 0.60
