"""Multi-head attention against torch's own, with the same weights."""

import pytest
import torch
from torch import nn

from frozen_cache.head.attention import Attention


def torchs(ours: Attention) -> nn.MultiheadAttention:
    """`nn.MultiheadAttention` with the weights of ours."""
    theirs = nn.MultiheadAttention(ours.query.in_features, ours.heads, batch_first=True, dtype=torch.float64)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    return theirs


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_it_is_torchs_multi_head_attention(settled, noise, heads):
    ours = settled(Attention(dim=8, heads=heads))
    query, key, value = noise(2, 3, 8), noise(2, 5, 8, seed=1), noise(2, 5, 8, seed=2)
    expected, _ = torchs(ours)(query, key, value)
    torch.testing.assert_close(ours(query, key, value), expected)


def test_a_bias_is_added_to_the_scores(settled, noise):
    ours = settled(Attention(dim=8, heads=2))
    query, key = noise(2, 3, 8), noise(2, 5, 8, seed=1)
    bias = noise(3, 5, seed=2)
    bias[0, 1:4] = -torch.inf
    expected, _ = torchs(ours)(query, key, key, attn_mask=bias)
    torch.testing.assert_close(ours(query, key, key, bias), expected)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_one_query_attends_as_any_does_though_inference_projects_no_cell(settled, noise, heads, training):
    ours = settled(Attention(dim=8, heads=heads))
    query, cells = noise(3, 8), noise(3, 5, 8, seed=1)
    expected, _ = torchs(ours)(query[:, None], cells, cells)
    projected = []
    ours.key.register_forward_hook(lambda *_: projected.append("key"))
    ours.value.register_forward_hook(lambda *_: projected.append("value"))
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(ours.of_one(query, cells), expected[:, 0])
    assert projected == (["key", "value"] if training else [])


def test_one_query_in_bfloat16_is_as_near_to_float32_as_with_projected_cells():
    torch.manual_seed(0)
    ours = Attention(dim=64, heads=8)
    query, cells = torch.randn(30, 64), torch.randn(30, 100, 64)

    def error(found: torch.Tensor) -> float:
        return float((found - exact).square().mean().sqrt())

    with torch.no_grad():
        exact = ours(query[:, None], cells, cells)[:, 0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            projected, found = ours(query[:, None], cells, cells)[:, 0], ours.of_one(query, cells)
    assert found.dtype == torch.bfloat16
    assert 0 < error(found) < 1.2 * error(projected)
