"""The map F: neck, upsampling, sum, channel mapper."""

import pytest
import torch
from torch.nn import functional as F

from frozen_cache.head.config import HeadConfig
from frozen_cache.head.feature_map import FeatureMap, Projection, upsample

PLAIN = {"image_encoder": "none", "image_width": 16, "width": 16}


def test_upsampling_is_bilinear_between_the_centres_of_cells():
    row = torch.tensor([[[[0.0, 4.0]]]])
    assert upsample(row, (1, 4)).flatten().tolist() == [0, 1, 3, 4]
    column = row.transpose(2, 3)
    assert upsample(column, (6, 1)).flatten().tolist() == pytest.approx([0, 0, 4 / 3, 8 / 3, 4, 4], abs=1e-6)


def test_upsampling_to_an_odd_size_follows_the_same_centres(noise):
    # Cell i of n has its centre at (i + 0.5) / n: its value is read there, held to the outermost centres.
    row = noise(5)
    at = ((torch.arange(8).double() + 0.5) / 8 * 5 - 0.5).clamp(0, 4)
    low = at.floor().long()
    expected = torch.lerp(row[low], row[(low + 1).clamp(max=4)], at - low)
    torch.testing.assert_close(upsample(row[None, None, None], (1, 8)).flatten(), expected)


def normed(feature, norm):
    """GroupNorm by its definition: each group has mean 0 and variance 1 over its channels and cells."""
    groups = feature.unflatten(1, (norm.num_groups, -1)).flatten(2)
    flat = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, correction=0) + norm.eps).sqrt()
    return flat.view_as(feature) * norm.weight[:, None, None] + norm.bias[:, None, None]


def test_a_projection_is_a_matrix_and_group_norm(settled, noise):
    ours = settled(Projection(channels=6, dim=8))
    feature = noise(2, 6, 3, 5)
    mixed = torch.einsum("dc,bchw->bdhw", ours[0].weight[:, :, 0, 0], feature) + ours[0].bias[:, None, None]
    torch.testing.assert_close(ours(feature), normed(mixed, ours[1]))


def maps_of(shapes, noise, size):
    def of(spec, seed):
        return noise(2, spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride), seed=seed)

    return None if shapes.c1 is None else of(shapes.c1, 9), [of(level, at) for at, level in enumerate(shapes.levels)]


def raised(level, like):
    return F.interpolate(level, size=like.shape[2:], mode="bilinear", align_corners=False)


def test_f_is_the_neck_of_c1_and_the_finest_level_upsampled(inputs, settled, noise):
    shapes = inputs["deimv2_atto"]
    ours = settled(FeatureMap(config=HeadConfig(image_encoder="none", width=24), inputs=shapes))
    c1, levels = maps_of(shapes, noise, (50, 70))
    fine = ours.neck(c1)
    expected = torch.einsum("dc,bchw->bdhw", ours.mapper.weight[:, :, 0, 0], fine + raised(levels[0], fine))
    torch.testing.assert_close(ours(c1, levels), expected + ours.mapper.bias[:, None, None])
    assert (ours.stride, ours.uses_c1) == (4, True)
    assert isinstance(ours.neck, Projection)


@pytest.mark.parametrize("fused", [1, 2, 3, "all"])
def test_as_many_levels_are_added_up_as_asked(inputs, settled, noise, fused):
    shapes = inputs["small"]
    ours = settled(FeatureMap(config=HeadConfig(**PLAIN, fused_levels=fused), inputs=shapes))
    c1, levels = maps_of(shapes, noise, (50, 70))
    expected = ours.neck(c1)
    for project, level in list(zip(ours.projections, levels, strict=False))[: 3 if fused == "all" else fused]:
        expected = expected + raised(project(level), c1)
    torch.testing.assert_close(ours(c1, levels), expected)


def test_without_a_neck_a_c1_of_as_many_channels_is_added_as_it_is(inputs, settled, noise):
    shapes = inputs["one_level"]
    ours = settled(FeatureMap(config=HeadConfig(**PLAIN, neck=False), inputs=shapes))
    c1, levels = maps_of(shapes, noise, (50, 70))
    torch.testing.assert_close(ours(c1, levels), c1 + raised(levels[0], c1))


def test_without_c1_f_is_the_finest_level_and_has_its_stride(inputs, settled, noise):
    shapes = inputs["small_no_c1"]
    ours = settled(FeatureMap(config=HeadConfig(**PLAIN, fused_levels=2), inputs=shapes))
    _, levels = maps_of(shapes, noise, (50, 70))
    torch.testing.assert_close(ours(None, levels), levels[0] + raised(levels[1], levels[0]))
    assert (ours.stride, ours.uses_c1) == (8, False)


def test_levels_of_the_encoder_s_own_width_are_not_projected(inputs):
    ours = FeatureMap(config=HeadConfig(), inputs=inputs["deimv2_atto_added"])
    assert [isinstance(project, Projection) for project in ours.projections] == [True, True, False, False]
    assert [FeatureMap(config=HeadConfig(image_encoder=kind), inputs=inputs["dino"]).read for kind in
            ("deformable", "swin", "none")] == [5, 1, 1]  # fmt: skip


def test_the_image_encoder_s_maps_are_what_is_added(inputs, settled, noise):
    shapes = inputs["deimv2_atto"]
    ours = settled(FeatureMap(config=HeadConfig(width=64), inputs=shapes))
    c1, levels = maps_of(shapes, noise, (50, 70))
    fine = ours.neck(c1)
    torch.testing.assert_close(ours(c1, levels), fine + raised(ours.image_encoder(levels)[0], fine))
