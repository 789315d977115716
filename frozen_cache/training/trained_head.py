"""A trained head, built again from its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from frozen_cache.cache.attributes import Category
from frozen_cache.errors import NotFiniteError, UserError
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.training.checkpoint import TUNED, load_checkpoint, shapes
from frozen_cache.training.run_directory import RunRecord, check_marks, load_record
from frozen_cache.training.view_source import ViewSource


class HeadRecord(Protocol):
    """What a head expects of the features that it reads, as its run or an exported folder says it."""

    @property
    def detector_name(self) -> str: ...

    @property
    def detector_fingerprint(self) -> str: ...

    @property
    def categories(self) -> list[Category]: ...

    @property
    def encoder_layer(self) -> int: ...

    @property
    def inputs(self) -> HeadInputs: ...

    @property
    def head(self) -> HeadConfig: ...

    @property
    def backbone_scale(self) -> int | None:
        """C1 and the added maps came from the images at so many times the input size; None where that is not known."""

    def settings(self) -> dict[str, Any]:
        """All that is known of how it was built and trained, nested, for people."""


def load_head(path: Path) -> tuple[MaskHead, RunRecord, Path]:
    """The head of a run directory (its `best` checkpoint, else `last`) or of one checkpoint file in a run directory.

    Returns:
        The head in eval mode, the run's record (where the detector trained along, with the detector of then), the
        checkpoint file.
    """
    folder = run_of(path)
    record = load_record(folder)
    file = checkpoint_of(path)
    _check_shapes(record, shapes(file, prefix="head."), file, folder)
    tensors, saved = load_checkpoint(file, prefix="head.")
    check_marks(record, saved, file)
    if bad := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise NotFiniteError(f"{file} is worthless: `{bad[0]}` and {len(bad) - 1} more tensors are not finite")
    head = MaskHead(config=record.config.head, inputs=record.inputs)
    head.load_state_dict(tensors)
    return head.eval(), _as_tuned(record, saved.get(TUNED)), file


def _as_tuned(record: RunRecord, tuned: dict[str, str] | None) -> RunRecord:
    """The record, with the detector as it was when a checkpoint was written, where it trained along."""
    if tuned is None:
        return record
    source = record.source
    if source is not None:
        spec = source.spec.model_copy(update={"weights_sha256": tuned["weights_sha256"]})
        source = source.model_copy(update={"spec": spec})
    return record.model_copy(update={"detector_fingerprint": tuned["fingerprint"], "source": source})


def run_of(path: Path, *, option: str = "--head") -> Path:
    """The run directory of a head; a UserError where there is none."""
    if not path.exists():
        raise UserError(f"{option} {path} does not exist: give a run directory of train-head")
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix != ".safetensors":
        raise UserError(
            f"{option} {path} is not a checkpoint: give the run directory {folder}, or a .safetensors in it"
        )
    return folder


def checkpoint_of(path: Path) -> Path:
    """The checkpoint of a run directory, its `best` where it has one; a file is itself."""
    best = path / "best.safetensors"
    return path if path.is_file() else best if best.is_file() else path / "last.safetensors"


def _check_shapes(record: RunRecord, found: dict[str, tuple[int, ...]], file: Path, folder: Path) -> None:
    """UserError where a checkpoint is not that of the record's head; no memory is taken for either."""
    try:
        with torch.device("meta"):
            head = MaskHead(config=record.config.head, inputs=record.inputs)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{folder} describes no head that can be built: {str(error).splitlines()[0]}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise UserError(
                f"{file} does not fit the configuration in {folder}: `{name}` is {found.get(name, 'missing')}, "
                f"not {wanted.get(name, 'known')}"
            )


def check_fits(record: HeadRecord, reader: ViewSource, *, head: Path, cache: object) -> None:
    """UserError where a head meets a cache of another detector, other features or other categories."""
    attributes = reader.attributes
    if record.detector_fingerprint != attributes.detector_fingerprint:
        raise UserError(
            f"the head {head} was trained on detector {record.detector_name} ({record.detector_fingerprint[:12]}), "
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
