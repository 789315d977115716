"""Deformable Transformer encoder layer (Deformable DETR), over the levels of an image or over one RoI."""

from __future__ import annotations

from torch import Tensor, nn

from frozen_cache.attention import MSDeformAttn
from frozen_cache.head.feed_forward import FeedForward
from frozen_cache.head.norm import LayerNorm, attention_heads


class DeformableLayer(nn.Module):
    """MSDeformAttn, LayerNorm, feed-forward, LayerNorm; residual connections, normalised after (post-norm).

    756,864 parameters at D = 256 and L = 4; 177,632 at D = 128 and L = 1.
    """

    def __init__(self, *, dim: int, levels: int) -> None:
        super().__init__()
        self.attention = MSDeformAttn(dim=dim, levels=levels, heads=attention_heads(dim), points=4)
        self.attention_norm = LayerNorm(dim)
        self.feed_forward = FeedForward(dim=dim)
        self.feed_forward_norm = LayerNorm(dim)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        reference: Tensor,
        shapes: list[tuple[int, int]],
        asking: int | None = None,
    ) -> Tensor:
        """Refine tokens that attend to themselves.

        Args:
            tokens: (B, S, D), the levels flattened and concatenated.
            position: (S, D), added to the tokens where they ask, not where they are sampled.
            reference: (B, S, L, 2) x, y in 0..1 of each token's own place.
            shapes: (H, W) of each of the L levels.
            asking: how many of the tokens, from the first on, are refined; the others are looked at alone. None: all.

        Returns:
            (B, S, D), or (B, asking, D).
        """
        first = tokens[:, :asking]
        attended = self.attention(first + position[:asking], reference[:, :asking], tokens, shapes)
        tokens = self.attention_norm(first + attended)
        return self.feed_forward_norm(tokens + self.feed_forward(tokens))
