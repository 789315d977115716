"""The paper's detectors by name, and the way from a checkpoint file to a `FrozenDetector`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from frozen_cache.detectors.official.checkpoint import Checkpoint, read_checkpoint
from frozen_cache.detectors.official.config import FocalNetConfig, OfficialConfig, ResNetConfig, SwinConfig
from frozen_cache.detectors.official.detector import ENCODER_LAYERS, OfficialDetector
from frozen_cache.detectors.official.layout import build_model, official_layout
from frozen_cache.detectors.official.loading import fit_config, load_model
from frozen_cache.errors import UserError

SWIN_TINY = SwinConfig(embed=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7)
SWIN_LARGE = SwinConfig(embed=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=7)
SWIN_LARGE_12 = SwinConfig(embed=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12)
FOCALNET_LARGE = FocalNetConfig(embed=192, depths=(2, 2, 18, 2), focal_levels=4, focal_window=3)

HDETR_ZOO = "Model ZOO in the README of github.com/HDETR/H-Deformable-DETR (files of its release v0.1)"
DINO_ZOO = "Model Zoo in the README of github.com/IDEA-Research/DINO (Google Drive folder)"
FOCALNET_ZOO = (
    "Model Zoos in the README of github.com/FocalNet/FocalNet-DINO, or focalnet_large_fl4_o365_finetuned_on_coco.pth "
    "of huggingface.co/microsoft/focalnet-large-fl4-dino-o365-cocoft"
)


@dataclass(frozen=True, kw_only=True)
class NamedDetector:
    """A detector that `--detector NAME --weights FILE` takes."""

    title: str
    config: OfficialConfig
    """The released size; classes, queries, DINO's levels and Swin's window follow the checkpoint."""
    top_k: int
    """(query, label) pairs selected by default."""
    weights: str
    """Where its weights are published, for people."""


NAMED: dict[str, NamedDetector] = {
    "hdetr-r50": NamedDetector(
        title="H-Deformable-DETR, ResNet-50",
        config=OfficialConfig(family="hdetr", backbone=ResNetConfig(), queries=300, one_to_many=1500),
        top_k=100,
        weights=f"{HDETR_ZOO}: H-Deformable-DETR + tricks, R50",
    ),
    "hdetr-swin-t": NamedDetector(
        title="H-Deformable-DETR, Swin-T",
        config=OfficialConfig(family="hdetr", backbone=SWIN_TINY, queries=300, one_to_many=1500),
        top_k=100,
        weights=f"{HDETR_ZOO}: H-Deformable-DETR + tricks, Swin Tiny",
    ),
    "hdetr-swin-l": NamedDetector(
        title="H-Deformable-DETR, Swin-L",
        config=OfficialConfig(family="hdetr", backbone=SWIN_LARGE, queries=900, one_to_many=1500),
        top_k=100,
        weights=f"{HDETR_ZOO}: H-Deformable-DETR + tricks, Swin Large",
    ),
    "dino-r50": NamedDetector(
        title="DINO, ResNet-50, 4 or 5 levels",
        config=OfficialConfig(family="dino", backbone=ResNetConfig(), levels=4, queries=900),
        top_k=300,
        weights=f"{DINO_ZOO}: checkpoint0011_4scale.pth and others",
    ),
    "dino-swin-l": NamedDetector(
        title="DINO, Swin-L (window 12), 4 or 5 levels",
        config=OfficialConfig(family="dino", backbone=SWIN_LARGE_12, levels=5, queries=900),
        top_k=300,
        weights=f"{DINO_ZOO}: Swin-L",
    ),
    "dino-focalnet-l": NamedDetector(
        title="DINO, FocalNet-L (4 focal levels), 5 levels",
        config=OfficialConfig(family="dino", backbone=FOCALNET_LARGE, levels=5, queries=900),
        top_k=300,
        weights=FOCALNET_ZOO,
    ),
}


def load_official(
    name: str, weights: Path, encoder_layers: tuple[int, ...] | None = None, *, top_k: int | None = None
) -> OfficialDetector:
    """A frozen detector from its official checkpoint.

    Args:
        name: a key of `NAMED`.
        weights: the checkpoint, as published (`.pth`) or as safetensors; opened without running code from it.
        encoder_layers: encoder layers to return, counted from 1, ascending; the paper's (4,) where None.
        top_k: pairs to select by default; the family's own number where None.

    Raises:
        UserError: an unknown name, an unreadable file, a checkpoint that does not fit.
    """
    if name not in NAMED:
        raise UserError(f"detector {name!r} is not known; known are {', '.join(NAMED)} (see `frozen-cache detectors`)")
    named = NAMED[name]
    checkpoint = read_checkpoint(Path(weights))
    config = fit_config(named.config, checkpoint)
    model = load_model(config, checkpoint, hint=lambda: _hint(name, checkpoint))
    return OfficialDetector(
        model=model,
        name=name,
        encoder_layers=ENCODER_LAYERS if encoder_layers is None else encoder_layers,
        top_k=named.top_k if top_k is None else top_k,
    )


def _hint(name: str, checkpoint: Checkpoint) -> str:
    """`; this is no hdetr-r50, it looks like dino-r50`, where another known detector fits better."""
    found = checkpoint.weights.keys()

    def misfit(other: str) -> int:
        return len(_keys(other, fit_config(NAMED[other].config, checkpoint)) ^ found)

    best = min(NAMED, key=misfit)
    share = misfit(best) / max(len(found), 1)
    if best == name or misfit(best) == misfit(name) or share > 0.2:
        return f"; is it a checkpoint of {NAMED[name].title}?"
    return f"; this is no {name}, it looks like {best}"


@lru_cache(maxsize=16)
def _keys(name: str, config: OfficialConfig) -> frozenset[str]:
    """The official keys of a detector."""
    with torch.device("meta"):
        return frozenset(official_layout(build_model(config)))
