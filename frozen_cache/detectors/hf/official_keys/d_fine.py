"""D-FINE of github.com/Peterande/D-FINE, on HGNetV2."""

from __future__ import annotations

from typing import Any

from frozen_cache.detectors.hf.official_keys.family import OfficialFamily
from frozen_cache.detectors.hf.official_keys.hgnet import hgnet_config
from frozen_cache.detectors.hf.official_keys.names import Rules
from frozen_cache.detectors.hf.official_keys.rt_detr import (
    DECODER,
    ENCODER,
    IGNORED,
    NAMED_PARTS,
    STRIDES,
    decoder_sizes,
    encoder_sizes,
)
from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights

TWICE = r"|decoder\.decoder\.(up|reg_scale)$"
"""The decoder inside the decoder holds the same two numbers once more."""
GATED = "decoder.decoder.layers.0.swish_ffn.w12.weight"
"""DEIMv2's decoder has it, D-FINE's has not."""

HGNET: Rules = (
    (r"^model\.backbone\.model\.embedder\.", "backbone.stem."),
    (r"^model\.backbone\.model\.encoder\.", "backbone."),
    (r"^(backbone\..*)\.convolution\.", r"\1.conv."),
    (r"^(backbone\..*)\.normalization\.", r"\1.bn."),
)
FUSION: Rules = (
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.conv([14])\.", r"\1.cv\2."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.conv([23])\.", r"\1.cv\2.1."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.csp_rep1\.", r"\1.cv2.0."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.csp_rep2\.", r"\1.cv3.0."),
    (r"^(encoder\.downsample_convs\.\d+)\.conv([12])\.", r"\1.0.cv\2."),
)
REFINEMENT: Rules = (
    (r"^model\.decoder\.(up|reg_scale)$", r"decoder.\1"),
    (r"^model\.decoder\.lqe_layers\.", "decoder.decoder.lqe_layers."),
    (r"\.mlp\.layers\.0\.", ".linear1."),
    (r"\.mlp\.layers\.1\.", ".linear2."),
)


def refinement_sizes(weights: OfficialWeights) -> dict[str, Any]:
    """The fields of a decoder that refines distributions: sampled points, bins, quality estimator."""
    points = weights.per_level("decoder.decoder.layers.0.cross_attn.num_points_scale")
    samples = weights.rows("decoder.decoder.layers.0.cross_attn.attention_weights.bias")
    return {
        "num_feature_levels": len(points),
        "decoder_n_points": points,
        "decoder_attention_heads": samples // max(sum(points), 1),
        "max_num_bins": weights.rows("decoder.dec_bbox_head.0.layers.2.bias") // 4 - 1,
        "lqe_hidden_dim": weights.rows("decoder.decoder.lqe_layers.0.reg_conf.layers.0.bias"),
        "lqe_layers": weights.count("decoder.decoder.lqe_layers.0.reg_conf.layers"),
        "top_prob_values": weights.shape("decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight")[1] // 4 - 1,
        "reg_scale": float(weights.weights["decoder.reg_scale"]),
        "up": float(weights.weights["decoder.up"]),
    }


def _config(weights: OfficialWeights) -> Any:
    from transformers import DFineConfig

    encoder = encoder_sizes(weights, "encoder.input_proj.{}.conv.weight")
    inner = weights.rows("encoder.fpn_blocks.0.cv4.conv.weight"), weights.rows("encoder.fpn_blocks.0.cv2.1.conv.weight")
    sizes: dict[str, Any] = encoder | decoder_sizes(weights) | refinement_sizes(weights)
    sizes["backbone_config"] = hgnet_config(weights, levels=len(encoder["encoder_in_channels"]))
    sizes["hidden_expansion"] = 2 * inner[1] / inner[0]
    sizes["depth_mult"] = weights.count("encoder.fpn_blocks.0.cv2.0.bottlenecks") / 3
    return DFineConfig(**sizes)


SIZES = {((3, 16, 16), 2): "n", ((3, 16, 16), 3): "s", ((3, 24, 32), 3): "m", ((3, 32, 48), 3): "l"}
SIZES |= {((3, 32, 64), 3): "x"}


def size_by_backbone(config: Any) -> str:
    """By the channels of the stem and the number of levels."""
    return SIZES.get((tuple(config.backbone_config.stem_channels), config.num_feature_levels), "")


D_FINE = OfficialFamily(
    rules=(*HGNET, *ENCODER, *FUSION, *DECODER, *NAMED_PARTS, *REFINEMENT),
    ignored=IGNORED + TWICE,
    marks=("backbone.stem.stem1.conv.weight", "decoder.pre_bbox_head.layers.0.weight", "decoder.reg_scale"),
    foreign=(GATED,),
    config=_config,
    classes="decoder.dec_score_head.0.bias",
    input_size=lambda weights: weights.input_size(STRIDES[-weights.count("encoder.input_proj") :]),
    variant=size_by_backbone,
)
