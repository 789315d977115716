"""A detector and the head that was trained on it, brought together again."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.cache.attributes import Category, detector_fingerprint
from frozen_cache.cache.kept_maps import KeptMaps
from frozen_cache.detectors.finer import at_scale
from frozen_cache.detectors.labels import match_labels
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.output import DetectorSpec, FrozenDetector
from frozen_cache.detectors.tuning import with_weights
from frozen_cache.errors import UserError
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.checkpoint import load_checkpoint
from frozen_cache.training.run_directory import RunRecord, load_record
from frozen_cache.training.source import RunSource
from frozen_cache.training.trained_head import load_head, run_of

AGAIN = "give it with --detector (and --weights, for a named one)"


@dataclass(frozen=True)
class Model:
    """All that turns an image into masks."""

    detector: FrozenDetector
    head: MaskHead
    encoder_layer: int
    """The kept encoder layer that the head reads."""
    categories: list[Category]
    label_to_category: dict[int, int]
    """Detector label -> category id."""
    top_k: int
    """(query, label) pairs selected per image."""
    autocast: str | None
    """As the training cache was made."""
    kept: KeptMaps | None = None
    """How the training cache rounds maps, which those of new pictures are, too; None for floats."""
    further: tuple[MaskHead, ...] = ()
    """Heads of the same detector whose masks are averaged with the head's."""


def load_run(
    path: Path, *, detector: str | FrozenDetector | None = None, weights: Path | None = None
) -> tuple[Model, RunRecord]:
    """The head of a run (or of one checkpoint in it) with the detector that it was trained on.

    Where the detector trained along, the checkpoint holds the weights that differ from those it began with.

    Args:
        path: a run directory of train-head; its `best` checkpoint is taken, else `last`.
        detector: where the detector is now; None where the run says so itself.
        weights: of a named detector.

    Raises:
        UserError: the detector is not where the run says, or is not the one that the head was trained on.
    """
    head, record, file = load_head(path)
    found = _detector(path, record, detector, weights)
    if detector_fingerprint(found.spec) != record.detector_fingerprint:
        tuned, _ = load_checkpoint(file, prefix="detector.")
        if tuned:
            _check_detector(path, load_record(run_of(path)), found.spec)
            found = with_weights(found, tuned)
    _check_detector(path, record, found.spec)
    source = record.source
    return Model(
        detector=found,
        head=head,
        encoder_layer=record.encoder_layer,
        categories=record.categories,
        label_to_category=(
            match_labels(found.spec, [dict(category) for category in record.categories])
            if source is None
            else source.label_to_category
        ),
        top_k=found.spec.top_k if source is None else source.top_k,
        autocast=None if source is None else source.autocast,
        kept=None if source is None else source.kept,
    ), record


def _detector(
    path: Path, record: RunRecord, detector: str | FrozenDetector | None, weights: Path | None
) -> FrozenDetector:
    source = record.source
    if detector is not None and not isinstance(detector, str):
        return detector if source is None else at_scale(detector, source.spec.backbone_scale)
    if detector is not None:
        return _load(detector, weights, record, source)
    if source is None or source.detector is None:
        raise UserError(f"the run {path} does not say where its detector {record.detector} is: {AGAIN}")
    if ".py:" in source.detector and source.machine != platform.node():
        # The record is data: it may come from a stranger, and a factory is code.
        raise UserError(
            f"the run {path} was made on another computer ({source.machine or 'unnamed'}) with a detector of code, "
            f"{source.detector}: {AGAIN} if you trust it"
        )
    try:
        return _load(source.detector, weights or source.weights, record, source)
    except UserError as error:
        raise UserError(f"the detector of the run {path} cannot be loaded: {error}; if it has moved, {AGAIN}") from None


def _load(text: str, weights: Path | None, record: RunRecord, source: RunSource | None) -> FrozenDetector:
    if source is None:
        return load_detector(text, weights=weights, encoder_layers=(record.encoder_layer,))
    return load_detector(
        text,
        weights=weights,
        encoder_layers=source.spec.encoder_layers,
        backbone_strides=source.backbone_strides,
        backbone_scale=source.spec.backbone_scale,
    )


def _check_detector(path: Path, record: RunRecord, found: DetectorSpec) -> None:
    """UserError where a detector is not the one whose outputs the head knows."""
    if detector_fingerprint(found) == record.detector_fingerprint:
        return
    known = None if record.source is None else record.source.spec
    if known is None:
        raise UserError(
            f"{found.name} is not the detector that the head {path} was trained on ({record.detector}, fingerprint "
            f"{record.detector_fingerprint[:12]}): other weights, or other features kept"
        )
    if known.weights_sha256 != found.weights_sha256:
        raise UserError(
            f"{found.name} has other weights ({found.weights_sha256[:12]}) than the detector that the head {path} was "
            f"trained on ({known.name}, {known.weights_sha256[:12]}): {AGAIN} as it was then"
        )
    differing = [
        f"{name} was {getattr(known, name)}, now {getattr(found, name)}"
        for name in DetectorSpec.model_fields
        if name != "name" and getattr(known, name) != getattr(found, name)
    ]
    raise UserError(f"{found.name} is not as it was when the head {path} was trained: {'; '.join(differing)}")
