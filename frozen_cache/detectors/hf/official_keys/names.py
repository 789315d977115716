"""Names: which official weight is which weight of a transformers model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Rules = tuple[tuple[str, str], ...]
"""(pattern, replacement) pairs, applied one after the other to a name in transformers; the result is official."""

STACKED = (
    (re.compile(r"(.*self_attn)\.([qkv])_proj\.(weight|bias)"), r"\1.in_proj_\3", ("q", "k", "v")),
    (re.compile(r"(model\.decoder\..*)\.mlp\.(gate|up)_proj\.(weight|bias)"), r"\1.swish_ffn.w12.\3", ("gate", "up")),
)
"""What transformers keeps apart: the projections that `nn.MultiheadAttention` stacks, the two halves of a gated MLP."""
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Piece:
    """One weight in transformers: an official weight, or one of its equal parts along the first axis."""

    official: str
    part: int = 0
    parts: int = 1

    def of(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The weight itself, from the official ones."""
        return weights[self.official].chunk(self.parts)[self.part]


def piece_of(name: str, rules: Rules) -> Piece:
    """Where the weight `name` of a transformers model stands in an official checkpoint."""
    part, parts = 0, 1
    for stack, whole, order in STACKED:
        stacked = stack.fullmatch(name)
        if stacked is not None:
            name, part, parts = stacked.expand(whole), order.index(stacked[2]), len(order)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return Piece(name, part, parts)


def layout(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Piece]:
    """Name in transformers -> its piece, for every weight of a model but the counters of its batch norms."""
    return {name: piece_of(name, rules) for name in state if not name.endswith(COUNTER)}


def official_shapes(state: Mapping[str, Tensor], pieces: Mapping[str, Piece]) -> dict[str, tuple[int, ...]]:
    """Official name -> shape, as the official model of the same sizes has it."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, piece in pieces.items():
        first, *rest = state[name].shape or (1,)
        shapes[piece.official] = (first * piece.parts, *rest) if state[name].ndim else ()
    return shapes


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few names."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
