"""From a path to a `Model`: a run of train-head, or an exported folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frozen_cache.cache.attributes import detector_fingerprint
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.errors import UserError
from frozen_cache.export.manifest import exported_folder
from frozen_cache.export.read import load_folder
from frozen_cache.inference.model import Model, load_run


def load_model(path: Path, *, detector: str | FrozenDetector | None, weights: Path | None) -> Model:
    """The model in a run directory or an exported folder; UserError where neither is there."""
    if not path.exists():
        raise UserError(f"there is no model {path}: give a run directory of train-head, or an exported folder")
    if (folder := exported_folder(path)) is not None:
        if detector is not None or weights is not None:
            raise UserError(f"{path} has a detector of its own: leave --detector and --weights out")
        return load_folder(folder)
    model, _ = load_run(path, detector=detector, weights=weights)
    return model


def load_models(paths: Sequence[Path], *, detector: str | FrozenDetector | None, weights: Path | None) -> Model:
    """The model of the first path, with the heads of all others beside its own.

    Raises:
        UserError: as `load_model`; heads of other detectors, encoder layers or categories than the first one's.
    """
    if not paths:
        raise UserError("no model is given: give a run directory of train-head, or an exported folder")
    first = load_model(paths[0], detector=detector, weights=weights)
    known = _facts(first)
    heads = []
    for path in paths[1:]:
        model = load_model(path, detector=first.detector if exported_folder(path) is None else None, weights=None)
        if differing := [name for name, value in _facts(model).items() if value != known[name]]:
            raise UserError(f"{path} and {paths[0]} differ in their {differing[0]}: only heads that agree are averaged")
        heads.append(model.head)
    return replace(first, further=tuple(heads))


def _facts(model: Model) -> dict[str, object]:
    """What heads must have in common."""
    return {
        "detector": detector_fingerprint(model.detector.spec),
        "encoder layer": model.encoder_layer,
        "categories": model.categories,
    }
