"""Point sampling as in PointRend."""

import pytest
import torch

from frozen_cache.masks.points import sample_points, uncertain_points

# From oracles.pt: cells [0:4, 0:4] of the first mask's logits, points in this corner, and their samples.
CELLS = [
    [0.9841009, 0.3711521, 0.0032210, -0.7638974],
    [-0.8421265, 0.3235853, 0.6595761, 0.8813760],
    [-0.1532659, -0.3184845, -0.5553239, -0.8761035],
    [-1.6109815, -0.8779288, -1.0600797, 1.8336460],
]
POINTS = [[0.0785728, 0.0069594], [0.0805952, 0.0161831], [0.0483686, 0.0650387], [0.0690988, 0.0691447]]
SAMPLES = [-0.0056166, -0.0442979, -0.0494646, -0.1853359]


def test_a_slice_of_the_reference_samples_is_reproduced():
    logits = torch.zeros(1, 32, 32)
    logits[0, :4, :4] = torch.tensor(CELLS)
    torch.testing.assert_close(
        sample_points(logits, torch.tensor([POINTS])), torch.tensor([SAMPLES]), atol=3e-6, rtol=0
    )


def test_all_of_the_reference_points_are_reproduced(oracles):
    points = oracles["points"]
    logits = points["logits"][:, 0]
    torch.manual_seed(points["seed"])
    found = uncertain_points(logits, points=points["coords"].shape[1], oversample=3.0, importance=0.75)
    assert torch.equal(found, points["coords"])
    torch.testing.assert_close(sample_points(logits, found), points["sampled"][:, 0])


def test_the_share_beta_lies_where_the_mask_is_least_certain():
    logits = torch.full((2, 16, 16), 9.0)
    logits[:, :, 8:] = -9.0
    generator = torch.Generator().manual_seed(0)
    found = uncertain_points(logits, points=40, oversample=100.0, importance=0.75, generator=generator)
    assert found.shape == (2, 40, 2)
    assert ((found[:, :30, 0] - 0.5).abs() < 1 / 16).all()
    assert ((found[:, 30:, 0] - 0.5).abs() > 1 / 16).any()


def test_all_points_uncertain_and_no_masks_work():
    assert uncertain_points(torch.zeros(2, 8, 8), points=5, importance=1.0).shape == (2, 5, 2)
    none = uncertain_points(torch.zeros(0, 8, 8), points=5)
    assert none.shape == (0, 5, 2)
    logits = torch.zeros(0, 8, 8, requires_grad=True)
    sample_points(logits, none).sum().backward()


def test_samples_are_read_between_the_centres_of_cells_and_zero_beyond_the_mask():
    mask = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])  # rows of y, columns of x
    points = torch.tensor([[[1 / 6, 0.25], [5 / 6, 0.75], [0.5, 0.5], [1 / 3, 0.25], [0.0, 0.25], [2.0, 0.5]]])
    assert sample_points(mask, points)[0].tolist() == pytest.approx([1, 6, 3.5, 1.5, 0.5, 0], abs=1e-5)


@pytest.mark.parametrize(
    ("points", "oversample", "importance"), [(8, 3.0, 0.75), (8, 2.0, 0.5), (5, 4.0, 1.0), (4, 1.0, 0.0)]
)
def test_of_k_times_as_many_draws_those_nearest_to_zero_are_kept(points, oversample, importance):
    logits = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1))
    options = {"points": points, "oversample": oversample, "importance": importance}
    found = uncertain_points(logits, **options, generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    drawn = torch.rand(2, int(points * oversample), 2, generator=generator)
    kept = int(points * importance)
    extra = torch.rand(2, points - kept, 2, generator=generator)
    for mask, candidates, more, chosen in zip(logits, drawn, extra, found, strict=True):
        certainty = sample_points(mask[None], candidates[None])[0].abs().tolist()
        best = sorted(range(len(candidates)), key=certainty.__getitem__)[:kept]
        assert torch.equal(chosen, torch.cat([candidates[best], more]))
