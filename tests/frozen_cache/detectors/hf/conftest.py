"""Small random models of every family, saved with `save_pretrained`: built from their configs, nothing downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

CLASSES = {0: "cat", 1: "dog", 2: "traffic light", 3: "tv", 4: "person"}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
SQUARE = {"height": 128, "width": 128}
EDGES = {"shortest_edge": 96, "longest_edge": 130}


@dataclass(frozen=True)
class Small:
    """A family's small model: how it is made, and the strides that its spec must tell."""

    make: Callable[[], tuple[Any, Any]]
    c1: int | None
    encoder: tuple[int, ...]
    layers: int = 1


def _resnet(**changes: Any) -> Any:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return hf.ResNetConfig(**sizes, out_features=["stage4"], **changes)


def _hgnet(stages: list[str]) -> Any:
    return hf.HGNetV2Config(
        embedding_size=8,
        stem_channels=[3, 8, 8],
        hidden_sizes=[12, 16, 20, 24],
        stage_in_channels=[8, 12, 16, 20],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[12, 16, 20, 24],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        depths=[1, 1, 1, 1],
        out_features=stages,
    )


TRANSFORMER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 12,
}
HYBRID = TRANSFORMER | {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_hidden_dim": 16,
    "decoder_in_channels": [16, 16, 16],
    "encoder_in_channels": [12, 16, 20],
    "hidden_expansion": 0.5,
    "num_denoising": 0,
}
FINE = HYBRID | {"encoder_in_channels": [16, 20, 24], "decoder_n_points": [2, 2, 2], "depth_mult": 0.34}
LABELS = {"id2label": CLASSES, "label2id": {name: label for label, name in CLASSES.items()}}


def _detr(config: type, model: type, processor: type, **changes: Any) -> tuple[Any, Any]:
    fields = {"use_timm_backbone": False, "backbone_config": _resnet()} | TRANSFORMER | changes
    return model(config(**fields, **LABELS)), processor(size=EDGES)


def detr() -> tuple[Any, Any]:
    return _detr(hf.DetrConfig, hf.DetrForObjectDetection, hf.DetrImageProcessor)


def detr_timm() -> tuple[Any, Any]:
    backbone = hf.TimmBackboneConfig(backbone="test_resnet", out_indices=[1, 2, 3, 4], use_pretrained_backbone=False)
    return _detr(hf.DetrConfig, hf.DetrForObjectDetection, hf.DetrImageProcessorPil, backbone_config=backbone)


def detr_dilated() -> tuple[Any, Any]:
    backbone = hf.TimmBackboneConfig(backbone="test_resnet", out_indices=[1, 2, 3, 4], output_stride=16)
    return _detr(hf.DetrConfig, hf.DetrForObjectDetection, hf.DetrImageProcessor, backbone_config=backbone)


def conditional_detr() -> tuple[Any, Any]:
    return _detr(
        hf.ConditionalDetrConfig, hf.ConditionalDetrForObjectDetection, hf.ConditionalDetrImageProcessor, num_queries=30
    )


def dab_detr() -> tuple[Any, Any]:
    sizes = {key: value for key, value in TRANSFORMER.items() if key != "d_model"}
    config = hf.DabDetrConfig(use_timm_backbone=False, backbone_config=_resnet(), hidden_size=16, **sizes, **LABELS)
    return hf.DabDetrForObjectDetection(config), hf.ConditionalDetrImageProcessor(size=EDGES)


def _deformable(**changes: Any) -> tuple[Any, Any]:
    return _detr(
        hf.DeformableDetrConfig,
        hf.DeformableDetrForObjectDetection,
        hf.DeformableDetrImageProcessor,
        backbone_config=hf.ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 12, 16, 20],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=STAGES[1:],
        ),
        num_queries=30,
        encoder_layers=3,
        **changes,
    )


def deformable_detr() -> tuple[Any, Any]:
    return _deformable()


def deformable_detr_two_stage() -> tuple[Any, Any]:
    return _deformable(with_box_refine=True, two_stage=True, two_stage_num_proposals=30)


def deformable_detr_swin() -> tuple[Any, Any]:
    backbone = hf.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2], window_size=4, out_features=STAGES[1:]
    )
    fields = {"use_timm_backbone": False, "backbone_config": backbone} | TRANSFORMER | {"num_queries": 30}
    config = hf.DeformableDetrConfig(**fields, **LABELS)
    return hf.DeformableDetrForObjectDetection(config), hf.DeformableDetrImageProcessorPil(size=EDGES)


def rt_detr() -> tuple[Any, Any]:
    backbone = hf.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic", out_features=STAGES[1:]
    )
    config = hf.RTDetrConfig(backbone_config=backbone, **HYBRID, **LABELS)
    return hf.RTDetrForObjectDetection(config), hf.RTDetrImageProcessor(size=SQUARE)


def rt_detr_v2() -> tuple[Any, Any]:
    backbone = hf.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic", out_features=STAGES[1:]
    )
    config = hf.RTDetrV2Config(backbone_config=backbone, **HYBRID, **LABELS)
    return hf.RTDetrV2ForObjectDetection(config), hf.RTDetrImageProcessorPil(size=SQUARE)


def d_fine() -> tuple[Any, Any]:
    config = hf.DFineConfig(backbone_config=_hgnet(STAGES[1:]), **FINE, **LABELS)
    return hf.DFineForObjectDetection(config), hf.RTDetrImageProcessor(size=SQUARE, do_normalize=False)


def deimv2() -> tuple[Any, Any]:
    config = hf.Deimv2Config(backbone_config=_hgnet(STAGES[1:]), **FINE, **LABELS)
    return hf.Deimv2ForObjectDetection(config), hf.RTDetrImageProcessor(size=SQUARE)


def deimv2_lite() -> tuple[Any, Any]:
    fields = FINE | {
        "encoder_type": "lite",
        "encoder_in_channels": [20],
        "decoder_in_channels": [16, 16],
        "num_feature_levels": 2,
        "decoder_n_points": [2, 2],
        "feat_strides": [16, 32],
        "share_bbox_head": True,
        "use_gateway": False,
    }
    config = hf.Deimv2Config(backbone_config=_hgnet(["stage3"]), **fields, **LABELS)
    return hf.Deimv2ForObjectDetection(config), hf.RTDetrImageProcessor(size=SQUARE)


def deimv2_dinov3() -> tuple[Any, Any]:
    backbone = hf.DINOv3ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        patch_size=16,
        out_indices=[1, 2, 3],
        apply_layernorm=False,
        reshape_hidden_states=True,
    )
    fields = FINE | {"encoder_in_channels": [16, 16, 16]}
    config = hf.Deimv2Config(backbone_config=backbone, **fields, **LABELS)
    return hf.Deimv2ForObjectDetection(config), hf.RTDetrImageProcessor(size=SQUARE)


def lw_detr() -> tuple[Any, Any]:
    backbone = {
        "model_type": "lw_detr_vit",
        "image_size": 128,
        "pretrain_image_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "window_block_indices": [0],
        "num_windows": 4,
        "out_indices": [1, 2, 3],
    }
    config = hf.LwDetrConfig(
        backbone_config=backbone,
        projector_scale_factors=[2.0, 0.5],
        d_model=16,
        decoder_layers=2,
        decoder_ffn_dim=24,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=30,
        group_detr=2,
        **LABELS,
    )
    return hf.LwDetrForObjectDetection(config), hf.DeformableDetrImageProcessor(size=SQUARE)


def rf_detr() -> tuple[Any, Any]:
    backbone = hf.RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=112,
        patch_size=14,
        num_windows=2,
        out_indices=[1, 3],
    )
    config = hf.RfDetrConfig(
        backbone_config=backbone,
        d_model=16,
        decoder_layers=2,
        decoder_ffn_dim=24,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=30,
        group_detr=2,
        intermediate_size=24,
        **LABELS,
    )
    return hf.RfDetrForObjectDetection(config), hf.RfDetrImageProcessor(size={"height": 112, "width": 112})


SMALL: dict[str, Small] = {
    "detr": Small(detr, c1=4, encoder=(32,), layers=2),
    "detr_timm": Small(detr_timm, c1=4, encoder=(32,), layers=2),
    "detr_dilated": Small(detr_dilated, c1=4, encoder=(16,), layers=2),
    "conditional_detr": Small(conditional_detr, c1=4, encoder=(32,), layers=2),
    "dab_detr": Small(dab_detr, c1=4, encoder=(32,), layers=2),
    "deformable_detr": Small(deformable_detr, c1=4, encoder=(8, 16, 32, 64), layers=3),
    "deformable_detr_two_stage": Small(deformable_detr_two_stage, c1=4, encoder=(8, 16, 32, 64), layers=3),
    "deformable_detr_swin": Small(deformable_detr_swin, c1=4, encoder=(8, 16, 32, 64), layers=2),
    "rt_detr": Small(rt_detr, c1=4, encoder=(8, 16, 32)),
    "rt_detr_v2": Small(rt_detr_v2, c1=4, encoder=(8, 16, 32)),
    "d_fine": Small(d_fine, c1=4, encoder=(8, 16, 32)),
    "deimv2": Small(deimv2, c1=4, encoder=(8, 16, 32)),
    "deimv2_lite": Small(deimv2_lite, c1=4, encoder=(16, 32)),
    "deimv2_dinov3": Small(deimv2_dinov3, c1=None, encoder=(8, 16, 32)),
    "lw_detr": Small(lw_detr, c1=None, encoder=(8, 32)),
    "rf_detr": Small(rf_detr, c1=None, encoder=(14,)),
}


@torch.no_grad()
def shaken(model: Any) -> Any:
    """The model with noise on every parameter and statistic, so that no two scores or boxes are equal."""
    generator = torch.Generator().manual_seed(0)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and "reg_scale" not in name and not name.endswith(".up"):
            value += 0.1 * torch.rand(value.shape, generator=generator) * (0.5 if "running" in name else 1)
            if "running" not in name:
                value -= 0.05
    return model.eval()


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name in `SMALL` -> a folder with the saved model and its processor."""

    @cache
    def save(name: str) -> Path:
        folder = tmp_path_factory.mktemp("hf") / name
        torch.manual_seed(0)
        model, processor = SMALL[name].make()
        shaken(model).save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def small_detector(small_folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """Name in `SMALL` -> the detector loaded from its folder, made once."""
    from frozen_cache.detectors.load import load_detector

    return cache(lambda name: load_detector(f"hf:{small_folder(name)}"))


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> tuple[str, Small]:
    """Each family in turn: its name and what is expected of it."""
    return request.param, SMALL[request.param]
