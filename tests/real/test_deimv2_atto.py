"""The adapter on a real detector: DEIMv2-Atto, trained on COCO, against the raw transformers model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert

from frozen_cache.cache.reader import CacheReader
from frozen_cache.detectors.labels import match_labels
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.selection import select_pairs
from frozen_cache.errors import UserError
from frozen_cache.stages.extract import extract_features

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "real"
FACTORY = REAL / "deimv2_atto" / "load.py"

pytestmark = pytest.mark.skipif(not FACTORY.is_file(), reason="the real data (../shared/real) is not here")


@pytest.fixture(scope="module")
def detector() -> Any:
    return load_detector(f"{FACTORY}:detector", backbone_strides=(8,))


@pytest.fixture(scope="module")
def annotations() -> dict[str, Any]:
    return json.loads(next((REAL / "coco_mini").rglob("*val2017*.json")).read_text())


@pytest.fixture(scope="module")
def photos(annotations: dict[str, Any]) -> list[Image.Image]:
    """Three photos of the validation images."""
    names = [image["file_name"] for image in annotations["images"][:3]]
    return [Image.open(next((REAL / "coco_mini").rglob(name))).convert("RGB") for name in names]


def test_the_taps_are_those_that_were_measured(detector: Any) -> None:
    spec = detector.spec
    assert (spec.family, spec.num_queries, spec.query_dim, spec.num_labels) == ("deimv2", 100, 64, 80)
    assert (spec.c1.stride, spec.c1.channels) == (4, 64)
    assert [(level.stride, level.channels) for level in spec.encoder_levels] == [(8, 256), (16, 64), (32, 64)]
    model = detector.model.model
    paths = {
        "c1": model.conv_encoder.model.encoder.stages[0],
        8: model.conv_encoder.model.encoder.stages[1],
        16: model.encoder.fpn_block,
        32: model.encoder.pan_block,
        "queries": model.decoder.layers[2],
    }
    kept: dict[Any, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda module, inputs, output, key=key: kept.__setitem__(key, output))
        for key, module in paths.items()
    ]
    output = detector(torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(0)))
    for handle in handles:
        handle.remove()
    assert torch.equal(output.c1, kept["c1"])
    assert all(torch.equal(level, kept[key]) for level, key in zip(output.encoder[1], (8, 16, 32), strict=True))
    assert torch.equal(output.queries, kept["queries"])


def test_detections_on_photos_equal_the_raw_models(detector: Any, photos: list[Image.Image]) -> None:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(FACTORY.parent)
    rule = detector.spec.input
    for photo in photos:
        inputs = processor(images=photo, return_tensors="pt")
        size = rule.resized_size(height=photo.height, width=photo.width)
        pixels = rule.normalise(rule.resize_image(photo, size))[None]
        torch.testing.assert_close(pixels, inputs["pixel_values"], rtol=0, atol=1e-6)
        with torch.no_grad():
            raw = detector.model(**inputs)
        target = [(photo.height, photo.width)]
        theirs = processor.post_process_object_detection(raw, threshold=0.0, target_sizes=target)[0]
        output = detector(inputs["pixel_values"])
        pairs = select_pairs(output.scores[0], k=detector.spec.top_k)
        scale = torch.tensor([photo.width, photo.height, photo.width, photo.height])
        boxes = box_convert(output.boxes[0][pairs.query_index], "cxcywh", "xyxy") * scale
        assert torch.equal(pairs.scores, theirs["scores"])
        assert torch.equal(output.labels[pairs.column], theirs["labels"])
        torch.testing.assert_close(boxes, theirs["boxes"], rtol=0, atol=1e-3)
        assert pairs.scores[0] > 0.3, "a trained detector is sure of something in every photo"


def test_all_80_labels_find_their_coco_category(detector: Any, annotations: dict[str, Any]) -> None:
    mapping = match_labels(detector.spec, annotations["categories"])
    assert len(mapping) == 80
    names = {category["id"]: category["name"] for category in annotations["categories"]}
    assert {label: names[category] for label, category in mapping.items()} == detector.spec.label_names


def test_loading_the_folder_itself_loses_no_weight(detector: Any) -> None:
    """All weights of the file arrive; what else the factory mends is not theirs."""
    from safetensors.torch import load_file

    folder = FACTORY.parent
    plain: Any = load_detector(f"hf:{folder}")
    state = plain.model.state_dict()
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(state[name], value) for name, value in stored.items() if name in state)


def test_a_stride_that_the_backbone_lacks_is_an_error() -> None:
    with pytest.raises(UserError, match=r"no backbone map of stride 32; it has \[4, 8, 16\]"):
        load_detector(f"{FACTORY}:detector", backbone_strides=(32,))


def test_a_cache_of_twice_the_scale_has_finer_maps_and_the_same_boxes(tmp_path: Path) -> None:
    caches = {}
    options: dict[str, Any] = {
        "detector": f"{FACTORY}:detector",
        "images": REAL / "coco_mini" / "val2017",
        "annotations": REAL / "coco_mini" / "annotations" / "instances_val2017.json",
        "backbone_strides": (8, 16),
        "limit": 2,
    }
    for scale in (1, 2):
        extract_features(out=tmp_path / f"{scale}.zarr", backbone_scale=scale, **options)
        reader = CacheReader(tmp_path / f"{scale}.zarr")
        caches[scale] = reader.read(1, encoder_layers=(1,), c1=True)
    plain, finer = caches[1], caches[2]
    assert torch.equal(plain.boxes, finer.boxes)
    assert torch.equal(plain.scores, finer.scores)
    assert plain.c1.shape == (64, 80, 80)
    assert finer.c1.shape == (64, 160, 160)
    assert [level.shape[-1] for level in plain.encoder[1]] == [40, 20, 20, 10]
    assert [level.shape[-1] for level in finer.encoder[1]] == [80, 40, 40, 20, 20, 10]
    coarse = torch.nn.functional.avg_pool2d(finer.c1[None], 2)[0]
    alike, mirrored = (
        torch.nn.functional.cosine_similarity(other.flatten(), plain.c1.flatten(), dim=0)
        for other in (coarse, coarse.flip(2))
    )
    assert alike > mirrored + 0.05, "the same picture, not turned round"
    extract_features(out=tmp_path / "recomputed.zarr", c1="recomputed", **options)
    for scale, stored in caches.items():
        made = CacheReader(tmp_path / "recomputed.zarr", c1_scale=scale).read(1)
        for one, other in ((made.c1, stored.c1), *zip(made.encoder[1], stored.encoder[1], strict=True)):
            torch.testing.assert_close(one, other, rtol=0, atol=2e-3 * other.abs().max().item())  # float16 is stored
