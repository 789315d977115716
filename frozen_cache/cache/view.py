"""`CachedView`: what the cache returns for one view of one image."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from frozen_cache.cache.close_up import CloseUp
from frozen_cache.data.truth import GroundTruth
from frozen_cache.data.view import ViewTransform


@dataclass(frozen=True)
class CachedView:
    """One view of one image. Rows 0..K-1 are the selected (query, label) pairs by falling score; the rows behind them
    (N - K, often none) are queries matched to an object but not selected: for training only, never detections."""

    image_id: int
    view: int
    """0 is the plain resize."""
    transform: ViewTransform
    selected: int
    """K."""
    queries: Tensor
    """(N, D) float32."""
    boxes: Tensor
    """(N, 4) float32 cxcywh in 0..1 of the view."""
    scores: Tensor
    """(N,) float32 class probability."""
    labels: Tensor
    """(N,) int64 index into the cache's categories."""
    c1: Tensor | None
    """(C1, H, W), float32 unless asked otherwise."""
    encoder: dict[int, list[Tensor]]
    """Kept encoder layer -> levels, finest first, each (C, H, W)."""
    truth: GroundTruth
    close_up: CloseUp | None = None
    """The view's own pixels, where it was asked for."""

    def take(self, rows: Tensor) -> CachedView:
        """The view with these rows only, (K,) int64, all of them selected."""
        return replace(
            self,
            selected=len(rows),
            queries=self.queries[rows],
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
        )
