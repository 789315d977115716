"""Point sampling for the mask loss (PointRend, arXiv 1912.08193; Table 6)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_points(masks: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of masks, zero outside, pixel centres at half-integers.

    Args:
        masks: (N, R, R).
        points: (N, P, 2) x, y in 0..1.

    Returns:
        (N, P), in the dtype of `masks`.
    """
    grid = (2 * points - 1).to(masks.dtype)[:, None]
    if len(masks) == 0:
        return masks.new_zeros(points.shape[:2]) + masks.sum()
    return F.grid_sample(masks[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0, 0]


@torch.no_grad()
def uncertain_points(
    logits: Tensor,
    *,
    points: int,
    oversample: float = 3.0,
    importance: float = 0.75,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Choose points where a mask is least certain, and some at random.

    k P random points are drawn; the beta P whose logits are nearest to 0 are kept, (1 - beta) P random ones added.

    Args:
        logits: (N, R, R).
        points: P.
        oversample: k, at least 1.
        importance: beta in 0..1.
        generator: source of the random points, on the device of `logits`; None for torch's own.

    Returns:
        (N, P, 2) x, y in 0..1.
    """
    count, device = len(logits), logits.device
    drawn = torch.rand(count, int(points * oversample), 2, device=device, generator=generator)
    certainty = sample_points(logits, drawn).abs()
    uncertain = int(importance * points)
    chosen = (-certainty).topk(uncertain, dim=1).indices
    kept = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
    if uncertain == points:
        return kept
    extra = torch.rand(count, points - uncertain, 2, device=device, generator=generator)
    return torch.cat([kept, extra], dim=1)
