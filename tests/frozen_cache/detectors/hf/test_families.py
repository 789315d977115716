"""The contract of every transformers family, on small random models loaded through `hf:DIR`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.ops import box_convert

from frozen_cache.detectors.hf.families import FAMILIES, class_head_of
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.selection import select_pairs
from frozen_cache.detectors.stages import map_stride, stage_map
from frozen_cache.detectors.taps import Taps, run_until
from frozen_cache.errors import UserError


def _images(detector: Any, count: int = 2) -> torch.Tensor:
    """Noise of the detector's input size; an odd one where the rule leaves it open."""
    size = detector.spec.input.size or (101, 133)
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def test_selected_pairs_equal_the_image_processors_post_processing(small, small_detector, small_folder) -> None:
    from transformers import AutoImageProcessor

    name, _ = small
    detector, images = small_detector(name), None
    images = _images(detector)
    processor = AutoImageProcessor.from_pretrained(small_folder(name))
    with torch.no_grad():
        raw = detector.model(pixel_values=images)
    expected = processor.post_process_object_detection(raw, threshold=0.0, target_sizes=[(1, 1)] * len(images))
    output = detector(images)
    for i, theirs in enumerate(expected):
        pairs = select_pairs(
            output.scores[i], k=detector.spec.top_k, one_label_per_query=detector.spec.one_label_per_query
        )
        order = torch.arange(len(pairs.scores))
        if detector.spec.one_label_per_query:  # DETR keeps the order of the queries, without a choice among them
            order = pairs.query_index.argsort()
        assert len(theirs["scores"]) == len(pairs.scores)
        torch.testing.assert_close(pairs.scores[order], theirs["scores"], rtol=0, atol=1e-6)
        assert torch.equal(output.labels[pairs.column[order]], theirs["labels"])
        boxes = box_convert(output.boxes[i][pairs.query_index[order]], "cxcywh", "xyxy")
        torch.testing.assert_close(boxes, theirs["boxes"], rtol=0, atol=1e-6)


def test_the_class_head_turns_queries_into_the_logits(small, small_detector) -> None:
    name, _ = small
    detector = small_detector(name)
    images = _images(detector)
    with torch.no_grad():
        logits = detector.model(pixel_values=images).logits
        again = class_head_of(detector.model, detector.family)(detector(images).queries)
    if detector.spec.family in ("d_fine", "deimv2"):  # their location quality adds one number to a query's logits
        again = again + (logits - again).mean(-1, keepdim=True)
    torch.testing.assert_close(again, logits, rtol=0, atol=2e-5)


def test_maps_have_the_strides_and_channels_that_the_spec_tells(small, small_detector) -> None:
    name, expected = small
    detector = small_detector(name)
    spec = detector.spec
    images = _images(detector)
    output = detector(images)
    assert (spec.c1.stride if spec.c1 else None) == expected.c1
    assert tuple(level.stride for level in spec.encoder_levels) == expected.encoder
    assert tuple(output.encoder) == spec.encoder_layers == (expected.layers,)
    levels = output.encoder[expected.layers]
    pairs = list(zip(levels, spec.encoder_levels, strict=True))
    if spec.c1 is not None:
        pairs.append((output.c1, spec.c1))
    for found, told in pairs:
        assert found.shape[:2] == (len(images), told.channels)
        for side, low in zip(images.shape[-2:], found.shape[-2:], strict=True):
            assert low in (side // told.stride, -(-side // told.stride))


def test_outputs_are_finite_detached_and_the_same_twice(small, small_detector) -> None:
    name, _ = small
    detector = small_detector(name)
    images = _images(detector)
    assert not any(parameter.requires_grad for parameter in detector.model.parameters())
    assert not any(module.training for module in detector.model.modules())
    first, second = detector(images), detector(images)
    for one, other in zip(_tensors(first), _tensors(second), strict=True):
        assert one.isfinite().all() and not one.requires_grad and torch.equal(one, other)
    spec, (count, queries, dim) = detector.spec, first.queries.shape
    assert (count, queries, dim) == (len(images), spec.num_queries, spec.query_dim)
    assert first.boxes.shape == (count, queries, 4)
    assert first.scores.shape == (count, queries, spec.num_labels) and first.scores.dtype == torch.float32
    assert not any(module._forward_hooks for module in detector.model.modules() if module in _tapped(detector))


def test_a_batch_gives_what_its_images_give_alone(small, small_detector) -> None:
    name, _ = small
    detector = small_detector(name)
    images = _images(detector)
    together, alone = detector(images), detector(images[1:])
    for one, other in zip(_tensors(together), _tensors(alone), strict=True):
        torch.testing.assert_close(one[1:], other, rtol=1e-3, atol=1e-4)


def test_autocast_is_the_callers_choice(small_detector) -> None:
    for name in ("rt_detr_v2", "deformable_detr", "detr"):
        detector = small_detector(name)
        assert detector.to("cpu") is detector
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            output = detector(_images(detector))
        assert output.scores.dtype == output.boxes.dtype == torch.float32
        assert all(value.isfinite().all() for value in _tensors(output))


def test_each_known_family_has_a_small_model(small_detector) -> None:
    tested = {small_detector(name).spec.family for name in _small_names()}
    assert tested == set(FAMILIES)


@pytest.mark.parametrize("name", ["detr", "deformable_detr"])
def test_every_encoder_layer_can_be_kept(name: str, small_folder: Callable[[str], Path]) -> None:
    count = {"detr": 2, "deformable_detr": 3}[name]
    layers = tuple(range(1, count + 1))
    detector: Any = load_detector(f"hf:{small_folder(name)}", encoder_layers=layers)
    output = detector(_images(detector))
    assert tuple(output.encoder) == detector.spec.encoder_layers == layers
    assert not torch.equal(output.encoder[1][0], output.encoder[2][0])
    with torch.no_grad():
        last = detector.model(pixel_values=_images(detector)).encoder_last_hidden_state
    torch.testing.assert_close(
        torch.cat([level.flatten(2).transpose(1, 2) for level in output.encoder[count]], dim=1), last
    )


def test_an_encoder_layer_that_is_not_there_is_an_error(small_folder: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="encoder-layers 4: this detector has layers 1 to 2"):
        load_detector(f"hf:{small_folder('detr')}", encoder_layers=(1, 4))
    with pytest.raises(UserError, match="layers 1 to 1"):
        load_detector(f"hf:{small_folder('rt_detr')}", encoder_layers=(2,))


def test_added_backbone_strides_stand_in_order_among_the_levels(small_folder: Callable[[str], Path]) -> None:
    detector: Any = load_detector(f"hf:{small_folder('deimv2_lite')}", backbone_strides=(16, 8))
    levels = detector.spec.encoder_levels
    assert [level.stride for level in levels] == [8, 16, 16, 32]
    assert [level.source for level in levels] == [
        "backbone stride 8 (added)",
        "encoder",
        "backbone stride 16 (added)",
        "encoder",
    ]
    found = detector(_images(detector)).encoder[1]
    assert [(level.shape[1], 128 // level.shape[-1]) for level in found] == [(16, 8), (16, 16), (20, 16), (16, 32)]


def test_a_backbone_stride_that_is_not_there_is_an_error(small_folder: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"no backbone map of stride 64; it has \[4, 8, 16, 32\]"):
        load_detector(f"hf:{small_folder('rt_detr')}", backbone_strides=(64,))
    with pytest.raises(UserError, match="no backbone map of stride 8; it has none"):
        load_detector(f"hf:{small_folder('lw_detr')}", backbone_strides=(8,))


def test_c1_is_the_backbones_own_map(small_detector) -> None:
    """Nothing after the stage writes into the tensor that the tap keeps."""
    for name in ("detr", "detr_timm", "deformable_detr_swin", "rt_detr", "d_fine"):
        detector = small_detector(name)
        images = _images(detector)
        kept = []
        stage = detector.backbone.get_submodule(detector.spec.c1.source.removeprefix("backbone "))

        def copy(module: Any, inputs: Any, output: Any, kept: list[Any] = kept) -> None:
            kept.append((output[1] if isinstance(output, tuple) else output).clone())

        handle = stage.register_forward_hook(copy)
        output = detector(images)
        handle.remove()
        assert torch.equal(kept[0], output.c1)


def _small_names() -> list[str]:
    return [
        *("detr", "conditional_detr", "dab_detr", "deformable_detr", "rt_detr"),
        *("rt_detr_v2", "d_fine", "deimv2", "lw_detr", "rf_detr"),
    ]


def _tapped(detector: Any) -> set[Any]:
    return set(detector._modules.values())


def _tensors(output: Any) -> list[torch.Tensor]:
    maps = [level for levels in output.encoder.values() for level in levels]
    return [output.queries, output.boxes, output.scores, *maps, *([] if output.c1 is None else [output.c1])]


@pytest.mark.parametrize("name", ["deimv2_lite", "rt_detr", "detr", "deformable_detr_swin"])
def test_a_backbone_scale_makes_the_backbones_maps_finer_and_leaves_the_rest(small_folder, name: str) -> None:
    folder = f"hf:{small_folder(name)}"
    plain: Any = load_detector(folder, backbone_strides=(16,))
    finer: Any = load_detector(folder, backbone_strides=(16,), backbone_scale=2)
    images = _images(plain)
    enlarged = torch.nn.functional.interpolate(images, scale_factor=2.0, mode="bilinear")
    assert finer.spec.backbone_scale == 2
    assert (plain.spec.c1.stride, finer.spec.c1.stride) == (4, 2)
    with pytest.raises(ValueError, match="backbone_scale is 2"):
        finer(images)
    expected, found = plain(images), finer(images, enlarged)
    for part in ("queries", "boxes", "scores"):
        assert torch.equal(getattr(found, part), getattr(expected, part))
    with Taps({"stage": plain.backbone.get_submodule(plain.spec.c1.source.removeprefix("backbone "))}) as taps:
        run_until(plain.model, plain.backbone, enlarged)
    torch.testing.assert_close(found.c1, stage_map(taps.outputs["stage"], plain.backbone))
    sources = [level.source for level in finer.spec.encoder_levels]
    assert sources.count("backbone stride 16 of 2 x (added)") == 1
    layer = plain.spec.encoder_layers[0]
    own = [level for level, source in zip(found.encoder[layer], sources, strict=True) if " of 2 x" not in source]
    for level, same in zip(own, expected.encoder[layer], strict=True):
        assert torch.equal(level, same)
    strides = [level.stride for level in finer.spec.encoder_levels]
    assert strides == sorted(strides)
    assert [map_stride(images.shape[-2:], level.shape[-2:]) for level in found.encoder[layer]] == strides


def test_a_backbone_scale_that_cannot_be_is_an_error(small_folder) -> None:
    with pytest.raises(UserError, match="choose 1, 2 or 4"):
        load_detector(f"hf:{small_folder('rt_detr')}", backbone_scale=3)
    with pytest.raises(UserError, match="would do nothing"):
        load_detector(f"hf:{small_folder('lw_detr')}", backbone_scale=2)
    with pytest.raises(UserError, match="for transformers detectors"):
        load_detector("hdetr-r50", weights=small_folder("rt_detr") / "config.json", backbone_strides=(8,))
