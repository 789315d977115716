"""Choices between equal scores: torch follows those that are as good as its own, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from frozen_cache.export.ties import TIE, SharedChoices, choice_graph

SCORES = torch.tensor([[3.0, 2.0, 2.0 + TIE / 3, 2.0 - TIE / 3, 1.0, 1.0]])


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return torch.topk(scores, k, dim=1)


@pytest.mark.parametrize("theirs", [[0, 1, 3], [0, 3, 1], [0, 1, 2]])
def test_what_lies_within_rounding_is_taken_over_and_counted(theirs):
    with SharedChoices([torch.tensor([theirs])]) as shared:
        values, indices = best(SCORES, 3)
        own = best(SCORES, 3).indices
    assert indices.tolist() == [theirs]
    assert values.tolist() == [SCORES[0, theirs].tolist()]
    assert own.tolist() == [[0, 2, 1]]
    assert shared.exchanged == sum(at != own for at, own in zip(theirs, own[0].tolist(), strict=True))


@pytest.mark.parametrize(
    "theirs",
    [
        [0, 1, 4],  # a worse one
        [2, 0, 1],  # the right ones in a wrong order
        [0, 1, 1],  # one twice
        [0, 1, 6],  # none of them
        [0, 1],  # too few
    ],
)
def test_a_wrong_choice_is_not_followed(theirs):
    with SharedChoices([torch.tensor([theirs])]) as shared:
        assert best(SCORES, 3).indices.tolist() == [[0, 2, 1]]
    assert shared.exchanged == 0


def test_calls_are_followed_in_their_order_and_infinite_scores_are_equal():
    masked = torch.tensor([[-torch.inf, 1.0, -torch.inf]])
    with SharedChoices([torch.tensor([[1, 2]]), torch.tensor([[0, 1]])]) as shared:
        assert masked.topk(2).indices.tolist() == [[1, 2]]
        assert torch.topk(torch.tensor([[5.0, 5.0]]), k=2, dim=-1).indices.tolist() == [[0, 1]]
    assert shared.exchanged <= 2


class Two(torch.nn.Module):
    """A detector's choice of tokens, then the selection of pairs."""

    def forward(self, scores: Tensor) -> Tensor:
        tokens = scores.topk(4, dim=1).indices
        return scores.gather(1, tokens).flip(1).topk(2, dim=1).indices


def test_the_graph_gives_the_detectors_choices_behind_its_outputs(tmp_path: Path):
    torch.onnx.export(
        Two().eval(), (torch.rand(2, 9),), tmp_path / "two.onnx", dynamo=True, opset_version=18, verbose=False
    )
    assert [node.op_type for node in onnx.load(tmp_path / "two.onnx").graph.node].count("TopK") == 2
    session = onnxruntime.InferenceSession(choice_graph(tmp_path / "two.onnx"))
    scores = torch.rand(2, 9)
    pairs, tokens = session.run(None, {session.get_inputs()[0].name: scores.numpy()})
    np.testing.assert_array_equal(tokens, scores.topk(4, dim=1).indices.numpy())
    np.testing.assert_array_equal(pairs, Two()(scores).numpy())
