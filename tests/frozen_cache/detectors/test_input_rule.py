"""`InputRule` against the image processors of transformers, and by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from pydantic import ValidationError

from frozen_cache.detectors.hf.input_rule import rule_from_processor
from frozen_cache.detectors.input_rule import InputRule, shortest_edge_size
from frozen_cache.errors import UserError

SIZES = [(37, 53), (64, 48), (31, 31), (20, 111), (95, 40)]
"""(height, width) of the test images: odd, square, wider and higher than the longest edge allows."""

EDGES = {"shortest_edge": 48, "longest_edge": 77}
SQUARE = {"height": 45, "width": 60}

WORDS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
WORKS = {n: WORDS[n] for n in (0, 1, 2, 3)}
"""What torchvision resizes tensors with."""

PROCESSORS: dict[str, Any] = {
    "detr": lambda: hf.DetrImageProcessor(size=EDGES),
    "detr_pil": lambda: hf.DetrImageProcessorPil(size=EDGES),
    "conditional_detr": lambda: hf.ConditionalDetrImageProcessor(size=EDGES),
    "conditional_detr_pil": lambda: hf.ConditionalDetrImageProcessorPil(size=EDGES),
    "deformable_detr": lambda: hf.DeformableDetrImageProcessor(size=EDGES),
    "deformable_detr_pil": lambda: hf.DeformableDetrImageProcessorPil(size=EDGES),
    "rt_detr": lambda: hf.RTDetrImageProcessor(size=SQUARE),
    "rt_detr_pil": lambda: hf.RTDetrImageProcessorPil(size=SQUARE),
    "rt_detr_normalised": lambda: hf.RTDetrImageProcessor(size=SQUARE, do_normalize=True),
    "rf_detr": lambda: hf.RfDetrImageProcessor(size=SQUARE),
    **{f"{word}_of_detr": lambda n=n: hf.DetrImageProcessor(size=EDGES, resample=n) for n, word in WORKS.items()},
    **{
        f"{word}_of_detr_pil": lambda n=n: hf.DetrImageProcessorPil(size=EDGES, resample=n) for n, word in WORDS.items()
    },
    "bicubic": lambda: hf.RTDetrImageProcessor(size=SQUARE, resample=3),
    "bicubic_pil": lambda: hf.RTDetrImageProcessorPil(size=SQUARE, resample=3),
}


def _image(height: int, width: int) -> Image.Image:
    generator = np.random.default_rng(height * 1000 + width)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_rule_gives_the_processors_own_pixel_values(name: str) -> None:
    processor = PROCESSORS[name]()
    rule = rule_from_processor(processor)
    assert rule.resample == {"rf_detr": "torchvision_float"}.get(name, "pil" if "pil" in name else "torchvision")
    for height, width in SIZES:
        image = _image(height, width)
        expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
        size = rule.resized_size(height=height, width=width)
        assert size == tuple(expected.shape[-2:])
        found = rule.normalise(rule.resize_image(image, size))
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_a_rule_survives_being_saved(backend: str) -> None:
    rule = rule_from_processor(PROCESSORS["detr" if backend == "torchvision" else "detr_pil"]())
    assert InputRule.model_validate_json(rule.model_dump_json()) == rule


def test_the_shorter_side_meets_the_rule_unless_the_longer_would_pass_its_limit() -> None:
    assert shortest_edge_size(height=480, width=640, shortest_edge=800, longest_edge=1333) == (800, 1066)
    assert shortest_edge_size(height=640, width=480, shortest_edge=800, longest_edge=1333) == (1066, 800)
    assert shortest_edge_size(height=300, width=900, shortest_edge=800, longest_edge=1333) == (444, 1332)
    assert shortest_edge_size(height=800, width=900, shortest_edge=800, longest_edge=1333) == (800, 900)
    exact = shortest_edge_size(height=300, width=900, shortest_edge=800, longest_edge=1333, exact_longest_edge=True)
    assert exact == (444, 1333)


def test_a_line_of_one_pixel_keeps_one_pixel() -> None:
    assert shortest_edge_size(height=1, width=5000, shortest_edge=800, longest_edge=1333) == (1, 1333)
    rule = InputRule(resize="shortest_edge", shortest_edge=800, longest_edge=1333)
    size = rule.resized_size(height=5000, width=1)
    assert rule.resize_image(_image(5000, 1), size).shape == (3, *size) and min(size) == 1


def test_an_image_is_made_to_fit_as_large_as_its_aspect_allows() -> None:
    rule = InputRule(resize="fit", max_size=(100, 200))
    assert rule.resized_size(height=50, width=50) == (100, 100)
    assert rule.resized_size(height=50, width=200) == (50, 200)
    assert rule.resized_size(height=300, width=999) == (60, 200)
    assert rule.resized_size(height=1, width=5000) == (1, 200)
    assert "max_size" not in InputRule(resize="stretch", size=(8, 8)).model_dump()  # fingerprints of before hold


def test_pixels_become_normalised_floats() -> None:
    rule = InputRule(resize="stretch", size=(1, 1), mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    pixels = torch.tensor([255, 0, 51], dtype=torch.uint8)[:, None, None]
    assert torch.allclose(rule.normalise(pixels).flatten(), torch.tensor([2.0, -1.0, -0.3]))
    raw = InputRule(resize="stretch", size=(1, 1)).normalise(pixels)
    assert torch.allclose(raw.flatten(), torch.tensor([1.0, 0.0, 0.2]))


def test_a_rule_needs_one_way_to_resize() -> None:
    both = {"resize": "fit", "max_size": (8, 8), "size": (8, 8)}
    for fields in (
        {"resize": "stretch"},
        {"resize": "shortest_edge"},
        {"resize": "stretch", "shortest_edge": 8},
        {"resize": "fit", "size": (8, 8)},
        both,
    ):
        with pytest.raises(ValidationError, match="needs `size`"):
            InputRule(**fields)


def test_a_processor_that_no_rule_describes_is_an_error() -> None:
    with pytest.raises(UserError, match="does not resize"):
        rule_from_processor(hf.RTDetrImageProcessor(do_resize=False))
    with pytest.raises(UserError, match=r"expected height and width, .* write {\"max_height\": 30, \"max_width\": 30}"):
        rule_from_processor(hf.RTDetrImageProcessor(size={"longest_edge": 30}))
    padded = hf.ConditionalDetrImageProcessor(size=EDGES, do_pad=True, pad_size={"height": 90, "width": 90})
    with pytest.raises(UserError, match=r"pads every image to .*set `pad_size` to null"):
        rule_from_processor(padded)
