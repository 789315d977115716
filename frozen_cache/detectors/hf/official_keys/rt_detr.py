"""RT-DETR (rtdetr_pytorch) and RT-DETRv2 (rtdetrv2_pytorch) of github.com/lyuwenyu/RT-DETR."""

from __future__ import annotations

from functools import partial
from typing import Any

from frozen_cache.detectors.hf.official_keys.family import OfficialFamily
from frozen_cache.detectors.hf.official_keys.names import Rules
from frozen_cache.detectors.hf.official_keys.sizes import HEADS, OfficialWeights
from frozen_cache.errors import UserError

STRIDES = (8, 16, 32)
IGNORED = r"decoder\.(anchors|valid_mask|denoising_class_embed\.)"
"""Written anew for each input, or used in training only."""

RESNET: Rules = (
    (r"^model\.backbone\.model\.embedder\.embedder\.0\.", "backbone.conv1.conv1_1."),
    (r"^model\.backbone\.model\.embedder\.embedder\.1\.", "backbone.conv1.conv1_2."),
    (r"^model\.backbone\.model\.embedder\.embedder\.2\.", "backbone.conv1.conv1_3."),
    (r"^model\.backbone\.model\.encoder\.stages\.(\d+)\.layers\.", r"backbone.res_layers.\1.blocks."),
    (r"^(backbone\..*)\.layer\.0\.", r"\1.branch2a."),
    (r"^(backbone\..*)\.layer\.1\.", r"\1.branch2b."),
    (r"^(backbone\..*)\.layer\.2\.", r"\1.branch2c."),
    (r"^(backbone\..*)\.shortcut\.1\.", r"\1.short.conv."),
    (r"^(backbone\..*)\.shortcut\.", r"\1.short."),
    (r"^(backbone\..*)\.convolution\.", r"\1.conv."),
    (r"^(backbone\..*)\.normalization\.", r"\1.norm."),
)
ENCODER: Rules = (
    (r"^model\.encoder\.aifi\.(\d+)\.", r"encoder.encoder.\1."),
    (r"^model\.encoder\.", "encoder."),
    (r"^(encoder\.encoder\..*)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"^(encoder\.encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"self_attn\.o_proj\.", "self_attn.out_proj."),
)
DECODER: Rules = (
    (r"^model\.decoder_input_proj\.(\d+)\.0\.", r"decoder.input_proj.\1.conv."),
    (r"^model\.decoder_input_proj\.(\d+)\.1\.", r"decoder.input_proj.\1.norm."),
    (r"^(?:model\.decoder\.)?class_embed\.", "decoder.dec_score_head."),
    (r"^(?:model\.decoder\.)?bbox_embed\.", "decoder.dec_bbox_head."),
    (r"^model\.decoder\.layers\.", "decoder.decoder.layers."),
    (r"^model\.(decoder\.query_pos_head|decoder\.pre_bbox_head)\.", r"\1."),
    (r"^model\.(enc_\w+)\.", r"decoder.\1."),
    (r"^(decoder\.decoder\..*)\.encoder_attn\.", r"\1.cross_attn."),
    (r"^(decoder\.decoder\..*)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"^(decoder\.decoder\..*)\.encoder_attn_layer_norm\.", r"\1.norm2."),
    (r"^(decoder\.decoder\..*)\.final_layer_norm\.", r"\1.norm3."),
)
TWO_LAYERS: Rules = ((r"\.mlp\.fc([12])\.", r".linear\1."),)
NAMED_PARTS: Rules = (
    (r"^model\.encoder_input_proj\.(\d+)\.0\.", r"encoder.input_proj.\1.conv."),
    (r"^model\.encoder_input_proj\.(\d+)\.1\.", r"encoder.input_proj.\1.norm."),
    (r"^decoder\.enc_output\.0\.", "decoder.enc_output.proj."),
    (r"^decoder\.enc_output\.1\.", "decoder.enc_output.norm."),
)
"""The second version gave names to what the first one counted."""


def encoder_sizes(weights: OfficialWeights, projection: str) -> dict[str, Any]:
    """The fields of the hybrid encoder.

    Args:
        projection: the name of a level's input convolution, `{}` for the level.

    Raises:
        UserError: attention over other levels than the coarsest.
    """
    levels = weights.count("encoder.input_proj")
    if weights.count("encoder.encoder") != 1:
        raise UserError(f"{weights.place}: its encoder attends over {weights.count('encoder.encoder')} levels, not one")
    hidden = weights.rows(projection.format(0))
    return {
        "encoder_hidden_dim": hidden,
        "encoder_in_channels": [weights.shape(projection.format(level))[1] for level in range(levels)],
        "encoder_layers": weights.count("encoder.encoder.0.layers"),
        "encoder_ffn_dim": weights.rows("encoder.encoder.0.layers.0.linear1.bias"),
        "encode_proj_layers": [levels - 1],
        "feat_strides": list(STRIDES[-levels:]),
        "decoder_in_channels": [hidden] * levels,
    }


def decoder_sizes(weights: OfficialWeights) -> dict[str, Any]:
    """The fields of the decoder but for its points; no denoising queries, which only training has."""
    return {
        "d_model": weights.shape("decoder.enc_score_head.weight")[1],
        "decoder_layers": weights.count("decoder.decoder.layers"),
        "decoder_ffn_dim": weights.rows("decoder.decoder.layers.0.linear1.bias"),
        "num_denoising": 0,
    }


def _resnet(weights: OfficialWeights) -> Any:
    from transformers import RTDetrResNetConfig

    bottleneck = "backbone.res_layers.0.blocks.0.branch2c.conv.weight" in weights
    last = "branch2c" if bottleneck else "branch2b"
    stages = weights.count("backbone.res_layers")
    config = RTDetrResNetConfig(
        embedding_size=weights.rows("backbone.conv1.conv1_3.conv.weight"),
        hidden_sizes=[weights.rows(f"backbone.res_layers.{i}.blocks.0.{last}.conv.weight") for i in range(stages)],
        depths=[weights.count(f"backbone.res_layers.{i}.blocks") for i in range(stages)],
        layer_type="bottleneck" if bottleneck else "basic",
    )
    config.out_indices = [stages - 2, stages - 1, stages]
    return config


def _config(weights: OfficialWeights, *, second: bool) -> Any:
    from transformers import RTDetrConfig, RTDetrV2Config

    encoder = encoder_sizes(weights, f"encoder.input_proj.{{}}.{'conv' if second else '0'}.weight")
    levels = weights.count("decoder.input_proj")
    samples = weights.rows("decoder.decoder.layers.0.cross_attn.attention_weights.bias")
    block = weights.rows("encoder.fpn_blocks.0.conv1.conv.weight")
    sizes: dict[str, Any] = encoder | decoder_sizes(weights)
    sizes["backbone_config"] = _resnet(weights)
    sizes["hidden_expansion"] = block / encoder["encoder_hidden_dim"]
    sizes["num_feature_levels"] = levels
    sizes["decoder_n_points"] = samples // (HEADS * levels)
    return RTDetrV2Config(**sizes, decoder_n_levels=levels) if second else RTDetrConfig(**sizes)


SIZES = {("basic", (2, 2, 2, 2)): "r18", ("basic", (3, 4, 6, 3)): "r34", ("bottleneck", (3, 4, 23, 3)): "r101"}


def _variant(config: Any) -> str:
    """r50-m is r50 with narrower blocks in its encoder."""
    backbone = config.backbone_config
    if (backbone.layer_type, tuple(backbone.depths)) == ("bottleneck", (3, 4, 6, 3)):
        return "r50-m" if config.hidden_expansion < 1 else "r50"
    return SIZES.get((backbone.layer_type, tuple(backbone.depths)), "")


RESNET_MARKS = ("backbone.conv1.conv1_1.conv.weight", "decoder.dec_score_head.0.bias")

RT_DETR = OfficialFamily(
    rules=(
        *RESNET,
        *ENCODER,
        (r"^model\.encoder_input_proj\.", "encoder.input_proj."),
        *DECODER,
        *TWO_LAYERS,
    ),
    ignored=IGNORED,
    marks=(*RESNET_MARKS, "decoder.enc_output.0.bias"),
    config=partial(_config, second=False),
    classes="decoder.dec_score_head.0.bias",
    input_size=lambda weights: weights.input_size(STRIDES),
    variant=_variant,
)
RT_DETR_V2 = OfficialFamily(
    rules=(
        *RESNET,
        *ENCODER,
        *DECODER,
        *TWO_LAYERS,
        *NAMED_PARTS,
        (r"\.n_points_scale$", ".num_points_scale"),
    ),
    ignored=IGNORED,
    marks=(*RESNET_MARKS, "decoder.enc_output.proj.bias"),
    config=partial(_config, second=True),
    classes="decoder.dec_score_head.0.bias",
    input_size=lambda weights: weights.input_size(STRIDES),
    variant=_variant,
)
