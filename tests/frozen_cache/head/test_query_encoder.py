"""The query encoder's parts against torch's own attention, and their order."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from frozen_cache.head.position import box_sine
from frozen_cache.head.query_encoder import BoxPosition, BoxToObject, ObjectToObject, QueryEncoder, QueryFeedForward


def torchs(ours) -> nn.MultiheadAttention:
    """`nn.MultiheadAttention` with the weights of ours, in eval mode."""
    theirs = nn.MultiheadAttention(ours.query.in_features, ours.heads, batch_first=True, dtype=torch.float64)
    parts = (ours.query, ours.key, ours.value)
    theirs.requires_grad_(False)
    theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    return theirs.eval()


def normed(tokens, norm):
    return F.layer_norm(tokens, tokens.shape[-1:], norm.weight, norm.bias)


def test_a_box_s_position_is_a_matrix_of_its_512_sines(settled, noise):
    ours = settled(BoxPosition(dim=8))
    boxes = noise(3, 4).sigmoid()
    expected = box_sine(boxes, 512) @ ours.project.weight.T + ours.project.bias
    torch.testing.assert_close(ours(boxes), expected)


def test_objects_of_one_image_attend_to_each_other_with_their_places(settled, noise):
    ours = settled(ObjectToObject(dim=16))
    queries, position = noise(5, 16), noise(5, 16, seed=1)
    found = ours(queries, position, torch.tensor([0, 0, 0, 2, 2]))
    for part in (slice(0, 3), slice(3, 5)):
        placed = (queries + position)[None, part]
        attended = torchs(ours.attention)(placed, placed, queries[None, part])[0][0]
        torch.testing.assert_close(found[part], normed(queries[part] + attended, ours.norm))


def test_a_query_attends_to_the_cells_of_its_own_roi(settled, noise):
    ours = settled(BoxToObject(dim=16))
    queries, rois = noise(3, 16), noise(3, 16, 2, 4, seed=1)
    cells = torch.stack([rois[:, :, y, x] for y in range(2) for x in range(4)], 1)
    attended = torchs(ours.attention)(queries[:, None], cells, cells)[0][:, 0]
    torch.testing.assert_close(ours(queries, rois), normed(queries + attended, ours.norm))


def test_feed_forward_has_a_residual_and_a_norm_after(settled, noise):
    ours = settled(QueryFeedForward(dim=16))
    queries = noise(3, 16)
    torch.testing.assert_close(ours(queries), normed(queries + ours.feed_forward(queries), ours.norm))


@pytest.mark.parametrize("parts", [("ffn", "o2o", "b2o"), ("ffn", "b2o"), ("b2o",), ("o2o",), ("ffn",)])
def test_objects_come_before_boxes_and_the_feed_forward_network_last(settled, noise, parts):
    ours = settled(QueryEncoder(dim=16, parts=parts, count=2))
    queries, rois, boxes = noise(3, 16), noise(3, 16, 2, 4, seed=1), noise(3, 4, seed=2).sigmoid()
    image = torch.tensor([0, 0, 1])
    for at, block in enumerate(ours.blocks):
        expected = queries
        if "o2o" in parts:
            expected = block.objects(expected, ours.position(boxes), image)
        if "b2o" in parts:
            expected = block.box(expected, rois)
        if "ffn" in parts:
            expected = block.feed_forward(expected)
        torch.testing.assert_close(ours(queries, rois, boxes, image, block=at), expected)
    assert len(ours) == 2
    last = ours.blocks[-1]
    assert ours.last_norm is {"ffn": last.feed_forward, "b2o": last.box, "o2o": last.objects}[
        next(part for part in ("ffn", "b2o", "o2o") if part in parts)
    ].norm  # fmt: skip
