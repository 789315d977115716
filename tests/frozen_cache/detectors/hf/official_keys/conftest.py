"""Small models of the official families: their weights follow from their official names, as do the typed-in figures."""

from __future__ import annotations

import argparse
import math
import re
import sys
import types
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from frozen_cache.detectors.hf.as_published import apply_as_published
from frozen_cache.detectors.hf.official_keys import BY_NAME
from frozen_cache.detectors.hf.official_keys.names import layout, official_shapes

KEPT = {"num_points_scale", "n_points_scale", "up", "reg_scale"}
"""Weights whose values say what the model is."""


def rule(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight of this official name, in the typed-in figures and here."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    x = torch.from_numpy(generator.standard_normal(shape)).float()
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        return (1 + 0.1 * x).clamp(min=0.2)
    if leaf == "lambda1":
        return 0.5 + 0.1 * x
    if leaf.endswith(("_token", "_embeddings")) or name.startswith(("refpoint_embed", "query_feat")):
        return x
    if len(shape) > 1:
        return (math.sqrt(2) if len(shape) == 4 else 1) * x / math.sqrt(math.prod(shape[1:]))
    return (1 if leaf in ("weight", "scale") else 0) + 0.1 * x


def _resnet(layer_type: str, width: int, depths: list[int]) -> Any:
    sizes = [width, 2 * width, 4 * width, 8 * width]
    return hf.RTDetrResNetConfig(layer_type=layer_type, hidden_sizes=sizes, depths=depths, out_indices=[2, 3, 4])


def _rt_detr(config: Callable[..., Any], backbone: Any, expansion: float, **more: Any) -> Any:
    return config(
        backbone_config=backbone,
        encoder_in_channels=backbone.hidden_sizes[1:],
        encoder_hidden_dim=32,
        encoder_ffn_dim=48,
        decoder_in_channels=[32, 32, 32],
        d_model=32,
        decoder_ffn_dim=40,
        decoder_layers=2,
        hidden_expansion=expansion,
        num_labels=3,
        num_denoising=0,
        **more,
    )


@dataclass(frozen=True)
class Small:
    """A small model: the name that it is loaded by, its configuration, and what its file says of the training run."""

    name: str
    config: Callable[[], Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    size: int = 128
    """Height and width of the input in pixels."""
    anchors: int = 336
    """Places of the encoder there."""


def _d_fine() -> Any:
    """On HGNetV2-B0."""
    backbone = hf.HGNetV2Config(
        stem_channels=[3, 16, 16],
        hidden_sizes=[64, 256, 512, 1024],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[3, 3, 3, 3],
        use_learnable_affine_block=True,
        out_indices=[2, 3, 4],
    )
    points = {"decoder_n_points": [3, 6, 3], "depth_mult": 1 / 3, "reg_scale": 8.0}
    return _rt_detr(hf.DFineConfig, backbone, 0.5, **points)


def _deimv2() -> Any:
    """The hybrid encoder; the first level has its channels already, and the decoder has fewer."""
    config = _rt_detr(
        hf.Deimv2Config,
        _d_fine().backbone_config,
        1 / 16,
        decoder_n_points=[3, 6, 3],
        depth_mult=1 / 3,
        reg_scale=8.0,
        encoder_has_trailing_conv=False,
        as_published=True,
    )
    config.encoder_hidden_dim = 256
    config.decoder_in_channels = [256] * 3
    return config


def _deimv2_lite() -> Any:
    """Atto, with two layers in its decoder and three classes."""
    backbone = hf.HGNetV2Config(
        stem_channels=[3, 16, 16],
        hidden_sizes=[64, 256, 256],
        stage_in_channels=[16, 64, 256],
        stage_mid_channels=[16, 32, 64],
        stage_out_channels=[64, 256, 256],
        stage_num_blocks=[1, 1, 1],
        stage_downsample=[False, True, True],
        stage_light_block=[False, False, True],
        stage_kernel_size=[3, 3, 3],
        stage_numb_of_layers=[3, 3, 3],
        depths=[1, 1, 1],
        use_learnable_affine_block=True,
        out_indices=[3],
    )
    return hf.Deimv2Config(
        backbone_config=backbone,
        encoder_type="lite",
        encoder_in_channels=[256],
        encoder_hidden_dim=64,
        feat_strides=[16, 32],
        hidden_expansion=21 / 64,
        depth_mult=2 / 3,
        decoder_in_channels=[64, 64],
        d_model=64,
        num_feature_levels=2,
        decoder_n_points=[4, 2],
        decoder_layers=2,
        decoder_ffn_dim=40,
        num_queries=100,
        use_gateway=False,
        share_bbox_head=True,
        num_labels=3,
        num_denoising=0,
        as_published=True,
    )


def _ultralytics() -> Any:
    """Its large layout, with few channels."""
    backbone = hf.HGNetV2Config(
        stem_channels=[3, 8, 16],
        hidden_sizes=[32, 48, 64, 96],
        stage_in_channels=[16, 32, 48, 64],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=[32, 48, 64, 96],
        stage_num_blocks=[1, 1, 3, 1],
        stage_numb_of_layers=[2, 2, 2, 2],
        depths=[1, 1, 3, 1],
        use_learnable_affine_block=False,
        out_indices=[2, 3, 4],
    )
    return _rt_detr(hf.RTDetrConfig, backbone, 1.0)


def _rf_detr() -> Any:
    """Windows of 4 x 4 patches, two of four stages."""
    backbone = hf.RfDetrDinov2Config(
        hidden_size=64,
        num_attention_heads=1,
        num_hidden_layers=4,
        patch_size=16,
        image_size=128,
        num_windows=2,
        out_features=["stage2", "stage4"],
        num_register_tokens=0,
    )
    return hf.RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_layers=2,
        decoder_ffn_dim=40,
        decoder_n_points=2,
        num_queries=20,
        group_detr=3,
        num_labels=3,
    )


R18 = [2, 2, 2, 2]
SMALL = {
    "rtdetr": Small("rtdetr-r18", lambda: _rt_detr(hf.RTDetrConfig, _resnet("basic", 64, R18), 0.5)),
    "rtdetr-bottleneck": Small(
        "rtdetr-r50", lambda: _rt_detr(hf.RTDetrConfig, _resnet("bottleneck", 256, [1, 1, 1, 1]), 1.0)
    ),
    "rtdetrv2": Small(
        "rtdetrv2-r18",
        lambda: _rt_detr(hf.RTDetrV2Config, _resnet("basic", 64, R18), 0.5, decoder_n_points=3, decoder_n_levels=3),
    ),
    "dfine": Small("dfine-s", _d_fine),
    "deim-dfine": Small("deim-dfine-s", _d_fine),
    "deimv2": Small("deimv2-s", _deimv2),
    "deimv2-lite": Small("deimv2-atto", _deimv2_lite, size=160, anchors=125),
    "ultralytics": Small(
        "ultralytics-rtdetr-l", _ultralytics, {"imgsz": 128, "names": {0: "cat", 1: "dog", 2: "person"}}
    ),
    "rfdetr": Small("rfdetr-nano", _rf_detr, {"out_feature_indexes": [2, 4], "resolution": 128}),
}


def built(config: Any) -> Any:
    """The transformers model, with what the configuration says of its own."""
    model = hf.AutoModelForObjectDetection.from_config(config)
    apply_as_published(model)
    return model


def expected(name: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Official name -> shape of the official model, by the product's own table."""
    with torch.device("meta"):
        state = built(config).state_dict()
    return official_shapes(state, layout(state, BY_NAME[name].family.rules))


@cache
def _state(case: str) -> dict[str, Tensor]:
    small = SMALL[case]
    config = small.config()
    own = built(config).state_dict()
    pieces = layout(own, BY_NAME[small.name].family.rules)
    kept = {piece.official: own[name] for name, piece in pieces.items() if name.rpartition(".")[2] in KEPT}
    shared = r"dec_bbox_head\.\d+" if getattr(config, "share_bbox_head", False) else r"$^"
    shapes = official_shapes(own, pieces)
    return {
        name: kept.get(name, rule(re.sub(shared, "dec_bbox_head.0", name), shape)) for name, shape in shapes.items()
    }


class _Module(nn.Module):
    """Takes the name of a class that this machine does not have, while a file is written."""


def save_as_ultralytics(
    file: Path,
    state: dict[str, Tensor],
    *,
    kind: str = "RTDETRDetectionModel",
    imgsz: int = 640,
    names: dict[int, str] | None = None,
    place: str = "ema",
    part: str = "Conv",
) -> Path:
    """A `.pt` as ultralytics' trainer writes it: the module itself, of classes that cannot be imported here."""
    module = types.ModuleType("ultralytics.nn.tasks")
    for name in (kind, part):
        setattr(module, name, type(name, (_Module,), {"__module__": module.__name__, "__qualname__": name}))
    root = getattr(module, kind)()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        parent = root
        for number, child in enumerate(path):
            norm = number == len(path) - 1 and f"{'.'.join(path)}.running_var" in state
            if child not in parent._modules:
                parent.add_module(child, nn.BatchNorm2d(1, eps=1e-3) if norm else getattr(module, part)())
            parent = parent._modules[child]  # type: ignore[assignment]
        if leaf.startswith("running_") or not tensor.is_floating_point():
            parent._buffers[leaf] = tensor
        else:
            parent._parameters[leaf] = nn.Parameter(tensor)
    root.names = names
    names_of_modules = {name: types.ModuleType(name) for name in ("ultralytics", "ultralytics.nn")}
    with mock.patch.dict(sys.modules, {**names_of_modules, module.__name__: module}):
        content = {"epoch": -1, "model": None, "ema": None, "train_args": {"imgsz": imgsz}}
        torch.save(content | {place: root}, file)
    return file


@dataclass(frozen=True)
class Kit:
    """What the tests of this folder share."""

    small = SMALL
    expected = staticmethod(expected)
    save_as_ultralytics = staticmethod(save_as_ultralytics)

    def state(self, case: str) -> dict[str, Tensor]:
        """A whole official state dict of a small model."""
        return dict(_state(case))

    def save(
        self, folder: Path, state: dict[str, Any], place: str = "ema.module", arguments: dict[str, Any] | None = None
    ) -> Path:
        """A checkpoint file with the state at a dotted place, and the arguments of its run."""
        if any(name.startswith("model.0.stem1.") for name in state):
            return save_as_ultralytics(folder / "best.pt", state, **arguments or {})
        content: Any = state
        for key in reversed(place.split(".") if place else []):
            content = {key: content}
        if arguments:
            content["args"] = argparse.Namespace(**arguments)
        torch.save(content, folder / "best.pth")
        return folder / "best.pth"


@pytest.fixture(scope="session")
def kit() -> Kit:
    """States and files."""
    return Kit()
