"""The feed-forward network of every transformer layer of the head."""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear D -> 4 D, GELU, Linear 4 D -> D."""

    def __init__(self, *, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, ratio * dim)
        self.activation = nn.GELU()
        self.reduce = nn.Linear(ratio * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.reduce(self.activation(self.expand(tokens)))
