"""A trained head, built again from its run."""

from __future__ import annotations

from pathlib import Path

from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.checkpoint import load_checkpoint
from frozen_cache.training.run_directory import RunRecord, load_record


def load_head(path: Path) -> tuple[MaskHead, RunRecord, Path]:
    """The head of a run directory (its `best` checkpoint, else `last`) or of one checkpoint file in a run directory.

    Returns:
        The head in eval mode, the run's record, the checkpoint file.
    """
    if not path.exists():
        raise UserError(f"--head {path} does not exist: give a run directory of train-head")
    folder = path if path.is_dir() else path.parent
    record = load_record(folder)
    file = checkpoint_of(path)
    tensors, _ = load_checkpoint(file, prefix="head.")
    head = MaskHead(config=record.config.head, inputs=record.inputs)
    try:
        head.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{file} does not fit the configuration in {folder}: {str(error).splitlines()[0]}") from error
    return head.eval(), record, file


def checkpoint_of(path: Path) -> Path:
    """The checkpoint of a run directory, its `best` where it has one; a file is itself."""
    best = path / "best.safetensors"
    return path if path.is_file() else best if best.is_file() else path / "last.safetensors"


def check_fits(record: RunRecord, reader: CacheReader, *, head: Path, cache: Path) -> None:
    """UserError where a head meets a cache of another detector, other features or other categories."""
    attributes = reader.attributes
    if record.detector_fingerprint != attributes.detector_fingerprint:
        raise UserError(
            f"the head {head} was trained on detector {record.detector} ({record.detector_fingerprint[:12]}), "
            f"the cache {cache} is of {attributes.detector.name} ({attributes.detector_fingerprint[:12]}): "
            "evaluate on a cache of the head's own detector"
        )
    if record.categories != attributes.categories:
        raise UserError(f"the head {head} and the cache {cache} have different categories: use the same data set's")
    if record.encoder_layer not in attributes.detector.encoder_layers:
        raise UserError(
            f"the head {head} reads encoder layer {record.encoder_layer}, which {cache} does not keep "
            f"(it keeps {attributes.detector.encoder_layers}): extract it with --encoder-layers {record.encoder_layer}"
        )
    if record.inputs != reader.head_inputs(record.encoder_layer):
        raise UserError(f"the head {head} expects other feature maps than {cache} holds: extract with the same options")
