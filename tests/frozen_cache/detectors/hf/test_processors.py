"""The image processors of every family: the rule gives their own pixel values, or one line says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from frozen_cache.detectors.hf.detector import TransformersDetector
from frozen_cache.detectors.hf.families import FAMILIES
from frozen_cache.detectors.hf.input_rule import CAN, INTERPOLATIONS, rule_from_processor
from frozen_cache.detectors.hf.rule_check import check_rule
from frozen_cache.detectors.load import load_detector
from frozen_cache.errors import UserError

ODD_SIZES = [(37, 53), (64, 48), (31, 31), (20, 111), (95, 40), (131, 257)]
"""(height, width): odd, square, wider and higher than the edges allow, larger than each input."""

SIZES: dict[str, dict[str, int]] = {
    "stretch": {"height": 45, "width": 60},
    "edges": {"shortest_edge": 48, "longest_edge": 77},
    "fit": {"max_height": 57, "max_width": 83},
}
ANY_SIZE = ("detr", "conditional_detr", "dab-detr", "deformable_detr")
CLASSES = {
    "rt_detr_v2": "RTDetrImageProcessor",
    "d_fine": "RTDetrImageProcessor",
    "dab-detr": "ConditionalDetrImageProcessor",
}
"""Families whose config names no processor: that of their checkpoints on the hub."""


def _classes(family: str) -> dict[str, Any]:
    """Backend -> class of the family's image processor."""
    named = IMAGE_PROCESSOR_MAPPING_NAMES.get(family) or {
        "torchvision": CLASSES[family],
        "pil": CLASSES[family] + "Pil",
    }
    return {backend: getattr(hf, name) for backend, name in named.items() if name}


BACKENDS = [(family, backend) for family in FAMILIES for backend in _classes(family)]


def _noise(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _assert_equal(processor: Any) -> None:
    rule = rule_from_processor(processor)
    check_rule(rule, processor, name="it")
    for height, width in ODD_SIZES:
        image = _noise(height, width)
        expected = processor(images=image, return_tensors="pt")["pixel_values"][0].float()
        found = rule.normalise(rule.resize_image(image, rule.resized_size(height=height, width=width)))
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("family", "backend"), BACKENDS)
def test_a_familys_processor_and_the_rule_agree(family: str, backend: str, size: str) -> None:
    _assert_equal(_classes(family)[backend](size=SIZES[size]))


@pytest.mark.parametrize("number", INTERPOLATIONS)
@pytest.mark.parametrize("name", ["DetrImageProcessor", "DetrImageProcessorPil", "RfDetrImageProcessor"])
def test_every_resample_is_met_or_refused(name: str, number: int) -> None:
    processor = getattr(hf, name)(size=SIZES["edges"], resample=number)
    backend = {"Pil": "pil", "RfD": "torchvision_float"}.get(
        name[-3:] if name[-3:] == "Pil" else name[:3], "torchvision"
    )
    if INTERPOLATIONS[number] in CAN[backend]:
        _assert_equal(processor)
        return
    with pytest.raises(UserError, match=r"set `resample` in its .* to one of 0 \(nearest\), .*2 \(bilinear\)"):
        rule_from_processor(processor)
    with pytest.raises((NotImplementedError, ValueError)):  # neither can transformers itself
        processor(images=_noise(37, 53), return_tensors="pt")


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("factor", [None, 1 / 255, 1 / 127.5])
@pytest.mark.parametrize("name", ["RTDetrImageProcessor", "RTDetrImageProcessorPil", "RfDetrImageProcessor"])
def test_rescaling_and_normalising_are_the_processors(name: str, factor: float | None, normalise: bool) -> None:
    options = {"rescale_factor": factor} if factor else {"do_rescale": False}
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    processor = getattr(hf, name)(
        size=SIZES["stretch"], do_normalize=normalise, image_mean=mean, image_std=std, **options
    )
    if name == "RfDetrImageProcessor" and factor is None:  # resizes whole numbers then, or fails
        with pytest.raises(UserError, match=r"it: its image processor RfDetrImageProcessor (fails|gives other pixel)"):
            check_rule(rule_from_processor(processor), processor, name="it")
        return
    _assert_equal(processor)


def test_padding_that_never_comes_is_no_padding() -> None:
    for name in ("DetrImageProcessor", "RTDetrImageProcessor", "ConditionalDetrImageProcessorPil"):
        make = getattr(hf, name)
        _assert_equal(make(size=SIZES["edges"], do_pad=True))  # to the largest of the batch
        _assert_equal(make(size=SIZES["edges"], do_pad=False, pad_size={"height": 90, "width": 90}))
        _assert_equal(make(size=SIZES["stretch"], do_pad=True, pad_size=SIZES["stretch"]))
        with pytest.raises(UserError, match="pads every image"):
            rule_from_processor(make(size=SIZES["stretch"], do_pad=True, pad_size={"height": 90, "width": 90}))


def test_one_mean_for_all_colours_or_none() -> None:
    rule = rule_from_processor(hf.RTDetrImageProcessorPil(do_normalize=True, image_mean=0.5, image_std=0.25))
    assert (rule.mean, rule.std) == ((0.5,) * 3, (0.25,) * 3)
    with pytest.raises(UserError, match=r"has image_mean .0.5, 0.5.; expected a number, or one for each"):
        rule_from_processor(hf.RTDetrImageProcessorPil(do_normalize=True, image_mean=[0.5, 0.5]))


class _Swapped(hf.RTDetrImageProcessor):
    """Blue before green before red."""

    def _preprocess(self, images: Any, *more: Any, **options: Any) -> Any:
        return super()._preprocess([image.flip(0) for image in images], *more, **options)


class _Wider(hf.RTDetrImageProcessor):
    """Rounds the size up to multiples of 32."""

    def resize(self, image: Any, size: Any, **options: Any) -> Any:
        size = type(size)(height=-(-size.height // 32) * 32, width=-(-size.width // 32) * 32)
        return super().resize(image, size, **options)


class _Smooth(hf.RTDetrImageProcessor):
    """Differs only where an image becomes smaller."""

    def resize(self, image: Any, size: Any, **options: Any) -> Any:
        return super().resize(image, size, **options | {"antialias": False})


@pytest.mark.parametrize(
    ("processor", "says"),
    [
        (_Swapped(size=SIZES["stretch"]), "gives other pixel values than its settings say, by up to"),
        (_Wider(size=SIZES["stretch"]), r"gives values of shape \(3, 64, 64\), and its settings say \(3, 45, 60\)"),
        (_Smooth(size=SIZES["stretch"]), "gives other pixel values"),
        (hf.DetrImageProcessor(size={"shortest_edge": 48}), "fails: .*'shortest_edge' and 'longest_edge'"),
    ],
)
def test_a_processor_that_does_not_do_what_its_settings_say_is_refused(processor: Any, says: str) -> None:
    with pytest.raises(UserError, match=f"mine: its image processor {type(processor).__name__} {says}") as caught:
        check_rule(rule_from_processor(processor), processor, name="mine")
    assert len(str(caught.value).splitlines()) == 1


def test_a_resize_that_the_installed_torchvision_does_not_know_is_refused() -> None:
    processor = hf.RTDetrImageProcessor(size=SIZES["stretch"])
    rule = rule_from_processor(processor).model_copy(update={"interpolation": "box"})
    with pytest.raises(UserError, match=r"mine: its image processor .* resizes as the libraries installed here cannot"):
        check_rule(rule, processor, name="mine")


def test_the_check_is_made_when_a_detector_is_loaded(small_folder: Callable[[str], Path]) -> None:
    model = hf.AutoModelForObjectDetection.from_pretrained(small_folder("rt_detr"))
    with pytest.raises(UserError, match=r"mine\.py:make: its image processor _Swapped gives other"):
        TransformersDetector(model, _Swapped(size={"height": 64, "width": 64}), name="mine.py:make")


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, "edges") for name in ("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "deimv2_lite", "lw_detr", "rf_detr")]
    + [("rt_detr", "fit")],
)
def test_a_family_that_needs_even_sizes_refuses_a_processor_that_keeps_the_aspect(
    name: str, size: str, small_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    sides = {"edges": {"shortest_edge": 100, "longest_edge": 140}, "fit": {"max_height": 110, "max_width": 150}}
    folder = _with_size(small_folder(name), tmp_path, sides[size])
    multiple = 28 if name == "rf_detr" else 32
    with pytest.raises(UserError) as caught:
        load_detector(f"hf:{folder}")
    message = str(caught.value)
    assert "(272, 321) pixels (height, width), which its image processor can give as it keeps the aspect" in message
    assert f'runs on multiples of {multiple}: set `size` in its preprocessor_config.json to {{"height": ' in message
    proposed = json.loads("{" + message.split("{")[1].split("}")[0] + "}")
    assert load_detector(f"hf:{_with_size(folder, tmp_path / 'b', proposed)}").spec.input.size is not None


@pytest.mark.parametrize("family", ANY_SIZE)
def test_the_other_families_take_what_a_processor_gives(
    family: str, small_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = _with_size(small_folder(family.replace("-", "_")), tmp_path, SIZES["fit"])
    assert load_detector(f"hf:{folder}").spec.input.max_size == (57, 83)


def test_a_fixed_size_that_the_model_cannot_take_names_one_that_it_can(
    small_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = _with_size(small_folder("d_fine"), tmp_path, {"height": 150, "width": 170})
    with pytest.raises(UserError, match=r"blank image of \(150, 170\) .* and runs on multiples of 32: .*160, .*160"):
        load_detector(f"hf:{folder}")


def _with_size(folder: Path, place: Path, size: dict[str, int]) -> Path:
    copy = shutil.copytree(folder, place / "model")
    file = copy / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": size}))
    return copy


@pytest.mark.parametrize(
    ("small", "size", "runs_on"),
    [(name, 128, 160) for name in ("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "deimv2_dinov3")]
    + [("deimv2_lite", 128, 288), ("lw_detr", 32, 64), ("rf_detr", 28, 84)],
    indirect=["small"],
)
def test_an_input_with_fewer_places_than_queries_names_a_size_that_has_enough(
    small: tuple[str, Any], size: int, runs_on: int
) -> None:
    """At strides 8, 16 and 32, 128 pixels have 336 places; 400 queries are selected among them."""
    model, processor = small[1].make()
    if size == 128:
        model.config.num_queries = 400
    processor.size = {"height": size, "width": size}
    with pytest.raises(UserError) as caught:
        TransformersDetector(model, processor, name="hf:mine")
    queries = model.config.num_queries
    assert str(caught.value).startswith(
        f"hf:mine fails on a blank image of ({size}, {size}) pixels (height, width): its encoder has fewer places "
        f"there than the {queries} queries that are selected among them; it runs on multiples of "
    )
    assert f'preprocessor_config.json to {{"height": {runs_on}, "width": {runs_on}}}' in str(caught.value)
    processor.size = {"height": runs_on, "width": runs_on}
    assert TransformersDetector(model, processor, name="hf:mine").spec.num_queries == queries


def test_an_image_with_fewer_places_than_queries_is_one_line(small_folder: Callable[[str], Path]) -> None:
    """Where the aspect ratio is kept, a picture may be smaller than any that was tried."""
    detector = load_detector(f"hf:{small_folder('deformable_detr_two_stage')}")
    detector.model.config.two_stage_num_proposals = 200  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"fails on an image of \(72, 72\) pixels .* than the 200 queries") as caught:
        detector(torch.zeros(1, 3, 72, 72))  # 81 + 25 + 9 + 4 places
    assert len(str(caught.value).splitlines()) == 1
    assert detector(torch.zeros(1, 3, 96, 130)).queries.shape[1] == 200
