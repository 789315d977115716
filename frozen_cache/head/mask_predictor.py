"""From queries and RoI features to mask logits: the dot product (Eq. 4, 11) and Segmenter's head (Table 12)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.precision import full_precision, wide

SEGMENTER_MASKS = 100
"""The paper's number of masks per image, over which Segmenter's LayerNorm runs."""


class DotProduct(nn.Module):
    """The logit of a cell is the dot product of the query with its features. No parameters."""

    def forward(
        self, queries: Tensor, rois: Tensor, image_index: Tensor, counts: Sequence[int] | None = None
    ) -> Tensor:
        """Queries (N, D) and RoI features (N, D, R, R) to (N, R, R) logits."""
        with full_precision(rois):
            return (wide(queries)[:, None] @ wide(rois).flatten(2)).unflatten(2, rois.shape[2:])[:, 0]


class SegmenterHead(nn.Module):
    """Projection without bias and L2 normalisation of both sides, dot product, LayerNorm over an image's masks.

    The norm makes an image's masks compete, cell by cell of their RoIs: masks depend on the other RoIs of the image,
    and a single RoI has nothing to compete with: its mask is constant. The paper's 100 masks have a weight and bias
    each, by their order in the image; beyond 100 these repeat.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.cell = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(SEGMENTER_MASKS)

    def forward(
        self, queries: Tensor, rois: Tensor, image_index: Tensor, counts: Sequence[int] | None = None
    ) -> Tensor:
        """Compete.

        Args:
            queries: (N, D).
            rois: (N, D, R, R).
            image_index: (N,) ascending.
            counts: RoIs of each image, where the host knows them; None counts `image_index`, and waits for it.

        Returns:
            (N, R, R) logits.
        """
        with full_precision(rois):
            q = F.normalize(self.query(wide(queries)), dim=-1)
            cells = F.normalize(self.cell(wide(rois).flatten(2).transpose(1, 2)), dim=-1)
            scores = (cells @ q[..., None])[..., 0]  # (N, R * R)
        if counts is None:
            counts = image_index.unique_consecutive(return_counts=True)[1].tolist()
        masks = torch.cat([self._compete(part) for part in scores.split([count for count in counts if count])])
        return masks.unflatten(1, rois.shape[2:])

    def _compete(self, scores: Tensor) -> Tensor:
        """(n, R * R) of one image to the same, normalised over n."""
        rank = torch.arange(len(scores), device=scores.device) % SEGMENTER_MASKS
        weight, bias = self.norm.weight[rank], self.norm.bias[rank]
        return F.layer_norm(scores.t(), (len(scores),), weight, bias, self.norm.eps).t()
