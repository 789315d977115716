"""Choices by score that rounding decides: torch is shown those of the graph, where they are as good as its own.

A two-stage detector takes the k best of thousands of tokens, and a query's content often follows from its place among
them. Two programs that differ by rounding alone choose otherwise where two scores are all but equal, and self-attention
carries that one choice into every box, score and mask. What comes of it says nothing of the graph; with equal choices
it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

TIE = 1e-4
"""Scores (logits or probabilities) that are no further apart are equal but for rounding."""


class SharedChoices(TorchFunctionMode):
    """Context manager: the first calls of `topk` within choose as another program has chosen, if that choice is right
    by the scores here: its i-th is no more than `TIE` worse or better than the i-th best.

    Args:
        theirs: for each call, the indices that `topk` would give.
    """

    def __init__(self, theirs: Sequence[Tensor]) -> None:
        super().__init__()
        self.exchanged = 0
        """How many of the places hold another index than torch's own choice."""
        self._theirs = list(theirs)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        own = func(*args, **(kwargs or {}))
        if func not in (torch.topk, Tensor.topk) or not self._theirs:
            return own
        given = dict(zip(("input", "k", "dim"), args, strict=False)) | (kwargs or {})
        theirs, dim = self._theirs.pop(0), given.get("dim", -1)
        if theirs.shape != own.indices.shape or not _are_places(theirs, given["input"].shape[dim], dim):
            return own
        values = given["input"].gather(dim, theirs)
        if not bool(((values == own.values) | ((values - own.values).abs() <= TIE)).all()):
            return own
        self.exchanged += int((theirs != own.indices).sum())
        return type(own)((values, theirs))


def _are_places(indices: Tensor, length: int, dim: int) -> bool:
    """Whether indices point into an axis of this length, none of them twice."""
    ordered = indices.sort(dim).values
    twice = (ordered.diff(dim=dim) == 0).any()
    return bool((indices >= 0).all() and (indices < length).all() and not twice)


def choice_graph(file: Path) -> bytes:
    """The graph in a file, which gives behind its outputs the indices of each TopK node of the detector, in the order
    in which they run. The last TopK of all is not among them: it selects the pairs, behind the detector."""
    import onnx

    model = onnx.load(file)
    for node in [node for node in model.graph.node if node.op_type == "TopK"][:-1]:
        choice = onnx.helper.make_tensor_value_info(node.output[1], onnx.TensorProto.INT64, None)
        model.graph.output.append(choice)
    return model.SerializeToString()
