"""The first stage: every encoder token proposes a box around itself (Deformable DETR, two-stage)."""

from __future__ import annotations

import torch
from torch import Tensor

from frozen_cache.detectors.official.pyramid import Pyramid


def propose(memory: Tensor, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
    """Boxes of side 0.05 x 2^level at each token's centre.

    Args:
        memory: (B, S, D), the encoder's output.
        pyramid: its levels.

    Returns:
        The memory with zeros at padding and at tokens whose box leaves 0.01..0.99, and the boxes (B, S, 4) cxcywh
        before the sigmoid, infinite at those tokens.
    """
    boxes = []
    for level, padding in enumerate(pyramid.level_padding):
        _, height, width = padding.shape
        rows = torch.linspace(0, height - 1, height, dtype=torch.float32, device=memory.device)
        columns = torch.linspace(0, width - 1, width, dtype=torch.float32, device=memory.device)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        valid = torch.stack([(~padding[:, 0, :]).sum(1), (~padding[:, :, 0]).sum(1)], -1)
        centres = (torch.stack([x, y], -1)[None] + 0.5) / valid[:, None, None]
        sides = torch.ones_like(centres) * 0.05 * (2.0**level)
        boxes.append(torch.cat([centres, sides], -1).flatten(1, 2))
    proposals = torch.cat(boxes, 1)
    usable = ((proposals > 0.01) & (proposals < 0.99)).all(-1, keepdim=True) & ~pyramid.padding[..., None]
    proposals = torch.log(proposals / (1 - proposals)).masked_fill(~usable, float("inf"))
    return memory.masked_fill(~usable, 0.0), proposals


def best_boxes(scores: Tensor, boxes: Tensor, *, k: int) -> Tensor:
    """(B, k, 4): the boxes (B, S, 4) of the k best scores (B, S), by falling score; fewer where S < k.

    No gradient goes through them, as in training.
    """
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return boxes.gather(1, best[..., None].expand(-1, -1, 4)).detach()
