"""RF-DETR of github.com/roboflow/rf-detr: DINOv2 with windows, one level, groups of queries in training."""

from __future__ import annotations

import re
from typing import Any

from frozen_cache.detectors.hf.official_keys.family import OfficialFamily
from frozen_cache.detectors.hf.official_keys.names import Rules
from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights

VIT = "backbone.0.encoder.encoder"
HEAD_CHANNELS = 64
"""Of attention in every DINOv2."""
CROSS_HEADS = 16

BACKBONE: Rules = (
    (r"^model\.backbone\.backbone\.", f"{VIT}."),
    (rf"^({re.escape(VIT)}.*)\.attention\.q_proj\.", r"\1.attention.attention.query."),
    (rf"^({re.escape(VIT)}.*)\.attention\.k_proj\.", r"\1.attention.attention.key."),
    (rf"^({re.escape(VIT)}.*)\.attention\.v_proj\.", r"\1.attention.attention.value."),
    (rf"^({re.escape(VIT)}.*)\.attention\.o_proj\.", r"\1.attention.output.dense."),
)
PROJECTOR: Rules = (
    (r"^model\.backbone\.projector\.layer_norm\.", "backbone.0.projector.stages.0.1."),
    (r"^model\.backbone\.projector\.projector_layer\.bottlenecks\.", "backbone.0.projector.stages.0.0.m."),
    (r"^model\.backbone\.projector\.projector_layer\.", "backbone.0.projector.stages.0.0."),
    (r"^(backbone\.0\.projector\..*)conv([12])\.conv\.", r"\1cv\2.conv."),
    (r"^(backbone\.0\.projector\..*)conv([12])\.norm\.", r"\1cv\2.bn."),
)
DECODER: Rules = (
    (r"^model\.reference_point_embed\.", "refpoint_embed."),
    (r"^model\.query_feat\.", "query_feat."),
    (r"^model\.(enc_\w+|decoder)\.", r"transformer.\1."),
    (r"^(transformer\.decoder\.layers\..*)\.self_attn\.o_proj\.", r"\1.self_attn.out_proj."),
    (r"^(transformer\.decoder\.layers\..*)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"^(transformer\.decoder\.layers\..*)\.cross_attn_layer_norm\.", r"\1.norm2."),
    (r"^(transformer\.decoder\.layers\..*)\.layer_norm\.", r"\1.norm3."),
    (r"^(transformer\.decoder\.layers\..*)\.mlp\.fc([12])\.", r"\1.linear\2."),
    (r"^transformer\.decoder\.layernorm\.", "transformer.decoder.norm."),
)


def _patch(weights: OfficialWeights) -> int:
    return weights.shape(f"{VIT}.embeddings.patch_embeddings.projection.weight")[-1]


def _grid(weights: OfficialWeights) -> int:
    """Patches along a side, as the position embedding has them (and one more row for the class token)."""
    return round((weights.shape(f"{VIT}.embeddings.position_embeddings")[1] - 1) ** 0.5)


def _vit(weights: OfficialWeights) -> Any:
    """What the weights do not tell is the run's own where the file has it, else that of the published size."""
    from transformers import RfDetrDinov2Config

    base = _patch(weights) == 14
    hidden = weights.shape(f"{VIT}.embeddings.cls_token")[-1]
    features = weights.arguments.get("out_feature_indexes") or ([2, 5, 8, 11] if base else [3, 6, 9, 12])
    sizes: dict[str, Any] = {
        "hidden_size": hidden,
        "num_attention_heads": hidden // HEAD_CHANNELS,
        "num_hidden_layers": weights.count(f"{VIT}.encoder.layer"),
        "mlp_ratio": weights.rows(f"{VIT}.encoder.layer.0.mlp.fc1.bias") // hidden,
        "patch_size": _patch(weights),
        "image_size": _patch(weights) * _grid(weights),
        "num_windows": weights.arguments.get("num_windows") or (4 if base else 2),
        "out_features": [f"stage{index}" for index in features],
        "num_register_tokens": 0,
    }
    return RfDetrDinov2Config(**sizes)


def _config(weights: OfficialWeights) -> Any:
    from transformers import RfDetrConfig

    groups = weights.count("transformer.enc_output")
    projector = "backbone.0.projector.stages.0.0"
    return RfDetrConfig(
        backbone_config=_vit(weights),
        d_model=weights.shape("class_embed.weight")[1],
        hidden_expansion=weights.rows(f"{projector}.cv1.conv.weight")
        / weights.rows(f"{projector}.cv2.conv.weight")
        / 2,
        c2f_num_blocks=weights.count(f"{projector}.m"),
        decoder_layers=weights.count("transformer.decoder.layers"),
        decoder_ffn_dim=weights.rows("transformer.decoder.layers.0.linear1.bias"),
        decoder_self_attention_heads=weights.arguments.get("sa_nheads") or 8,
        decoder_cross_attention_heads=weights.arguments.get("ca_nheads") or CROSS_HEADS,
        decoder_n_points=weights.rows("transformer.decoder.layers.0.cross_attn.attention_weights.bias")
        // (weights.arguments.get("ca_nheads") or CROSS_HEADS),
        num_queries=weights.rows("refpoint_embed.weight") // max(groups, 1),
        group_detr=groups,
    )


def _input_size(weights: OfficialWeights) -> int:
    """The run's own resolution; else the position embedding's, but for the base size, which keeps DINOv2's of 518."""
    trained = weights.arguments.get("resolution")
    if isinstance(trained, int):
        return trained
    return 560 if _patch(weights) == 14 else _patch(weights) * _grid(weights)


SIZES = {(16, 2): "nano", (16, 3): "small", (14, 3): "base"}


def _variant(config: Any) -> str:
    """By patch, decoder layers and, of the two with four, the position embedding; all are on the small DINOv2."""
    backbone = config.backbone_config
    if backbone.hidden_size != 384:
        return ""
    if (backbone.patch_size, config.decoder_layers) == (16, 4):
        return {36 * 16: "medium", 44 * 16: "large"}.get(backbone.image_size, "")
    return SIZES.get((backbone.patch_size, config.decoder_layers), "")


RF_DETR = OfficialFamily(
    rules=(*BACKBONE, *PROJECTOR, *DECODER),
    ignored=r"$^",
    marks=(f"{VIT}.embeddings.cls_token", "transformer.decoder.norm.weight", "refpoint_embed.weight"),
    config=_config,
    classes="class_embed.bias",
    input_size=_input_size,
    variant=_variant,
    preprocessing="imagenet",
)
