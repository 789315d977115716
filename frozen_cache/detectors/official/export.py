"""An official detector's weights as one safetensors file, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from frozen_cache.detectors.official.checkpoint import read_checkpoint
from frozen_cache.detectors.official.detector import OfficialDetector
from frozen_cache.detectors.official.layout import official_layout
from frozen_cache.detectors.official.loading import fit_config, load_model
from frozen_cache.detectors.official.named import NAMED
from frozen_cache.errors import UserError


def save_weights(detector: OfficialDetector, file: Path) -> None:
    """Write the weights under their official names, each once."""
    own = detector.model.state_dict()
    named: dict[str, torch.Tensor] = {}
    for name, entry in official_layout(detector.model).items():
        if entry.own_name in own:
            named[name] = own.pop(entry.own_name).detach().cpu().reshape(entry.shape).clone()
    save_file(named, file)


def load_exported(
    name: str, file: Path, *, queries: int | None, encoder_layers: tuple[int, ...], top_k: int
) -> OfficialDetector:
    """The detector that `save_weights` wrote.

    Args:
        name: in the catalogue.
        queries: that inference uses, where they are fewer than the file has.

    Raises:
        UserError: a name that is not in the catalogue, weights that do not fit it.
    """
    if name not in NAMED:
        raise UserError(f"{file}: no detector is named {name!r}; this version knows {', '.join(NAMED)}")
    checkpoint = read_checkpoint(file)
    checkpoint.arguments["num_queries_one2one"] = queries
    model = load_model(fit_config(NAMED[name].config, checkpoint), checkpoint)
    return OfficialDetector(model=model, name=name, encoder_layers=encoder_layers, top_k=top_k)
