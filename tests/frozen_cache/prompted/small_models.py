"""Segment Anything models of transformers, small and random, saved as `save_pretrained` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

PROMPTS = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
DECODER |= {"iou_head_hidden_dim": 16, "iou_head_depth": 2}
VIT = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64}
VIT |= {"patch_size": 16, "mlp_dim": 32, "global_attn_indexes": [1], "window_size": 2, "num_pos_feats": 16}
HIERA = {"hidden_size": 8, "num_attention_heads": 1, "image_size": [64, 64], "blocks_per_stage": [1, 1, 2, 1]}
HIERA |= {"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2]}
HIERA |= {"window_size_per_stage": [4, 4, 4, 4], "global_attention_blocks": [3]}
HIERA |= {"window_positional_embedding_background_size": [2, 2]}
NECK = {"backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
NECK |= {"fpn_hidden_size": 32, "num_feature_levels": 3}
MEMORY = {"image_size": 64, "memory_attention_hidden_size": 32, "memory_attention_num_layers": 1}
MEMORY |= {"memory_attention_feed_forward_hidden_size": 32, "memory_encoder_hidden_size": 32}
MEMORY |= {"memory_encoder_output_channels": 8, "mask_downsampler_embed_dim": 32, "memory_fuser_embed_dim": 32}
MEMORY |= {"memory_fuser_intermediate_dim": 32, "memory_attention_num_attention_heads": 1}
MEMORY |= {"memory_attention_rope_feat_sizes": [4, 4]}


def sam(folder: Path, *, family: str = "Sam") -> Path:
    """SAM, or with the family SamHQ its finer kind."""
    extra: dict[str, Any] = {"vit_dim": 32} if family == "SamHQ" else {}
    config = getattr(transformers, f"{family}Config")(
        vision_config=VIT,
        prompt_encoder_config=PROMPTS | {"image_embedding_size": 4},
        mask_decoder_config=DECODER | extra,
    )
    return _saved(folder, getattr(transformers, f"{family}Model"), config, _sam_processor(family))


def sam2(folder: Path) -> Path:
    """SAM 2 for images."""
    return _saved(folder, transformers.Sam2Model, transformers.Sam2Config(**_sam2()), _sam2_processor())


def sam2_video(folder: Path) -> Path:
    """SAM 2 as it is published: the model of images and videos."""
    config = transformers.Sam2VideoConfig(**_sam2(), **MEMORY)
    return _saved(folder, transformers.Sam2VideoModel, config, _sam2_processor())


def _saved(folder: Path, model: Any, config: Any, processor: Any) -> Path:
    torch.manual_seed(0)
    made = model(config)
    for parameter in made.parameters():  # as they begin, masks hardly depend on the picture
        torch.nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _sam_processor(family: str) -> Any:
    sizes = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    sizes |= {"mask_size": {"longest_edge": 16}, "mask_pad_size": {"height": 16, "width": 16}}
    return getattr(transformers, f"{family}Processor")(transformers.SamImageProcessor(**sizes))


def _sam2() -> dict[str, Any]:
    backbone = transformers.Sam2HieraDetConfig(**HIERA).to_dict()
    vision = NECK | {"backbone_config": backbone}
    return {"vision_config": vision, "prompt_encoder_config": PROMPTS, "mask_decoder_config": DECODER}


def _sam2_processor() -> Any:
    size = {"height": 64, "width": 64}
    return transformers.Sam2Processor(transformers.Sam2ImageProcessor(size=size, mask_size={"height": 16, "width": 16}))
