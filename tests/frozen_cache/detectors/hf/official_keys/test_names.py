"""Names and sizes: the tables against lists from the official modules; configurations from shapes alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from frozen_cache.detectors.hf.official_keys import BY_NAME
from frozen_cache.detectors.hf.official_keys.names import piece_of
from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights

NAMES = Path(__file__).parent / "names"
"""One file for an official model: how many weights, of how many numbers in all, have a name of this form."""


def resnet(kind: str, depths: list[int]) -> Any:
    sizes = [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048]
    return hf.RTDetrResNetConfig(layer_type=kind, hidden_sizes=sizes, depths=depths, out_indices=[2, 3, 4])


def rt_detr(kind: str, depths: list[int], layers: int, expansion: float, width: int = 256, second: bool = False) -> Any:
    backbone = resnet(kind, depths)
    return (hf.RTDetrV2Config if second else hf.RTDetrConfig)(
        backbone_config=backbone,
        encoder_in_channels=backbone.hidden_sizes[1:],
        encoder_hidden_dim=width,
        encoder_ffn_dim=2048 if width == 384 else 1024,
        decoder_in_channels=[width] * 3,
        decoder_layers=layers,
        hidden_expansion=expansion,
        num_labels=80,
        num_denoising=0,
        **({"decoder_n_levels": 3} if second else {}),
    )


def d_fine(
    stem: list[int],
    mid: list[int],
    out: list[int],
    blocks: list[int],
    layers: int,
    *,
    decoder: int,
    depth: int,
    expansion: float,
    width: int = 256,
    levels: int = 3,
    **more: Any,
) -> Any:
    backbone = hf.HGNetV2Config(
        stem_channels=[3, *stem],
        hidden_sizes=out,
        stage_in_channels=[stem[-1], *out[:-1]],
        stage_mid_channels=mid,
        stage_out_channels=out,
        stage_num_blocks=blocks,
        stage_numb_of_layers=[layers] * 4,
        depths=blocks,
        use_learnable_affine_block=stem[-1] < 48,
        out_indices=[2, 3, 4][-levels:],
    )
    sizes = {
        "backbone_config": backbone,
        "encoder_in_channels": out[-levels:],
        "encoder_hidden_dim": width,
        "encode_proj_layers": [levels - 1],
        "feat_strides": [8, 16, 32][-levels:],
        "decoder_in_channels": [width] * levels,
        "decoder_layers": decoder,
        "depth_mult": depth / 3,
        "hidden_expansion": expansion,
        "num_feature_levels": levels,
        "decoder_n_points": [3, 6, 3] if levels == 3 else [6, 6],
        "num_labels": 80,
        "num_denoising": 0,
    }
    return hf.DFineConfig(**sizes | more)


def deimv2(name: str, *, depth: int, channels: int, trailing: bool = False, **more: Any) -> Any:
    """On the backbone of D-FINE's size; `channels` inside the blocks of the encoder, `depth` blocks in each."""
    like = PUBLISHED[f"dfine-{name}"]()
    same = (
        *("backbone_config", "encoder_in_channels", "encoder_hidden_dim", "encode_proj_layers", "feat_strides"),
        *("encoder_ffn_dim", "decoder_in_channels", "decoder_layers", "num_feature_levels", "decoder_n_points"),
        *("d_model", "reg_scale", "num_denoising"),
    )
    sizes = {key: getattr(like, key) for key in same} | {
        "depth_mult": depth / 3,
        "hidden_expansion": (2 * channels + 1) / like.encoder_hidden_dim,
        "encoder_has_trailing_conv": trailing,
        "decoder_ffn_dim": 2048,
        "as_published": True,
        "num_labels": 80,
    }
    return hf.Deimv2Config(**sizes | more)


def deimv2_lite(width: int, channels: int, queries: int, feed_forward: int, mid: int, out: int, blocks: int) -> Any:
    """`channels` inside the blocks of the encoder; the last stage of the backbone has `mid`, `out` and `blocks`."""
    backbone = hf.HGNetV2Config(
        stem_channels=[3, 16, 16],
        hidden_sizes=[64, 256, out],
        stage_in_channels=[16, 64, 256],
        stage_mid_channels=[16, 32, mid],
        stage_out_channels=[64, 256, out],
        stage_num_blocks=[1, 1, blocks],
        stage_downsample=[False, True, True],
        stage_light_block=[False, False, True],
        stage_kernel_size=[3, 3, 3 if out == 256 else 5],
        stage_numb_of_layers=[3, 3, 3],
        depths=[1, 1, blocks],
        use_learnable_affine_block=True,
        out_indices=[3],
    )
    return hf.Deimv2Config(
        backbone_config=backbone,
        encoder_type="lite",
        encoder_in_channels=[out],
        encoder_hidden_dim=width,
        feat_strides=[16, 32],
        hidden_expansion=(2 * channels + 1) / width,
        depth_mult=2 / 3,
        decoder_in_channels=[width] * 2,
        d_model=width,
        num_feature_levels=2,
        decoder_n_points=[4, 2],
        decoder_layers=3,
        decoder_ffn_dim=feed_forward,
        num_queries=queries,
        use_gateway=False,
        share_bbox_head=True,
        num_labels=80,
        num_denoising=0,
        as_published=True,
    )


def rf_detr(
    patch: int, grid: int, windows: int, layers: int, features: tuple[int, ...] = (3, 6, 9, 12)
) -> hf.RfDetrConfig:
    backbone = hf.RfDetrDinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        patch_size=patch,
        image_size=patch * grid,
        num_windows=windows,
        out_features=[f"stage{index}" for index in features],
        num_register_tokens=0,
    )
    return hf.RfDetrConfig(backbone_config=backbone, decoder_layers=layers, decoder_n_points=2, num_labels=91)


def ultralytics(stem: list[int], mid: list[int], blocks: list[int], width: int, feed_forward: int) -> hf.RTDetrConfig:
    backbone = hf.HGNetV2Config(
        stem_channels=[3, *stem],
        hidden_sizes=[128, 512, 1024, 2048],
        stage_in_channels=[stem[-1], 128, 512, 1024],
        stage_mid_channels=mid,
        stage_out_channels=[128, 512, 1024, 2048],
        stage_num_blocks=blocks,
        stage_numb_of_layers=[6] * 4,
        depths=blocks,
        use_learnable_affine_block=False,
        out_indices=[2, 3, 4],
    )
    return hf.RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[512, 1024, 2048],
        encoder_hidden_dim=width,
        encoder_ffn_dim=feed_forward,
        decoder_in_channels=[width] * 3,
        num_labels=80,
        num_denoising=0,
    )


B0 = ([16, 16], [16, 32, 64, 128], [64, 256, 512, 1024], [1, 1, 2, 1], 3)
B2 = ([24, 32], [32, 64, 128, 256], [96, 384, 768, 1536], [1, 1, 3, 1], 4)
B4 = ([32, 48], [48, 96, 192, 384], [128, 512, 1024, 2048], [1, 1, 3, 1], 6)
B5 = ([32, 64], [64, 128, 256, 512], [128, 512, 1024, 2048], [1, 2, 5, 2], 6)
NANO = {"encoder_ffn_dim": 512, "d_model": 128, "decoder_ffn_dim": 512}

# the published sizes
PUBLISHED: dict[str, Any] = {
    "rtdetr-r18": lambda: rt_detr("basic", [2, 2, 2, 2], 3, 0.5),
    "rtdetr-r34": lambda: rt_detr("basic", [3, 4, 6, 3], 4, 0.5),
    "rtdetr-r50": lambda: rt_detr("bottleneck", [3, 4, 6, 3], 6, 1.0),
    "rtdetr-r50-m": lambda: rt_detr("bottleneck", [3, 4, 6, 3], 6, 0.5),
    "rtdetr-r101": lambda: rt_detr("bottleneck", [3, 4, 23, 3], 6, 1.0, 384),
    "rtdetrv2-r18": lambda: rt_detr("basic", [2, 2, 2, 2], 3, 0.5, second=True),
    "rtdetrv2-r50-m": lambda: rt_detr("bottleneck", [3, 4, 6, 3], 6, 0.5, second=True),
    "dfine-n": lambda: d_fine(*B0, decoder=3, depth=2, expansion=42 / 128, width=128, levels=2, **NANO),
    "dfine-s": lambda: d_fine(*B0, decoder=3, depth=1, expansion=0.5),
    "dfine-m": lambda: d_fine(*B2, decoder=4, depth=2, expansion=1.0),
    "dfine-l": lambda: d_fine(*B4, decoder=6, depth=3, expansion=1.0),
    "dfine-x": lambda: d_fine(*B5, decoder=6, depth=3, expansion=1.0, width=384, encoder_ffn_dim=2048, reg_scale=8.0),
    "deimv2-atto": lambda: deimv2_lite(64, 10, 100, 160, 64, 256, 1),
    "deimv2-femto": lambda: deimv2_lite(96, 16, 150, 256, 64, 512, 1),
    "deimv2-pico": lambda: deimv2_lite(112, 19, 200, 320, 64, 512, 2),
    "deimv2-n": lambda: deimv2("n", depth=2, channels=21, trailing=True, decoder_ffn_dim=512),
    "deimv2-s": lambda: deimv2("s", depth=1, channels=64, trailing=True),
    "deimv2-m": lambda: deimv2("m", depth=2, channels=128),
    "deimv2-l": lambda: deimv2("l", depth=3, channels=128),
    "deimv2-x": lambda: deimv2("x", depth=3, channels=192),
    "ultralytics-rtdetr-l": lambda: ultralytics([32, 48], [48, 96, 192, 384], [1, 1, 3, 1], 256, 1024),
    "ultralytics-rtdetr-x": lambda: ultralytics([32, 64], [64, 128, 256, 512], [1, 2, 5, 2], 384, 2048),
    "rfdetr-nano": lambda: rf_detr(16, 24, 2, 2),
    "rfdetr-small": lambda: rf_detr(16, 32, 2, 3),
    "rfdetr-medium": lambda: rf_detr(16, 36, 2, 4),
    "rfdetr-base": lambda: rf_detr(14, 37, 4, 3, (2, 5, 8, 11)),
    "rfdetr-large": lambda: rf_detr(16, 44, 2, 4),
}
INPUT = {"nano": 384, "small": 512, "medium": 576, "base": 560, "large": 704, "atto": 320, "femto": 416}
"""Height and width in pixels of RF-DETR's published sizes and of DEIMv2's two smallest."""


def by_form(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Name with its numbers replaced by # -> weights, numbers in them."""
    found: dict[str, tuple[int, int]] = {}
    for name, shape in shapes.items():
        form = re.sub(r"\d+", "#", name)
        count, total = found.get(form, (0, 0))
        found[form] = (count + 1, total + torch.Size(shape).numel())
    return found


@pytest.mark.parametrize("name", [path.stem for path in sorted(NAMES.glob("*.txt"))])
def test_names_and_sizes_are_those_of_the_official_modules(kit: Any, name: str) -> None:
    official = {}
    for line in (NAMES / f"{name}.txt").read_text().splitlines():
        count, total, form = line.split()
        if not re.match(BY_NAME[name].family.ignored, form):
            official[form] = (int(count), int(total))
    assert by_form(kit.expected(name, PUBLISHED[name]())) == official


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_published_size_is_read_from_the_weights(kit: Any, name: str) -> None:
    config = PUBLISHED[name]()
    shapes = kit.expected(name, config)
    weights = OfficialWeights({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, name)
    for key in weights.weights:
        if key.endswith("num_points_scale"):
            weights.weights[key] = _scales(config)  # type: ignore[index]
        if key in ("decoder.up", "decoder.reg_scale"):
            weights.weights[key] = torch.tensor([getattr(config, key[8:])])  # type: ignore[index]
        if "dec_bbox_head" in key and not getattr(config, "share_bbox_head", True):
            weights.weights[key] = torch.rand(shapes[key])  # type: ignore[index]
        elif "dec_bbox_head" in key:
            weights.weights[key] = torch.zeros(shapes[key])  # type: ignore[index]
    family = BY_NAME[name].family
    read = family.config(weights)
    assert {key: value for key, value in read.to_dict().items() if key not in UNREAD} == {
        key: value for key, value in config.to_dict().items() if key not in UNREAD
    }
    assert family.variant(read) == BY_NAME[name].variant
    assert weights.rows(family.classes) == (91 if family.preprocessing == "imagenet" else 80)
    assert family.input_size(weights) == INPUT.get(BY_NAME[name].variant, 640)
    assert family.knows(weights)
    knowing = {each.variant for each in BY_NAME.values() if each.family.knows(weights)}
    assert knowing == {each.variant for each in BY_NAME.values() if each.family is family}


UNREAD = {"id2label", "label2id"}


def _scales(config: Any) -> torch.Tensor:
    points = config.decoder_n_points
    points = points if isinstance(points, list) else [points] * config.num_feature_levels
    return torch.tensor([1 / each for each in points for _ in range(each)])


def test_stacked_projections_are_taken_apart_as_torch_stacks_them() -> None:
    official = nn.MultiheadAttention(32, 8, batch_first=True).eval()
    nn.init.normal_(official.in_proj_bias)
    own = hf.models.rt_detr.modeling_rt_detr.RTDetrSelfAttention(hf.RTDetrConfig(), 32, 8, 0.0).eval()
    weights = {f"self_attn.{name}": each for name, each in official.state_dict().items()}
    rules = BY_NAME["rtdetr-r50"].family.rules
    own.load_state_dict({name: piece_of(f"self_attn.{name}", rules).of(weights) for name in own.state_dict()})
    tokens, places = torch.randn(2, 1, 5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = official(tokens + places, tokens + places, tokens)[0]
        assert torch.allclose(own(tokens, position_embeddings=places)[0], expected, atol=1e-6)
