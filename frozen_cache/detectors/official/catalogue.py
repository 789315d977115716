"""The named detectors as a table, for `frozen-cache detectors`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from frozen_cache.detectors.official.detector import ENCODER_LAYERS, c1_spec
from frozen_cache.detectors.official.layout import build_model, parameter_count
from frozen_cache.detectors.official.named import NAMED


@dataclass(frozen=True)
class CatalogueRow:
    """One named detector at its released size."""

    name: str
    title: str
    c1_channels: int | None
    strides: tuple[int, ...]
    """Of the encoder's levels, in pixels of the resized image."""
    channels: int
    """Of the encoder's levels."""
    layer: int
    """The encoder layer kept by default, from 1."""
    layers: int
    queries: int
    labels: int
    top_k: int
    parameters: int
    weights: str


def catalogue() -> list[CatalogueRow]:
    """A row for each of `NAMED`, in its order; built without memory for weights."""
    rows = []
    for name, named in NAMED.items():
        config = named.config
        with torch.device("meta"):
            model = build_model(config)
        c1 = c1_spec(config, model.backbone.channels[0])
        rows.append(
            CatalogueRow(
                name=name,
                title=named.title,
                c1_channels=None if c1 is None else c1.channels,
                strides=config.strides,
                channels=config.dim,
                layer=ENCODER_LAYERS[0],
                layers=config.encoder_layers,
                queries=config.queries,
                labels=config.classes,
                top_k=named.top_k,
                parameters=parameter_count(model),
                weights=named.weights,
            )
        )
    return rows
