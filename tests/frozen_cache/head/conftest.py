"""Inputs for mask heads of any detector: the paper's detectors, and a small odd one that runs fast."""

from pathlib import Path

import pytest
import torch

from frozen_cache.detectors.output import FeatureSpec
from frozen_cache.head.inputs import HeadInputs, ImageFeatures, Rois

ORACLES = Path(__file__).parents[4] / "shared" / "parity" / "oracles.pt"


def head_inputs(*, query_dim, c1, levels, num_classes):
    """`c1` is (channels, stride) or None, `levels` a list of them."""
    return HeadInputs(
        query_dim=query_dim,
        c1=None if c1 is None else FeatureSpec(channels=c1[0], stride=c1[1]),
        levels=tuple(FeatureSpec(channels=channels, stride=stride) for channels, stride in levels),
        num_classes=num_classes,
    )


INPUTS = {
    "hdetr_r50": head_inputs(
        query_dim=256, c1=(256, 4), levels=[(256, stride) for stride in (8, 16, 32, 64)], num_classes=80
    ),
    "dino": head_inputs(
        query_dim=256, c1=None, levels=[(256, stride) for stride in (4, 8, 16, 32, 64)], num_classes=80
    ),
    "deimv2_atto": head_inputs(query_dim=64, c1=(64, 4), levels=[(64, 16), (64, 32)], num_classes=80),
    "deimv2_atto_added": head_inputs(
        query_dim=64, c1=(64, 4), levels=[(256, 8), (256, 16), (64, 16), (64, 32)], num_classes=80
    ),
    "small": head_inputs(query_dim=24, c1=(12, 4), levels=[(20, 8), (16, 8), (16, 16)], num_classes=3),
    "small_no_c1": head_inputs(query_dim=16, c1=None, levels=[(16, 8), (16, 32)], num_classes=3),
    "one_level": head_inputs(query_dim=16, c1=(16, 4), levels=[(16, 16)], num_classes=3),
}


@pytest.fixture
def inputs():
    """Shapes by name."""
    return INPUTS


@pytest.fixture
def make_batch():
    """A function that makes random features and RoIs: sizes (height, width) of the images, RoIs of each."""

    def make(inputs, sizes, counts, *, seed=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape):
            return torch.randn(*shape, generator=generator, dtype=dtype)

        def of(spec, size):
            return noise(spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride))

        images = [
            ImageFeatures(
                c1=None if inputs.c1 is None else of(inputs.c1, size),
                levels=[of(level, size) for level in inputs.levels],
                size=size,
            )
            for size in sizes
        ]
        total = sum(counts)
        extent = torch.rand(total, 2, generator=generator, dtype=dtype) * 0.5 + 0.1
        centre = torch.rand(total, 2, generator=generator, dtype=dtype)
        rois = Rois(
            image_index=torch.arange(len(sizes)).repeat_interleave(torch.tensor(counts, dtype=torch.int64)),
            boxes=torch.cat([centre, extent], 1),
            queries=noise(total, inputs.query_dim),
            labels=torch.randint(0, inputs.num_classes, (total,), generator=generator),
        )
        return images, rois

    return make


@pytest.fixture
def noise():
    """A function that makes the same normal float64 numbers for the same shape and seed."""

    def noise(*shape, seed=0):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return noise


@pytest.fixture
def settled():
    """A function that gives a module in float64 and eval mode, every parameter of it drawn anew and none near zero."""

    def settle(module, *, seed=0):
        generator = torch.Generator().manual_seed(seed)
        module.double().eval()
        with torch.no_grad():
            for value in module.parameters():
                value.copy_(0.4 * torch.randn(value.shape, generator=generator, dtype=torch.float64) + 0.1)
        return module.requires_grad_(False)

    return settle


@pytest.fixture(scope="session")
def oracles():
    """Figures of detectron2; the test is skipped where they are absent."""
    if not ORACLES.is_file():
        pytest.skip("shared/parity/oracles.pt is not here; the slice in the test stands for it")
    return torch.load(ORACLES, weights_only=True)
