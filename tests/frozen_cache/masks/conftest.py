"""Figures of detectron2 and PointRend: the whole file where it is at hand."""

from pathlib import Path

import pytest
import torch

ORACLES = Path(__file__).parents[4] / "shared" / "parity" / "oracles.pt"


@pytest.fixture(scope="session")
def oracles():
    """All oracles; the test is skipped where they are absent."""
    if not ORACLES.is_file():
        pytest.skip("shared/parity/oracles.pt is not here; the slices in the tests stand for it")
    return torch.load(ORACLES, weights_only=True)
