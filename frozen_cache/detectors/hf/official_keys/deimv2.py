"""DEIMv2 of github.com/Intellindust-AI-Lab/DEIMv2, on HGNetV2."""

from __future__ import annotations

from typing import Any

import torch

from frozen_cache.detectors.hf import as_published
from frozen_cache.detectors.hf.official_keys.d_fine import (
    GATED,
    HGNET,
    REFINEMENT,
    TWICE,
    refinement_sizes,
    size_by_backbone,
)
from frozen_cache.detectors.hf.official_keys.family import OfficialFamily
from frozen_cache.detectors.hf.official_keys.hgnet import hgnet_config
from frozen_cache.detectors.hf.official_keys.names import Rules
from frozen_cache.detectors.hf.official_keys.rt_detr import DECODER, ENCODER, IGNORED, STRIDES
from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights

LITE = "encoder.fpn_block.cv1.conv.weight"
"""The encoder of the three smallest sizes has it: one level of the backbone, a second one made of it by pooling."""

INTO_ENCODER: Rules = (
    (r"^model\.conv_encoder\.encoder_input_proj\.", "encoder.input_proj."),
    (r"^model\.conv_encoder\.model\.", "model.backbone.model."),
)
FUSION: Rules = (
    (r"^(encoder\.(?:fpn|pan)_blocks?(?:\.\d+)?)\.conv1\.", r"\1.cv1."),
    (r"^(encoder\.(?:fpn|pan)_blocks?(?:\.\d+)?)\.conv2\.", r"\1.cv4."),
    (r"^(encoder\.(?:fpn|pan)_.*)\.csp_rep1\.conv2\.", r"\1.cv2.1."),
    (r"^(encoder\.(?:fpn|pan)_.*)\.csp_rep2\.conv2\.", r"\1.cv3.1."),
    (r"^(encoder\.(?:fpn|pan)_.*)\.csp_rep1\.", r"\1.cv2.0."),
    (r"^(encoder\.(?:fpn|pan)_.*)\.csp_rep2\.", r"\1.cv3.0."),
    (r"^(encoder\.downsample_convs\.\d+)\.conv([12])\.", r"\1.0.cv\2."),
    (r"^encoder\.down_conv([12])\.conv\.", r"encoder.down_sample\1.1."),
    (r"^encoder\.down_conv([12])\.norm\.", r"encoder.down_sample\1.2."),
    (r"^encoder\.bi_fusion_conv\.", "encoder.bi_fusion.cv."),
)
LAYERS: Rules = (
    (r"^model\.decoder_input_proj\.", "decoder.input_proj."),
    (r"^(decoder\.decoder\.layers\.\d+)\.mlp\.down_proj\.", r"\1.swish_ffn.w3."),
    (r"^model\.(decoder)\.(layers\.\d+\.swish_ffn\.)", r"\1.decoder.\2"),
    (r"^(decoder\.decoder\.layers\.\d+\.(?:norm[123]|gateway\.norm))\.weight$", r"\1.scale"),
)


def _lite(weights: OfficialWeights) -> dict[str, Any]:
    """The fields of the small encoder, which has two levels."""
    hidden, channels = weights.shape("encoder.input_proj.0.conv.weight")[:2]
    return {
        "encoder_type": "lite",
        "encoder_hidden_dim": hidden,
        "encoder_in_channels": [channels],
        "feat_strides": [16, 32],
        "decoder_in_channels": [hidden] * 2,
    }


def _hybrid(weights: OfficialWeights) -> dict[str, Any]:
    """The fields of the large encoder; a level without a projection has its channels already."""
    levels = weights.count("encoder.lateral_convs") + 1
    hidden = weights.rows("encoder.lateral_convs.0.conv.weight")
    names = [f"encoder.input_proj.{level}.conv.weight" for level in range(levels)]
    return {
        "encoder_hidden_dim": hidden,
        "encoder_in_channels": [weights.shape(name)[1] if name in weights else hidden for name in names],
        "encoder_layers": weights.count("encoder.encoder.0.layers"),
        "encoder_ffn_dim": weights.rows("encoder.encoder.0.layers.0.linear1.bias"),
        "encode_proj_layers": [levels - 1],
        "feat_strides": list(STRIDES[-levels:]),
        "decoder_in_channels": [hidden] * levels,
    }


def _config(weights: OfficialWeights) -> Any:
    from transformers import Deimv2Config

    small = LITE in weights
    encoder = _lite(weights) if small else _hybrid(weights)
    block = "encoder.fpn_block" if small else "encoder.fpn_blocks.0"
    hidden = encoder["encoder_hidden_dim"]
    sizes: dict[str, Any] = encoder | refinement_sizes(weights)
    sizes["d_model"] = weights.shape("decoder.enc_score_head.weight")[1]
    sizes["backbone_config"] = hgnet_config(weights, levels=len(encoder["encoder_in_channels"]))
    # one more than twice the channels: transformers halves the product and rounds down
    sizes["hidden_expansion"] = (weights.rows(f"{block}.cv2.0.conv1.conv.weight") + 1) / hidden
    sizes["depth_mult"] = weights.count(f"{block}.cv2.0.bottlenecks") / 3
    sizes["encoder_has_trailing_conv"] = f"{block}.cv2.1.conv.weight" in weights
    sizes["decoder_layers"] = weights.count("decoder.decoder.layers")
    sizes["decoder_ffn_dim"] = weights.rows(GATED)
    sizes["use_gateway"] = "decoder.decoder.layers.0.gateway.gate.weight" in weights
    sizes["share_bbox_head"] = _shared(weights, "decoder.dec_bbox_head", sizes["decoder_layers"])
    sizes["num_queries"] = QUERIES.get(hidden, 300) if small else 300
    config = Deimv2Config(**sizes, num_denoising=0)
    setattr(config, as_published.FIELD, True)
    return config


def _shared(weights: OfficialWeights, prefix: str, layers: int) -> bool:
    """True where every layer's head holds the same numbers."""
    first = {name: each for name, each in weights.weights.items() if name.startswith(f"{prefix}.0.")}
    others = [name.replace(f"{prefix}.0.", f"{prefix}.{layer}.", 1) for layer in range(1, layers) for name in first]
    pairs = zip(list(first.values()) * (layers - 1), (weights.weights.get(name) for name in others), strict=True)
    return layers > 1 and all(other is not None and torch.equal(each, other) for each, other in pairs)


LITE_SIZES = {64: "atto", 96: "femto", 112: "pico"}
"""By the channels of the encoder, as the two that follow."""
QUERIES = {64: 100, 96: 150, 112: 200}
"""The weights do not tell them: the published ones; 300 in every other size."""
INPUT = {64: 320, 96: 416}
"""Where a file has no anchors."""


def _variant(config: Any) -> str:
    if config.encoder_type == "lite":
        return LITE_SIZES.get(config.encoder_hidden_dim, "")
    return size_by_backbone(config)


def _input_size(weights: OfficialWeights) -> int:
    if LITE in weights:
        return weights.input_size((16, 32), INPUT.get(weights.rows(LITE) // 2, 640))
    return weights.input_size(STRIDES[-1 - weights.count("encoder.lateral_convs") :])


DEIMV2 = OfficialFamily(
    rules=(*INTO_ENCODER, *HGNET, *ENCODER, *FUSION, *DECODER, *REFINEMENT, *LAYERS),
    ignored=IGNORED + TWICE,
    marks=("backbone.stem.stem1.conv.weight", GATED, "decoder.reg_scale"),
    config=_config,
    classes="decoder.dec_score_head.0.bias",
    input_size=_input_size,
    variant=_variant,
)
