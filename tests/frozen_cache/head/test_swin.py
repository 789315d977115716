"""The Swin layer against torchvision's block, and cell by cell where maps do not fill the windows."""

import pytest
import torch
from torchvision.models.swin_transformer import SwinTransformerBlock

from frozen_cache.head.swin import SwinLayer


def torchvisions(ours: SwinLayer) -> SwinTransformerBlock:
    """torchvision's block with the weights of ours."""
    window = [ours.window] * 2
    theirs = SwinTransformerBlock(
        ours.qkv.in_features, ours.heads, window_size=window, shift_size=[ours.shift] * 2
    ).double()
    theirs.eval().requires_grad_(False)
    theirs.norm1.load_state_dict(ours.attention_norm.state_dict())
    theirs.norm2.load_state_dict(ours.feed_forward_norm.state_dict())
    theirs.attn.qkv.load_state_dict(ours.qkv.state_dict())
    theirs.attn.proj.load_state_dict(ours.out.state_dict())
    theirs.attn.relative_position_bias_table.copy_(ours.position_bias)
    theirs.mlp[0].load_state_dict(ours.feed_forward.expand.state_dict())
    theirs.mlp[3].load_state_dict(ours.feed_forward.reduce.state_dict())
    return theirs


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(8, 12), (4, 8), (8, 4), (4, 4)])
def test_it_is_torchvisions_block_on_whole_windows(settled, noise, shifted, size):
    ours = settled(SwinLayer(dim=6, window=4, shifted=shifted))
    assert ours.shift == (2 if shifted else 0)
    feature = noise(2, 6, *size)
    expected = torchvisions(ours)(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    # torchvision keeps regions apart by -100, which lets nothing through in float64 either.
    torch.testing.assert_close(ours(feature), expected)


def windowed(ours: SwinLayer, feature: torch.Tensor) -> torch.Tensor:
    """The layer on one map (D, H, W), each cell asking the cells of its own window, which lie on the unpadded map."""
    _, height, width = feature.shape
    side, heads = ours.window, ours.heads
    shift = [ours.shift if length > side else 0 for length in (height, width)]
    tokens = feature.permute(1, 2, 0)
    query, key, value = ours.qkv(ours.attention_norm(tokens)).chunk(3, dim=-1)
    attended = torch.zeros_like(tokens)
    cells = [(y, x) for y in range(height) for x in range(width)]
    for y, x in cells:
        mine = ((y - shift[0]) // side, (x - shift[1]) // side)
        seen = [(b, a) for b, a in cells if ((b - shift[0]) // side, (a - shift[1]) // side) == mine]
        for head in range(heads):
            part = slice(head * 6 // heads, (head + 1) * 6 // heads)
            scores = [
                query[y, x, part] @ key[b, a, part] / (6 / heads) ** 0.5
                + ours.position_bias[(y - b + side - 1) * (2 * side - 1) + x - a + side - 1, head]
                for b, a in seen
            ]
            weights = torch.stack(scores).softmax(0)
            attended[y, x, part] = sum(weight * value[b, a, part] for weight, (b, a) in zip(weights, seen, strict=True))
    tokens = tokens + ours.out(attended)
    return (tokens + ours.feed_forward(ours.feed_forward_norm(tokens))).permute(2, 0, 1)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (2, 5), (1, 1)])
def test_cells_that_fill_the_last_window_are_seen_by_none(settled, noise, shifted, size):
    ours = settled(SwinLayer(dim=6, window=3, shifted=shifted))
    maps = noise(2, 6, *size)
    expected = torch.stack([windowed(ours, feature) for feature in maps])
    torch.testing.assert_close(ours(maps), expected)
