"""The feed-forward network of every transformer layer of the head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST_TOKENS = 16_384
"""That inference widens at once: what it makes of them is thrown away, so it need not be there for all."""


class FeedForward(nn.Module):
    """Linear D -> 4 D, GELU, Linear 4 D -> D."""

    def __init__(self, *, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, ratio * dim)
        self.activation = nn.GELU()
        self.reduce = nn.Linear(ratio * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        if torch.is_grad_enabled() or torch.compiler.is_exporting() or tokens.shape[-2] <= MOST_TOKENS:
            return self._through(tokens)
        return torch.cat([self._through(part) for part in tokens.split(MOST_TOKENS, dim=-2)], dim=-2)

    def _through(self, tokens: Tensor) -> Tensor:
        reduced: Tensor = self.reduce(self.activation(self.expand(tokens)))
        return reduced
