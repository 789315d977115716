"""Multi-head attention of the query blocks and of the Swin layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frozen_cache.precision import wide


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, bias: Tensor | None = None) -> Tensor:
    """Softmax attention.

    Args:
        query: (B, N, D).
        key: (B, S, D).
        value: (B, S, D).
        heads: number of heads; divides D.
        bias: added to the scores, broadcast to (B, heads, N, S).

    Returns:
        (B, N, D).
    """
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return (wide(scores).softmax(-1) @ v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Attention between tokens of one width, with the four usual projections (4 D^2 + 4 D parameters)."""

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, D) attend to (B, S, D); see `attend`."""
        return self.out(attend(self.query(query), self.key(key), self.value(value), heads=self.heads, bias=bias))

    def of_one(self, query: Tensor, cells: Tensor) -> Tensor:
        """One query of each image attends to its cells: (B, D) and (B, S, D) to (B, D).

        Inference projects no cell. A score is q (W x + b) = (q W) x + q b, so the query goes through the key's weights,
        and q b, the same for all cells, changes no softmax; weights sum to 1, so the value's come after the mean.
        """
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            return self(query[:, None], cells, cells)[:, 0]
        key, value = (of.weight.unflatten(0, (self.heads, -1)) for of in (self.key, self.value))  # (heads, d, D)
        asked = self.query(query).unflatten(-1, (self.heads, -1)).transpose(0, 1)  # (heads, B, d)
        asked = (asked * asked.shape[-1] ** -0.5 @ key).transpose(0, 1)  # (B, heads, D)
        share = wide(asked @ cells.transpose(1, 2)).softmax(-1)
        mean = (share @ cells).transpose(0, 1)  # (heads, B, D)
        return self.out((mean @ value.transpose(1, 2)).transpose(0, 1).flatten(1) + self.value.bias)
