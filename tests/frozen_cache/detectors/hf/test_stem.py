"""The stem of every family gives the maps of its detector, built again from plain values and weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.cache.from_image import CacheStem
from frozen_cache.cache.stem_files import keep_stem, stem_record
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.run import run_detector
from frozen_cache.detectors.stem import Stem, StemConfig, StemMap
from frozen_cache.detectors.stem_kinds import transformers_fields

SIZES = {"stretch": (128, 128), "shortest_edge": (101, 133)}


def _images(detector: Any, scale: int = 1) -> torch.Tensor:
    height, width = SIZES[detector.spec.input.resize]
    size = (2, 3, scale * height, scale * width)
    return torch.rand(size, generator=torch.Generator().manual_seed(scale))


def again(stem: Stem) -> Stem:
    """The stem that comes out of its JSON and its weights."""
    return Stem(StemConfig.model_validate_json(stem.config.model_dump_json()), stem.tensors)


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal to 1e-5 of the wanted map's scale."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_c1_is_that_of_the_detector(small, small_detector) -> None:
    name, expected = small
    detector = small_detector(name)
    stem = detector.stem()
    if expected.c1 is None:
        assert stem is None
        return
    images = _images(detector)
    c1, levels = again(stem)({1: images})
    same(c1, detector(images).c1)
    assert not levels
    whole = sum(each.numel() for each in detector.backbone.state_dict().values())
    assert sum(each.numel() for each in stem.tensors.values()) < 0.5 * whole, "the weights up to stride 4 only"


def test_a_cache_makes_it_of_pixels_as_the_detector_does(small, small_detector, tmp_path) -> None:
    """Through the file in the cache and the input rule; under autocast within the rounding of its type."""
    name, expected = small
    detector = small_detector(name)
    if expected.c1 is None:
        return
    record, content = stem_record(detector.stem())
    keep_stem(tmp_path, record, content)
    pixels = (255 * _images(detector)).to(torch.uint8)
    device = torch.device("cpu")
    for autocast, tolerance in ((None, 1e-5), ("bfloat16", 2**-7)):
        how = CacheAttributes.model_construct(detector=detector.spec, stem=record, autocast=autocast)
        c1, levels = CacheStem(tmp_path, how)({1: pixels})
        assert c1 is not None
        wanted = run_detector(detector, pixels, device=device, autocast=autocast).c1
        assert wanted is not None
        torch.testing.assert_close(
            c1.float(), wanted.float(), rtol=0, atol=tolerance * wanted.float().abs().max().item()
        )
        assert not levels
        assert not c1.requires_grad


@pytest.mark.parametrize(("name", "scale"), [("detr_timm", 1), ("deformable_detr_swin", 1), ("deimv2", 2)])
def test_added_maps_come_out_of_the_same_stem(name: str, scale: int, small_folder) -> None:
    detector = load_detector(f"hf:{small_folder(name)}", backbone_strides=(8, 16), backbone_scale=scale)
    images = {each: _images(detector, each) for each in {1, scale}}
    wanted = detector(images[1], images[scale]) if scale > 1 else detector(images[1])
    stem = again(detector.stem())
    assert stem.config.scales == tuple(sorted({1, scale}))
    c1, levels = stem(images)
    same(c1, wanted.c1)
    added = [at for at, level in enumerate(detector.spec.encoder_levels) if "added" in level.source]
    assert sorted(levels) == added
    assert len(added) == 2 * len(images)
    for index, found in levels.items():
        same(found, next(iter(wanted.encoder.values()))[index])


@pytest.mark.parametrize(
    ("kind", "config", "backbone"),
    [
        ("convnext", hf.ConvNextConfig, hf.ConvNextBackbone),
        ("convnextv2", hf.ConvNextV2Config, hf.ConvNextV2Backbone),
    ],
)
def test_further_backbones_of_transformers(kind: str, config: Any, backbone: Any) -> None:
    live = backbone(config(hidden_sizes=[8, 12, 16, 20], depths=[1] * 4)).eval()
    images = torch.rand(1, 3, 64, 96)
    values = transformers_fields(kind, live.config)
    levels = {1: StemMap(module="encoder.stages.1")}
    stem = Stem.take(
        live,
        StemConfig(kind=kind, config=values, c1=StemMap(module="encoder.stages.0"), levels=levels),
        trial=images,
    )
    with torch.no_grad():
        wanted = live(images, output_hidden_states=True).hidden_states
    c1, levels = again(stem)({1: images})
    same(c1, wanted[1])
    same(levels[1], wanted[2])


def test_building_a_stem_draws_no_random_number(small_detector) -> None:
    stem = small_detector("deimv2").stem()
    before = torch.get_rng_state()
    again(stem)
    assert torch.equal(torch.get_rng_state(), before)
