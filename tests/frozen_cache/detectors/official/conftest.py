"""Small detectors with the weights of the parity cases: every weight follows from its official name."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from frozen_cache.attention import MSDeformAttn
from frozen_cache.detectors.official.checkpoint import Checkpoint
from frozen_cache.detectors.official.config import FocalNetConfig, OfficialConfig, ResNetConfig, SwinConfig
from frozen_cache.detectors.official.dino import Dino
from frozen_cache.detectors.official.hdetr import HDetr
from frozen_cache.detectors.official.layout import Entry, build_model, official_layout
from frozen_cache.detectors.official.loading import load_model
from frozen_cache.detectors.official.raw import RawOutput


@dataclass(frozen=True)
class Case:
    """A detector shrunk for the test, and the salt of its weights."""

    config: OfficialConfig
    salt: str


CASES = {
    "hdetr_r50_small": Case(
        OfficialConfig(family="hdetr", backbone=ResNetConfig(), queries=20, one_to_many=10, decoder_layers=3, ffn=64),
        "",
    ),
    "hdetr_swin_small": Case(
        OfficialConfig(
            family="hdetr",
            backbone=SwinConfig(embed=24, depths=(2, 2, 2, 2), heads=(2, 2, 4, 4), window=7),
            queries=20,
            one_to_many=10,
            decoder_layers=3,
            ffn=64,
        ),
        "",
    ),
    "dino_r50_small": Case(
        OfficialConfig(family="dino", backbone=ResNetConfig(), queries=20, decoder_layers=3, ffn=64), "e"
    ),
    "dino_focal_small": Case(
        OfficialConfig(
            family="dino",
            backbone=FocalNetConfig(embed=24, depths=(1, 1, 2, 1), focal_levels=4, focal_window=3),
            levels=5,
            queries=20,
            decoder_layers=3,
            ffn=64,
        ),
        "a",
    ),
}
EMBEDDINGS = ("level_embed", "query_embed", "tgt_embed", "label_enc")


def rule(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    """The float64 weight of this official name (the rule of the parity cases)."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32((salt + name).encode())))
    x = torch.from_numpy(generator.standard_normal(shape))
    leaf = name.rpartition(".")[2]
    if leaf in ("gamma_1", "gamma_2"):
        return 0.5 + 0.1 * x
    if leaf == "running_var":
        return (1 + 0.1 * x).clamp(min=0.2)
    if x.dim() == 1:
        if leaf == "weight":
            return 1 + 0.1 * x
        return -2 + 0.5 * x if "class_embed" in name else 0.1 * x
    if leaf == "relative_position_bias_table":
        return 0.2 * x
    if any(word in name for word in EMBEDDINGS):
        return x
    gain = math.sqrt(2) if x.dim() == 4 else 1.0
    if "sampling_offsets" in name:
        gain = 0.5
    if "bbox_embed" in name and "layers.2" in name:
        gain = 0.2
    return gain * x / math.sqrt(math.prod(shape[1:]))


def make_layout(config: OfficialConfig) -> dict[str, Entry]:
    """The keys of the official checkpoint."""
    with torch.device("meta"):
        return official_layout(build_model(config))


def make_state(config: OfficialConfig, salt: str) -> dict[str, Tensor]:
    """A whole official state dict, aliased heads included, each alias the same tensor."""
    return dict(_make_state(config, salt))


@cache
def _make_state(config: OfficialConfig, salt: str) -> dict[str, Tensor]:
    layout = make_layout(config)
    grid = MSDeformAttn(dim=config.dim, levels=config.levels, heads=config.heads, points=config.points)
    shared: dict[str, Tensor] = {}
    for name in sorted(layout):  # of aliases, the first in sorted order rules
        own = layout[name].own_name
        if own not in shared:
            offsets = name.endswith("sampling_offsets.bias")
            tensor = grid.sampling_offsets.bias.detach() if offsets else rule(name, layout[name].shape, salt)
            shared[own] = tensor.to(torch.float32)
    return {name: shared[entry.own_name] for name, entry in layout.items()}


@cache
def make_model(name: str) -> HDetr | Dino:
    """The model of a case, loaded as a checkpoint is."""
    case = CASES[name]
    checkpoint = Checkpoint(path=Path(name), weights=make_state(case.config, case.salt), arguments={})
    return load_model(case.config, checkpoint)


@cache
def make_images() -> dict[str, list[Tensor]]:
    """The cases' images (3, H, W): one alone, and a pair that is padded together."""
    generator = np.random.Generator(np.random.PCG64(7))
    sizes = {"one": [(118, 149)], "two": [(96, 128), (118, 90)]}
    return {
        which: [torch.from_numpy(generator.standard_normal((3, *size))).float() for size in each]
        for which, each in sizes.items()
    }


def run_model(model: HDetr | Dino, images: list[Tensor]) -> RawOutput:
    """The outputs for images padded together at the lower right, with encoder layers 1, 4 and 6."""
    height, width = max(each.shape[1] for each in images), max(each.shape[2] for each in images)
    batch = torch.zeros(len(images), 3, height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool)
    for image, slot, mask in zip(images, batch, padding, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
        mask[: image.shape[1], : image.shape[2]] = False
    with torch.no_grad():
        return model(batch, padding if padding.any() else None, keep=(1, 4, 6))


def arrays(raw: RawOutput) -> dict[str, Tensor]:
    """The outputs by the names that the parity cases have for them."""
    return {
        "C1": raw.c1,
        "enc0": raw.pyramid.tokens,
        "enc1": raw.encoder[1],
        "enc4": raw.encoder[4],
        "enc6": raw.encoder[6],
        "pos": raw.positions,
        "valid_ratios": raw.pyramid.valid_ratios,
        "hs_last": raw.queries,
        "pred_logits": raw.logits,
        "pred_boxes": raw.boxes,
    }


@dataclass(frozen=True)
class Kit:
    """What the tests of this folder share (pytest's importlib mode knows no sibling modules)."""

    cases = CASES
    rule = staticmethod(rule)
    layout = staticmethod(make_layout)
    state = staticmethod(make_state)
    model = staticmethod(make_model)
    images = staticmethod(make_images)
    run = staticmethod(run_model)
    arrays = staticmethod(arrays)


@pytest.fixture(scope="session")
def kit() -> Kit:
    """Cases, weights, images."""
    return Kit()
