"""`frozen-cache detectors`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from frozen_cache.cli.output import tell
from frozen_cache.terminal import folded

FAMILY_NOTES = {  # model type: strides of its encoder's levels in most published models, one of these models
    "detr": ("32", "facebook/detr-resnet-50"),
    "conditional_detr": ("32", "microsoft/conditional-detr-resnet-50"),
    "dab-detr": ("32", "IDEA-Research/dab-detr-resnet-50"),
    "deformable_detr": ("8 16 32 64", "SenseTime/deformable-detr"),
    "rt_detr": ("8 16 32", "PekingU/rtdetr_r50vd"),
    "rt_detr_v2": ("8 16 32", "PekingU/rtdetr_v2_r18vd"),
    "d_fine": ("8 16 32", "ustc-community/dfine-xlarge-coco"),
    "deimv2": ("8 16 32", ""),
    "lw_detr": ("16", "AnnaZhang/lwdetr_small_60e_coco"),
    "rf_detr": ("16", "Roboflow/rf-detr-base"),
}

NAME = 16
"""Columns of a name."""
INDENT = NAME + 4
"""Where a line goes on that a terminal has no room for."""


def detectors() -> None:
    """List the detectors that --detector takes: strides, channels, defaults, and where their weights are."""
    _tell("By name, with --weights FILE (the official checkpoint; nothing is downloaded):\n")
    for line in _named():
        _tell(line, indent=INDENT)
    _tell("\nBy name too, from checkpoints of their official repositories; classes and sizes are the file's:\n")
    for line in _by_name():
        _tell(line, indent=INDENT)
    _tell("\nAny saved transformers model of these families, by --detector hf:DIR (or hf:ORG/NAME from the hub):\n")
    for line in _families():
        _tell(line, indent=INDENT)
    _tell("\nYour own, by --detector FILE.py:FACTORY; FACTORY() returns a FrozenDetector,")
    _tell("or (transformers model, its image processor).")


def _tell(text: str, *, indent: int = 0) -> None:
    tell("\n".join(piece for line in text.split("\n") for piece in folded(line, indent=indent)))


def _named() -> list[str]:
    """Three lines for each named detector."""
    from frozen_cache.detectors.official.catalogue import catalogue

    lines = []
    for row in catalogue():
        c1 = f"C1 {row.c1_channels} ch" if row.c1_channels else "no C1 (finest level has stride 4)"
        strides = " ".join(map(str, row.strides))
        lines += [
            f"  {row.name:<{NAME}} {row.title} ({row.parameters / 1e6:.1f} M parameters)",
            f"  {'':<{NAME}} {c1}; encoder strides {strides}, {row.channels} ch, layer {row.layer} of {row.layers}; "
            f"{row.queries} queries, {row.labels} labels, top {row.top_k}",
            f"  {'':<{NAME}} weights: {row.weights}",
        ]
    return lines


def _by_name() -> list[str]:
    """Two lines for each detector that an official checkpoint is converted for."""
    from frozen_cache.detectors.hf.official_keys.named import BY_NAME

    lines = []
    for name, named in BY_NAME.items():
        lines += [f"  {name:<{NAME}} {named.title}", f"  {'':<{NAME}} weights: {named.weights}"]
    return lines


def _families() -> list[str]:
    """One line for each transformers family."""
    try:
        families: dict[str, Any] = import_module("frozen_cache.detectors.hf.families").FAMILIES
    except ModuleNotFoundError:
        return ["  (not in this installation)"]
    lines = []
    for name, family in families.items():
        strides, example = FAMILY_NOTES.get(name, ("of the model", ""))
        top_k = "as many pairs as queries" if family.top_k is None else f"top {family.top_k}"
        c1 = "C1 of the backbone" if family.backbone else "no C1"
        known = f"; {example}" if example else ""
        lines.append(f"  {name:<{NAME}} {c1}; encoder strides mostly {strides}; {top_k}{known}")
    return lines
