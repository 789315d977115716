"""The detectors give the numbers of the official code (figures in ../shared/parity, skipped where that is absent)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from frozen_cache.detectors.official.config import FocalNetConfig
from frozen_cache.detectors.official.focalnet import FocalNet
from frozen_cache.detectors.selection import select_pairs

TOLERANCE = 2e-5
CASE_NAMES = ("hdetr_r50_small", "hdetr_swin_small", "dino_r50_small", "dino_focal_small")


@pytest.fixture(scope="module")
def fill(shared: Path) -> ModuleType:
    """The rule that regenerates the weights, as it lies beside the figures."""
    spec = importlib.util.spec_from_file_location("parity_fill", shared / "parity" / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(shared: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a case."""
    with np.load(shared / "parity" / f"{name}.npz") as file:
        return dict(file)


def deviation(found: torch.Tensor, expected: np.ndarray) -> float:
    """Largest absolute difference over the root mean square of the expected array."""
    difference = np.abs(found.double().numpy() - expected.astype(np.float64)).max()
    return float(difference / np.sqrt(np.square(expected.astype(np.float64)).mean()))


@pytest.mark.parametrize("which", ["one", "two"])
@pytest.mark.parametrize("name", CASE_NAMES)
def test_outputs_are_those_of_the_official_code(kit: Any, shared: Path, name: str, which: str) -> None:
    expected = figures(shared, name)
    images = [torch.from_numpy(each) for key, each in expected.items() if key.startswith(f"{which}.input")]
    raw = kit.run(kit.model(name), images)
    deviations = {key: deviation(each, expected[f"{which}.{key}"]) for key, each in kit.arrays(raw).items()}
    assert max(deviations.values()) <= TOLERANCE, deviations
    assert np.array_equal(raw.pyramid.padding.numpy(), expected[f"{which}.mask"])
    assert np.array_equal(np.array(raw.pyramid.shapes), expected[f"{which}.spatial_shapes"])
    for index in range(len(images)):
        pairs = select_pairs(raw.logits[index].sigmoid(), k=10)
        assert pairs.query_index.tolist() == expected[f"{which}.post_query"][index].tolist()
        assert pairs.column.tolist() == expected[f"{which}.post_labels"][index].tolist()
        assert np.allclose(pairs.scores.numpy(), expected[f"{which}.post_scores"][index], atol=2e-6)


def test_focalnet_stage_before_its_norm_is_that_of_the_official_code(kit: Any, shared: Path) -> None:
    expected = figures(shared, "dino_focal_small")["one.C1_prenorm"]
    model = kit.model("dino_focal_small")
    config = model.config.backbone
    assert isinstance(config, FocalNetConfig)
    bare = FocalNet(config=config, first_stage=1)
    weights = {name: each for name, each in model.backbone.state_dict().items() if not name.startswith("norms.0.")}
    bare.load_state_dict(weights)
    with torch.no_grad():
        found = bare(torch.stack(kit.images()["one"]))[0]
    assert deviation(found, expected) <= TOLERANCE


@pytest.mark.parametrize("name", CASE_NAMES)
def test_the_rule_and_the_images_of_these_tests_are_those_of_the_figures(
    kit: Any, shared: Path, fill: ModuleType, name: str
) -> None:
    case = kit.cases[name]
    for key, entry in kit.layout(case.config).items():
        if torch.Size(entry.shape).numel() < 10000:
            ours, theirs = (value(key, entry.shape, case.salt) for value in (kit.rule, fill.value))
            assert torch.equal(ours, theirs), key
    expected = figures(shared, name)
    for which, images in kit.images().items():
        for index, image in enumerate(images):
            assert np.array_equal(image.numpy(), expected[f"{which}.input{index}"])
