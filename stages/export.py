"""A trained head and its detector as one folder to hand on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.durable import flush_tree, move_durably
from frozen_cache.errors import UserError
from frozen_cache.export.card import model_card, trained_metrics
from frozen_cache.export.manifest import MANIFEST
from frozen_cache.export.onnx_file import GRAPH_RECORD, GraphRecord, need_onnx
from frozen_cache.export.read import load_folder
from frozen_cache.export.write import check_same, write_folder
from frozen_cache.inference.images import as_picture
from frozen_cache.inference.load import load_model
from frozen_cache.inference.model import load_run
from frozen_cache.training.trained_head import checkpoint_of

LICENSE = "not stated; the detector's own license applies to its weights"


@dataclass(frozen=True)
class ExportResult:
    """Where the folder is, and how large."""

    out: Path
    bytes: int

    def text(self) -> str:
        """What the command prints in the end."""
        return (
            f"model in {self.out}, {self.bytes / 1e6:.1f} MB: README.md says what it is\n"
            f"next: frozen-cache predict --model {self.out} PICTURES --out masks"
        )


def export_model(
    *,
    run: Path,
    out: Path,
    detector: str | None = None,
    weights: Path | None = None,
    license: str = LICENSE,
) -> ExportResult:
    """Write the folder `out`: detector, head, record and model card; then read it back and compare.

    Args:
        run: a run directory of train-head, or one checkpoint in it.
        out: a folder that is not there yet, or is empty.
        detector: where the run's detector is now; None for where it was.
        weights: the checkpoint of a named detector.
        license: of the model, for the card.

    Raises:
        UserError: `out` holds something; the detector cannot be found, or is code that no folder can hold.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not empty: choose another path")
    model, record = load_run(run, detector=detector, weights=weights)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        manifest = write_folder(aside, model, cache_fingerprint=record.cache_fingerprint, license=license)
        (aside / "README.md").write_text(model_card(manifest, record, trained_metrics(checkpoint_of(run))))
        check_same(model, load_folder(aside), aside)
        flush_tree(aside)
        move_durably(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sizes = sum(facts.size for facts in manifest.files.values()) + (out / MANIFEST).stat().st_size
    return ExportResult(out=out, bytes=sizes)


@dataclass(frozen=True)
class OnnxExportResult:
    """Where the graph is, and how near to torch it stays."""

    out: Path
    record: GraphRecord

    def text(self) -> str:
        """What the command prints in the end."""
        record = self.record
        found = ", ".join(f"{name} {value:.1e}" for name, value in (record.differences or {}).items())
        height, width = record.input.size or ("free", "free")
        sizes = f"batch free, height {height}, width {width}"
        if record.fixed_because is not None:
            sizes += (
                f"; pictures are stretched to this, which the detector does not do by itself ({record.fixed_because})"
            )
        return (
            f"graph in {self.out}: opset {record.opset}, {record.nodes} nodes\n"
            f"{sizes}\n"
            f"largest differences between onnxruntime and torch: {found} (in {GRAPH_RECORD})"
        )


def export_onnx_model(
    *,
    run: Path,
    out: Path,
    detector: str | None = None,
    weights: Path | None = None,
    gather: bool = False,
    pasted: bool = False,
    size: tuple[int, int] | None = None,
    check: Sequence[Path] = (),
) -> OnnxExportResult:
    """Write `model.onnx` and `onnx.json` into the folder `out`, and compare with torch.

    Args:
        run: a run directory of train-head, a checkpoint in it, or a folder that `export_model` made.
        out: a folder that is not there yet, or is empty. A graph that fails the check stays in it, to be looked at.
        detector: where the run's detector is now; None for where it was.
        weights: the checkpoint of a named detector.
        gather: sample by gather arithmetic; the graph has neither GridSample nor RoiAlign.
        pasted: masks at the input's size.
        size: (height, width) in pixels of a graph for one size, for a detector that takes any; None leaves them free
            where the detector's graph can.
        check: pictures to compare on, besides the demo's.

    Raises:
        UserError: `out` holds something; the extra `onnx` is missing; a detector or head that cannot become a graph.
        OnnxDiffersError: the graph gives other results than torch.
    """
    need_onnx()
    from frozen_cache.export.onnx_checked import export_checked

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not empty: choose another path")
    pictures = [as_picture(path) for path in check]
    model = load_model(run, detector=detector, weights=weights)
    out.mkdir(parents=True, exist_ok=True)
    record = export_checked(model=model, folder=out, gather=gather, pasted=pasted, size=size, pictures=pictures)
    return OnnxExportResult(out=out, record=record)
