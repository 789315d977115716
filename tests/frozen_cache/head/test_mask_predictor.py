"""The dot product and Segmenter's head, cell by cell."""

import torch

from frozen_cache.head.mask_predictor import DotProduct, SegmenterHead


def test_a_logit_is_the_query_times_the_cell(noise):
    queries, rois = noise(3, 4), noise(3, 4, 2, 5, seed=1)
    expected = torch.stack([sum(queries[n, d] * rois[n, d] for d in range(4)) for n in range(3)])
    torch.testing.assert_close(DotProduct()(queries, rois, torch.tensor([0, 0, 1])), expected)


def test_segmenter_s_masks_are_cosines_normed_over_the_masks_of_their_image(settled, noise):
    ours = settled(SegmenterHead(dim=4))
    queries, rois = noise(107, 4), noise(107, 4, 2, 3, seed=1)
    found = ours(queries, rois, torch.tensor([0] * 3 + [2] * 104))
    for start, stop in ((0, 3), (3, 107)):
        q = queries[start:stop] @ ours.query.weight.T
        cells = torch.einsum("ed,ndhw->nehw", ours.cell.weight, rois[start:stop])
        cosine = torch.einsum("nd,ndhw->nhw", q, cells) / (q.norm(dim=1)[:, None, None] * cells.norm(dim=1))
        normed = (cosine - cosine.mean(0)) / (cosine.var(0, correction=0) + 1e-5).sqrt()
        rank = torch.arange(stop - start) % 100
        expected = normed * ours.norm.weight[rank, None, None] + ours.norm.bias[rank, None, None]
        torch.testing.assert_close(found[start:stop], expected)
