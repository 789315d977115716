"""From a path to a `Model`: a run of train-head, or an exported folder."""

from __future__ import annotations

from pathlib import Path

from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.errors import UserError
from frozen_cache.export.manifest import is_exported
from frozen_cache.export.read import load_folder
from frozen_cache.inference.model import Model, load_run


def load_model(path: Path, *, detector: str | FrozenDetector | None, weights: Path | None) -> Model:
    """The model in a run directory or an exported folder; UserError where neither is there."""
    if not path.exists():
        raise UserError(f"there is no model {path}: give a run directory of train-head, or an exported folder")
    if is_exported(path):
        if detector is not None or weights is not None:
            raise UserError(f"{path} has a detector of its own: leave --detector and --weights out")
        return load_folder(path)
    model, _ = load_run(path, detector=detector, weights=weights)
    return model
