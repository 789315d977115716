"""The deformable layer against that of transformers' Deformable DETR."""

import torch
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrEncoderLayer

from frozen_cache.head.deformable import DeformableLayer


def transformers_layer(ours: DeformableLayer) -> DeformableDetrEncoderLayer:
    """transformers' encoder layer with the weights of ours; its feed-forward network has ReLU unless told otherwise."""
    attention = ours.attention
    config = DeformableDetrConfig(
        use_timm_backbone=False,
        backbone_config={"model_type": "resnet"},
        d_model=attention.dim,
        num_feature_levels=attention.levels,
        encoder_attention_heads=attention.heads,
        encoder_n_points=attention.points,
        encoder_ffn_dim=4 * attention.dim,
        activation_function="gelu",
        disable_custom_kernels=True,
    )
    theirs = DeformableDetrEncoderLayer(config).double().eval().requires_grad_(False)
    theirs.self_attn.load_state_dict(attention.state_dict())
    theirs.self_attn_layer_norm.load_state_dict(ours.attention_norm.state_dict())
    theirs.mlp.fc1.load_state_dict(ours.feed_forward.expand.state_dict())
    theirs.mlp.fc2.load_state_dict(ours.feed_forward.reduce.state_dict())
    theirs.final_layer_norm.load_state_dict(ours.feed_forward_norm.state_dict())
    return theirs


def test_it_is_the_layer_of_deformable_detr(settled, noise):
    ours = settled(DeformableLayer(dim=16, levels=2))
    assert (ours.attention.heads, ours.attention.points) == (8, 4)
    shapes = [(4, 5), (2, 3)]
    tokens, position = noise(2, 26, 16), noise(26, 16, seed=1)
    reference = noise(2, 26, 2, 2, seed=2).sigmoid()
    expected = transformers_layer(ours)(
        tokens,
        attention_mask=None,
        spatial_position_embeddings=position[None],
        reference_points=reference,
        spatial_shapes=torch.tensor(shapes),
        spatial_shapes_list=shapes,
        level_start_index=torch.tensor([0, 20]),
    )
    torch.testing.assert_close(ours(tokens, position, reference, shapes), expected)
