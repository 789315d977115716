"""Query feature encoder (Eq. 10, Table 5): object-to-object, box-to-object and feed-forward, in this order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from frozen_cache.head.attention import Attention
from frozen_cache.head.feed_forward import FeedForward
from frozen_cache.head.norm import LayerNorm, attention_heads
from frozen_cache.head.position import box_sine


class BoxPosition(nn.Module):
    """Sine embedding of a box, 512 numbers, then Linear 512 -> D. One for all query blocks."""

    SINE_DIM = 512

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(self.SINE_DIM, dim)

    def forward(self, boxes: Tensor) -> Tensor:
        """(N, 4) cxcywh in 0..1 to (N, D)."""
        return self.project(box_sine(boxes.to(self.project.weight.dtype), self.SINE_DIM))


class ObjectToObject(nn.Module):
    """The queries of one image attend to each other, knowing where their boxes are; LayerNorm after."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=attention_heads(dim))
        self.norm = LayerNorm(dim)

    def forward(self, queries: Tensor, position: Tensor, image_index: Tensor) -> Tensor:
        """Queries (N, D), position of their boxes (N, D), image_index (N,) to (N, D)."""
        placed = (queries + position)[None]
        apart = (image_index[:, None] != image_index).to(queries.device)
        bias = torch.zeros(apart.shape, dtype=queries.dtype, device=queries.device).masked_fill(apart, -torch.inf)
        return self.norm(queries + self.attention(placed, placed, queries[None], bias)[0])


class BoxToObject(nn.Module):
    """Each query attends to the cells of its own RoI; LayerNorm after. 66,304 parameters at D = 128."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=attention_heads(dim))
        self.norm = LayerNorm(dim)

    def forward(self, queries: Tensor, rois: Tensor) -> Tensor:
        """Queries (N, D) and RoI features (N, D, R, R) to (N, D)."""
        cells = rois.flatten(2).transpose(1, 2)
        return self.norm(queries + self.attention.of_one(queries, cells))


class QueryFeedForward(nn.Module):
    """Feed-forward with residual; LayerNorm after. 131,968 parameters at D = 128."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.feed_forward = FeedForward(dim=dim)
        self.norm = LayerNorm(dim)

    def forward(self, queries: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return self.norm(queries + self.feed_forward(queries))


class QueryBlock(nn.Module):
    """One round of what the configuration names. 198,272 parameters for b2o and ffn at D = 128."""

    def __init__(self, *, dim: int, parts: Sequence[str]) -> None:
        super().__init__()
        self.objects = ObjectToObject(dim=dim) if "o2o" in parts else None
        self.box = BoxToObject(dim=dim) if "b2o" in parts else None
        self.feed_forward = QueryFeedForward(dim=dim) if "ffn" in parts else None

    def forward(self, queries: Tensor, rois: Tensor, position: Tensor | None, image_index: Tensor) -> Tensor:
        """Refine queries.

        Args:
            queries: (N, D).
            rois: (N, D, R, R).
            position: (N, D) of the boxes, for object-to-object attention.
            image_index: (N,) int64.

        Returns:
            (N, D).
        """
        if self.objects is not None and position is not None:
            queries = self.objects(queries, position, image_index)
        if self.box is not None:
            queries = self.box(queries, rois)
        return queries if self.feed_forward is None else self.feed_forward(queries)


class QueryEncoder(nn.Module):
    """Query blocks, run one by one; those with object-to-object attention share one box position embedding.

    Args:
        dim: width D.
        parts: of `ffn`, `o2o`, `b2o`.
        count: number of blocks.
    """

    def __init__(self, *, dim: int, parts: Sequence[str], count: int) -> None:
        super().__init__()
        self.position = BoxPosition(dim=dim) if "o2o" in parts and count > 0 else None
        self.blocks = nn.ModuleList(QueryBlock(dim=dim, parts=parts) for _ in range(count))

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def last_norm(self) -> nn.LayerNorm:
        """The LayerNorm that the refined queries leave through; there is one wherever there is a block."""
        return [module for module in self.blocks[-1].modules() if isinstance(module, nn.LayerNorm)][-1]

    def forward(self, queries: Tensor, rois: Tensor, boxes: Tensor, image_index: Tensor, *, block: int) -> Tensor:
        """Run one block.

        Args:
            queries: (N, D).
            rois: (N, D, R, R).
            boxes: (N, 4) cxcywh in 0..1.
            image_index: (N,) int64.
            block: which one.

        Returns:
            (N, D).
        """
        position = None if self.position is None else self.position(boxes)
        return self.blocks[block](queries, rois, position, image_index)
