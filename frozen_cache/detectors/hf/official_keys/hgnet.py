"""HGNetV2, the backbone of D-FINE, DEIM and of ultralytics' RT-DETR: its sizes from the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights


@dataclass(frozen=True, kw_only=True)
class HGNetNames:
    """How a repository calls the parts of a block."""

    layers: str = "layers"
    excitation: str = "aggregation.1"


def hgnet_config(
    weights: OfficialWeights,
    *,
    levels: int,
    stem: str = "backbone.stem",
    stages: list[list[str]] | None = None,
    downsample: list[str] | None = None,
    names: HGNetNames | None = None,
) -> Any:
    """The configuration; kernels, light blocks and channels are those of each stage's first block.

    Args:
        weights: of the whole detector.
        levels: how many of the last stages are handed on.
        stem: the prefix of the stem.
        stages: the prefixes of each stage's blocks.
        downsample: the prefix of each stage's convolution of stride 2, which the first stage may lack.
        names: of the parts of a block.
    """
    from transformers import HGNetV2Config

    names = names or HGNetNames()
    if stages is None:
        prefixes = [f"backbone.stages.{index}" for index in range(weights.count("backbone.stages"))]
        stages = [[f"{each}.blocks.{k}" for k in range(weights.count(f"{each}.blocks"))] for each in prefixes]
        downsample = [f"{each}.downsample" for each in prefixes]
    first = [blocks[0] for blocks in stages]
    light = [f"{block}.{names.layers}.0.conv1.conv.weight" in weights for block in first]
    convolutions = [
        weights.shape(f"{block}.{names.layers}.0.{'conv2.' if light[index] else ''}conv.weight")
        for index, block in enumerate(first)
    ]
    out = [weights.rows(f"{block}.{names.excitation}.conv.weight") for block in first]
    channels = [weights.rows(f"{stem}.{part}.conv.weight") for part in ("stem1", "stem4")]
    depths = [len(blocks) for blocks in stages]
    config = HGNetV2Config(
        stem_channels=[3, *channels],
        hidden_sizes=out,
        stage_in_channels=[channels[-1], *out[:-1]],
        stage_mid_channels=[shape[0] for shape in convolutions],
        stage_out_channels=out,
        stage_num_blocks=depths,
        stage_downsample=[f"{name}.conv.weight" in weights for name in downsample or []],
        stage_light_block=light,
        stage_kernel_size=[shape[-1] for shape in convolutions],
        stage_numb_of_layers=[weights.count(f"{block}.{names.layers}") for block in first],
        depths=depths,
        use_learnable_affine_block=f"{stem}.stem1.lab.scale" in weights,
    )
    config.out_indices = [index + 1 for index in range(len(stages))][-levels:]
    return config
