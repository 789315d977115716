"""From an official checkpoint to a `TransformersDetector`: family and sizes recognised, every weight accounted for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from frozen_cache.detectors.hf.activation import FIELD, apply_head_activation
from frozen_cache.detectors.hf.as_published import apply_as_published
from frozen_cache.detectors.hf.detector import TransformersDetector
from frozen_cache.detectors.hf.official_keys.named import BY_NAME, NamedWeights
from frozen_cache.detectors.hf.official_keys.names import COUNTER, Piece, layout, listed, official_shapes
from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights
from frozen_cache.detectors.official.checkpoint import Checkpoint
from frozen_cache.errors import UserError

PROFILERS = re.compile(r"(^|\.)(total_ops|total_params)$")
COCO: list[str] = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
"""COCO's names by category id, from torchvision."""
LAYER = re.compile(r"decoder\.(?:decoder\.layers|decoder\.lqe_layers|dec_score_head|dec_bbox_head)\.(\d+)\.")
"""What belongs to one layer of the decoder."""


def load_by_name(
    name: str,
    file: Path,
    *,
    encoder_layers: tuple[int, ...] | None = None,
    backbone_strides: tuple[int, ...] = (),
    backbone_scale: int = 1,
) -> TransformersDetector:
    """The detector in a checkpoint of its official repository.

    Args:
        name: a key of `BY_NAME`.
        file: the checkpoint (`.pth`, or safetensors with the same names); opened without running code from it.
        encoder_layers: see `TransformersDetector`, as the two that follow.

    Raises:
        UserError: an unreadable file, one of another family or size, weights that are missing or left over.
    """
    named = BY_NAME[name]
    checkpoint = _read(named, file)
    kept = {key: each for key, each in checkpoint.weights.items() if not _unneeded(key, named)}
    weights = OfficialWeights(checkpoint.weights, f"weights {file}", checkpoint.arguments)
    if not named.family.knows(weights):
        raise UserError(f"weights {file}: {_other(name, named, weights)}")
    config = named.family.config(weights)
    _check_variant(name, named, config, file)
    if named.activation is not None:
        config.decoder_activation_function = named.activation
        setattr(config, FIELD, named.activation)
    if named.evaluated is not None:
        config.decoder_layers = min(config.decoder_layers, named.evaluated)
        kept = {key: each for key, each in kept.items() if _layer(key) < config.decoder_layers}
    labelled = _labelled(config, weights.rows(named.family.classes), checkpoint.arguments.get("names"))
    model = _filled(labelled, kept, named, file)
    return TransformersDetector(
        model,
        _processor(named, named.family.input_size(weights)),
        name=name,
        encoder_layers=encoder_layers,
        backbone_strides=backbone_strides,
        backbone_scale=backbone_scale,
    )


def _read(named: NamedWeights, file: Path) -> Checkpoint:
    """The checkpoint; where it is ultralytics' and another was named, a line that says so."""
    try:
        return named.family.read(file)
    except UserError as error:
        if "`ultralytics." not in str(error):
            raise
        theirs = [name for name, each in BY_NAME.items() if each.family.preprocessing == "ultralytics"]
        raise UserError(f"weights {file}: this is a checkpoint of ultralytics: write --detector {theirs[0]}") from None


def _unneeded(name: str, named: NamedWeights) -> bool:
    return bool(name.endswith(COUNTER) or PROFILERS.search(name) or re.match(named.family.ignored, name))


def _layer(name: str) -> int:
    """The decoder layer that a weight belongs to; -1 for every other weight."""
    found = LAYER.match(name)
    return int(found[1]) if found else -1


def _other(name: str, named: NamedWeights, weights: OfficialWeights) -> str:
    """What a checkpoint that is not of the named family seems to be."""
    alike = [other for other in BY_NAME if BY_NAME[other].family.knows(weights)]
    if alike:
        family = BY_NAME[alike[0]].family
        size = family.variant(family.config(weights))
        fitting = [other for other in alike if BY_NAME[other].variant == size] or alike
        return f"this is no {name}, it looks like {' or '.join(fitting)}: write --detector {fitting[0]}"
    missing = [mark for mark in named.family.marks if mark not in weights]
    return (
        f"is it a checkpoint of {named.title} as its official repository writes it? It has {len(weights.weights)} "
        f"weights ({listed(weights.weights)}), but no {listed(missing) or 'fitting ones'}"
    )


def _check_variant(name: str, named: NamedWeights, config: Any, file: Path) -> None:
    """Refuse a file whose published size is another one than was named."""
    size = named.family.variant(config)
    others = [other for other, each in BY_NAME.items() if each.family is named.family and each.variant == size]
    if size != named.variant and others:
        raise UserError(f"weights {file}: these are {others[0]}'s, not {name}'s: write --detector {others[0]}")


def _labelled(config: Any, classes: int, own: Mapping[int, str] | None) -> Any:
    """The configuration with the file's own names, else COCO's: 80 labels, or 91 that are COCO's ids; else none."""
    by_id = ["N/A", *COCO[1:]]
    coco = [name for name in by_id if name != "N/A"]
    named = {len(names): names for names in (coco, by_id)}
    names = named.get(classes, [f"LABEL_{label}" for label in range(classes)])
    if own is not None and sorted(own) == list(range(classes)) and len(set(own.values())) == classes:
        names = [str(own[label]) for label in range(classes)]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: label for label, name in enumerate(names)}
    return config


def _filled(config: Any, weights: Mapping[str, Tensor], named: NamedWeights, file: Path) -> Any:
    """The model with every weight from the file, in float32.

    Raises:
        UserError: weights that are missing, left over or of another shape.
    """
    from transformers import AutoModelForObjectDetection

    model = AutoModelForObjectDetection.from_config(config)
    apply_as_published(model)
    own = model.state_dict()
    pieces = layout(own, named.family.rules)
    _check(official_shapes(own, pieces), weights, file)
    counters = {name: tensor for name, tensor in own.items() if name not in pieces}
    model.load_state_dict(counters | {name: _float32(piece, weights) for name, piece in pieces.items()}, assign=True)
    apply_head_activation(model)
    return model


def _float32(piece: Piece, weights: Mapping[str, Tensor]) -> Tensor:
    return piece.of(weights).detach().to(torch.float32, copy=True).contiguous()


def _check(expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor], file: Path) -> None:
    """UserError unless official names and shapes are exactly the expected ones."""
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    parts = []
    if missing:
        parts.append(f"lacks {len(missing)} of {len(expected)} weights ({listed(missing)})")
    if unexpected:
        parts.append(f"has {len(unexpected)} unexpected ({listed(unexpected)})")
    if parts:
        raise UserError(f"weights {file}: {' and '.join(parts)}")
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise UserError(f"weights {file}: {name} has shape {tuple(weights[name].shape)}, expected {shape}")


def _processor(named: NamedWeights, size: int) -> Any:
    """The image processor of the family; all stretch to a square."""
    from transformers import RfDetrImageProcessor, RTDetrImageProcessor

    square = {"height": size, "width": size}
    if named.family.preprocessing == "plain":
        return RTDetrImageProcessor(size=square)
    return RfDetrImageProcessor(size=square, do_normalize=named.family.preprocessing == "imagenet")
