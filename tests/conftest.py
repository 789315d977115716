"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' data beside the checkout; the test is skipped, saying so, where that is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def oracles(shared: Path) -> dict:
    """Outputs of the lineage's public code for small inputs."""
    return torch.load(shared / "parity" / "oracles.pt", weights_only=True)
