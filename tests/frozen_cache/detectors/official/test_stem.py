"""The stem of the official backbones gives their C1."""

from __future__ import annotations

import pytest
import torch

from frozen_cache.detectors.finer import at_scale
from frozen_cache.detectors.official import OfficialDetector
from frozen_cache.detectors.official.config import FocalNetConfig, OfficialConfig, ResNetConfig, SwinConfig
from frozen_cache.detectors.official.layout import build_model
from frozen_cache.detectors.stem import Stem, StemConfig

SMALL = {"queries": 5, "encoder_layers": 4, "decoder_layers": 1, "ffn": 16, "dim": 32}
BACKBONES = {
    "resnet": ResNetConfig(),
    "swin": SwinConfig(embed=24, depths=(2, 1, 1, 1), heads=(2, 2, 4, 4), window=7),
    "focalnet": FocalNetConfig(embed=24, depths=(1, 1, 1, 1)),
}


@pytest.mark.parametrize(("family", "name"), [("hdetr", "resnet"), *(("dino", name) for name in BACKBONES)])
def test_c1_is_that_of_the_detector(family: str, name: str) -> None:
    torch.manual_seed(0)
    model = build_model(OfficialConfig(family=family, backbone=BACKBONES[name], levels=4, **SMALL))
    detector = OfficialDetector(model=model, name=name)
    images = torch.rand(2, 3, 75, 101)
    taken = detector.stem()
    assert taken is not None
    stem = Stem(StemConfig.model_validate_json(taken.config.model_dump_json()), taken.tensors)
    c1, levels = stem({1: images})
    wanted = detector(images).c1
    assert wanted is not None
    torch.testing.assert_close(c1, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())
    assert not levels
    assert sum(each.numel() for each in taken.tensors.values()) < 400_000


def test_its_c1_may_come_from_a_larger_image() -> None:
    torch.manual_seed(0)
    model = build_model(OfficialConfig(family="dino", backbone=BACKBONES["swin"], levels=4, **SMALL))
    detector = OfficialDetector(model=model, name="swin")
    finer, stem = at_scale(detector, 2), detector.stem()
    images, enlarged = torch.rand(1, 3, 75, 101), torch.rand(1, 3, 150, 202)
    found = finer(images, enlarged)  # type: ignore[call-arg]
    assert stem is not None
    torch.testing.assert_close(found.c1, stem({1: enlarged})[0])
    assert torch.equal(found.queries, detector(images).queries)
    assert (finer.spec.backbone_scale, finer.spec.c1.stride) == (2, 2)  # type: ignore[union-attr]


def test_five_levels_have_no_c1_and_no_stem() -> None:
    config = OfficialConfig(family="dino", backbone=BACKBONES["swin"], levels=5, **SMALL)
    assert OfficialDetector(model=build_model(config), name="five").stem() is None
