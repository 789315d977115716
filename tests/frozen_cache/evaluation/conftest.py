"""A view to segment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frozen_cache.cache.view import CachedView
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform


@pytest.fixture
def view() -> CachedView:
    """An image of 64 x 80 pixels with one detection, 16 x 20 pixels in its middle."""
    size = (64, 80)
    nothing = np.zeros(0)
    truth = GroundTruth(
        boxes=np.zeros((0, 4)), categories=nothing, crowd=nothing, areas=nothing, masks=[], annotation_ids=nothing,
        match=nothing,
    )  # fmt: skip
    return CachedView(
        image_id=1,
        view=0,
        transform=ViewTransform(original_size=size, crop=(0, 0, 80, 64), resized_size=size),
        selected=1,
        queries=torch.ones(1, 8),
        boxes=torch.tensor([[0.5, 0.5, 0.25, 0.25]]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([1]),
        c1=None,
        encoder={1: [torch.ones(8, 8, 10)]},
        truth=truth,
    )
