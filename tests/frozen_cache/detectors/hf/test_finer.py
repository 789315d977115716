"""What a stem makes of a detector at another scale is what the detector itself is at that scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from frozen_cache.cache.attributes import detector_fingerprint
from frozen_cache.detectors.finer import FinerDetector, at_scale, finer_spec
from frozen_cache.detectors.load import load_detector
from frozen_cache.errors import UserError

SIZES = {"stretch": (128, 128), "shortest_edge": (101, 133)}


def images_of(detector: Any, scale: int) -> torch.Tensor:
    height, width = SIZES[detector.spec.input.resize]
    return torch.rand(2, 3, scale * height, scale * width, generator=torch.Generator().manual_seed(scale))


@pytest.mark.parametrize(
    ("name", "strides", "scale"),
    [("deimv2", (8, 16), 2), ("detr_timm", (), 2), ("deformable_detr_swin", (16,), 4), ("rt_detr", (8,), 2)],
)
def test_it_is_the_detector_of_that_scale(name: str, strides: tuple[int, ...], scale: int, small_folder: Any) -> None:
    folder = f"hf:{small_folder(name)}"
    live: Any = load_detector(folder, backbone_strides=strides, backbone_scale=scale)
    plain: Any = load_detector(folder, backbone_strides=strides)
    stem = live.stem()
    spec, config = finer_spec(plain.spec, plain.stem().config, scale)
    assert spec == live.spec
    assert detector_fingerprint(spec) == detector_fingerprint(live.spec)
    assert config == stem.config
    images, enlarged = images_of(plain, 1), images_of(plain, scale)
    made: Any = at_scale(plain, scale)
    assert isinstance(made, FinerDetector)
    found, wanted = made(images, enlarged), live(images, enlarged)
    assert torch.equal(found.queries, wanted.queries)
    pairs = [(found.c1, wanted.c1)]
    for layer, levels in wanted.encoder.items():
        pairs += zip(found.encoder[layer], levels, strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * other.abs().max().item())
    assert at_scale(made, scale) is made
    assert at_scale(plain, 1) is plain


def test_what_cannot_be_scaled_is_one_line(small_detector: Any) -> None:
    plain = small_detector("rt_detr")
    with pytest.raises(UserError, match="choose 1, 2 or 4"):
        at_scale(plain, 3)
    with pytest.raises(UserError, match="at 2 times the input size, not 4"):
        at_scale(at_scale(plain, 2), 4)
    with pytest.raises(UserError, match="offers no stem"):
        at_scale(small_detector("lw_detr"), 2)
    with pytest.raises(ValueError, match="give `enlarged`"):
        at_scale(plain, 2)(images_of(plain, 1))
