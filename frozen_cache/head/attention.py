"""Multi-head attention of the query blocks and of the Swin layers."""

from __future__ import annotations

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
