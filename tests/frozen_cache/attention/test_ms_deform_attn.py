"""Multi-scale deformable attention against transformers' module, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention

from frozen_cache.attention.backends import SWITCH
from frozen_cache.attention.ms_deform_attn import MSDeformAttn, deformable_sampling, short_softmax

SHAPES = [(4, 5), (2, 3)]


@pytest.fixture(params=["grid_sample", "embedding_bag"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What PyTorch has, one after the other."""
    name: str = request.param
    monkeypatch.setenv(SWITCH, name)
    return name


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, with every parameter drawn anew."""
    module.double().eval().requires_grad_(False)
    for seed, value in enumerate(module.parameters()):
        value.copy_(0.5 * noise(*value.shape, seed=seed))
    return module


def transformers_attention() -> torch.nn.Module:
    """Of transformers, in float64."""
    config = DeformableDetrConfig(
        use_timm_backbone=False,
        backbone_config={"model_type": "resnet"},
        d_model=16,
        num_feature_levels=2,
        disable_custom_kernels=True,
    )
    return drawn(DeformableDetrMultiscaleDeformableAttention(config, num_heads=4, n_points=3))


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_transformers_attention(coordinates: int, padded: bool) -> None:
    theirs = transformers_attention()
    ours = MSDeformAttn(dim=16, levels=2, heads=4, points=3).double()
    ours.load_state_dict(theirs.state_dict())
    query, value = noise(2, 7, 16, seed=20), noise(2, 26, 16, seed=21)
    reference = noise(2, 7, 2, coordinates, seed=22).sigmoid()
    padding = noise(2, 26, seed=23) > 0.5 if padded else None
    expected, _ = theirs(
        query,
        attention_mask=None if padding is None else ~padding,
        encoder_hidden_states=value,
        reference_points=reference,
        spatial_shapes=torch.tensor(SHAPES),
        spatial_shapes_list=SHAPES,
        level_start_index=torch.tensor([0, 20]),
    )
    torch.testing.assert_close(ours(query, reference, value, SHAPES, padding), expected)


def test_gradients_are_those_of_transformers_attention() -> None:
    theirs = transformers_attention().requires_grad_()
    ours = MSDeformAttn(dim=16, levels=2, heads=4, points=3).double()
    ours.load_state_dict(theirs.state_dict())
    given = [noise(2, 7, 16, seed=20), noise(2, 7, 2, 4, seed=22).sigmoid(), noise(2, 26, 16, seed=21)]
    pull = noise(2, 7, 16, seed=24)
    found = []
    for attention in (ours, theirs):
        query, reference, value = (each.clone().requires_grad_() for each in given)
        if attention is ours:
            out = attention(query, reference, value, SHAPES)
        else:
            out, _ = attention(
                query,
                encoder_hidden_states=value,
                reference_points=reference,
                spatial_shapes=torch.tensor(SHAPES),
                spatial_shapes_list=SHAPES,
                level_start_index=torch.tensor([0, 20]),
            )
        (out * pull).sum().backward()
        weights = [parameter.grad for _, parameter in sorted(attention.named_parameters())]
        found.append([query.grad, reference.grad, value.grad, *weights])
    torch.testing.assert_close(found[0], found[1])


def test_nothing_is_kept_for_the_backward_pass_but_what_was_given() -> None:
    value = noise(1, 26, 2, 4).requires_grad_()
    locations, weights = noise(1, 5, 2, 2, 3, 2).sigmoid(), noise(1, 5, 2, 2, 3)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        deformable_sampling(value, SHAPES, locations, weights)
    assert sorted(kept) == sorted([value.numel(), locations.numel(), weights.numel()])


def test_a_sample_between_four_cells_is_their_weighted_mean_and_zero_beyond_the_map() -> None:
    value = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).view(1, 6, 1, 1).double()  # a map of 2 x 3
    at = torch.tensor([[1.0, 1.0], [0.75, 0.5], [0.0, 0.0], [-2.0, 0.5]]).double() / torch.tensor([3, 2])
    locations, weights = at.view(1, 4, 1, 1, 1, 2), torch.full((1, 4, 1, 1, 1), 2.0).double()
    found = deformable_sampling(value, [(2, 3)], locations, weights).flatten()
    # Between all four of 1 2 4 5; a quarter of the way from 1 to 2; a quarter of cell 1, the rest outside; outside.
    assert found.tolist() == pytest.approx([6.0, 2.5, 0.5, 0.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_sampled_in_float32(dtype: torch.dtype) -> None:
    value = noise(1, 26, 2, 4).to(dtype)
    locations, weights = noise(1, 5, 2, 2, 3, 2).sigmoid().float(), noise(1, 5, 2, 2, 3).float()
    wide = deformable_sampling(value.float(), SHAPES, locations, weights)
    torch.testing.assert_close(deformable_sampling(value, SHAPES, locations, weights), wide, rtol=0, atol=1e-6)


def test_it_starts_by_looking_one_to_p_cells_away_in_a_direction_of_each_head() -> None:
    ours = MSDeformAttn(dim=16, levels=2, heads=8, points=3)
    offsets = ours.sampling_offsets.bias.view(8, 2, 3, 2)
    directions = torch.tensor([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1.0]])
    expected = directions[:, None, None] * torch.tensor([1.0, 2.0, 3.0])[:, None]
    torch.testing.assert_close(offsets, expected.expand(8, 2, 3, 2), atol=1e-5, rtol=0)
    assert not ours.sampling_offsets.weight.any() and not ours.attention_weights.weight.any()
    assert not any(part.bias.any() for part in (ours.attention_weights, ours.value_proj, ours.output_proj))


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of 4 heads"):
        MSDeformAttn(dim=10, levels=1, heads=4)


@pytest.mark.parametrize("training", [True, False])
def test_a_short_softmax_is_a_softmax_also_of_large_numbers(training: bool) -> None:
    scores = 300 * noise(3, 5, 4)
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(short_softmax(scores), scores.softmax(-1))
        torch.testing.assert_close(short_softmax(scores.float()), scores.float().softmax(-1), rtol=1e-6, atol=1e-7)
