"""A trained head and its detector as one folder to hand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frozen_cache.export.card import CARD, model_card, trained_metrics
from frozen_cache.export.manifest import DETECTOR, HEAD, MANIFEST
from frozen_cache.export.onnx_file import GRAPH, GRAPH_RECORD, GraphRecord, need_onnx
from frozen_cache.export.place import ASIDE, hold_out, put_into_place, remove_names
from frozen_cache.export.read import load_folder
from frozen_cache.export.write import check_same, write_folder
from frozen_cache.inference.images import as_picture
from frozen_cache.inference.load import load_model
from frozen_cache.inference.model import load_run
from frozen_cache.training.trained_head import checkpoint_of

FOLDER_NAMES = (HEAD, DETECTOR, CARD, MANIFEST)
GRAPH_NAMES = (GRAPH, GRAPH_RECORD)
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
    overwrite: bool = False,
) -> ExportResult:
    """Write the folder `out`: detector, head, record and model card; then read it back and compare.

    Args:
        run: a run directory of train-head, or one checkpoint in it.
        out: a folder that is not there yet, or is empty; it is held meanwhile, and whole or without a model.
        detector: where the run's detector is now; None for where it was.
        weights: the checkpoint of a named detector.
        license: of the model, for the card.
        overwrite: an earlier export in `out` is replaced, once the new one is right.

    Raises:
        UserError: `out` holds something, or another process holds it; the detector cannot be found, or is
            code that no folder can hold.
    """
    with hold_out(out, FOLDER_NAMES, overwrite=overwrite) as owner:
        model, record = load_run(run, detector=detector, weights=weights)
        aside = out / ASIDE
        manifest = write_folder(aside, model, cache_fingerprint=record.cache_fingerprint, license=license)
        (aside / CARD).write_text(model_card(manifest, record, trained_metrics(checkpoint_of(run))), encoding="utf-8")
        check_same(model, load_folder(aside), out)
        owner.check()
        put_into_place(out, FOLDER_NAMES)
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
        rounded = (
            ""
            if record.predict_rounds is None
            else f"\nthe graph reads maps as they are; predict rounds them as the training cache did "
            f"({record.predict_rounds}), so that a few pixels at edges differ between the two"
        )
        return (
            f"graph in {self.out}: opset {record.opset}, {record.nodes} nodes\n"
            f"{sizes}\n"
            f"largest differences between onnxruntime and torch: {found} (in {GRAPH_RECORD}){rounded}"
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
    overwrite: bool = False,
) -> OnnxExportResult:
    """Write `model.onnx` and `onnx.json` into the folder `out`, and compare with torch.

    Args:
        run: a run directory of train-head, a checkpoint in it, or a folder that `export_model` made.
        out: a folder that is not there yet, or is empty; it is held meanwhile. A graph that fails the check stays in
            it, to be looked at.
        detector: where the run's detector is now; None for where it was.
        weights: the checkpoint of a named detector.
        gather: sample by gather arithmetic; the graph has neither GridSample nor RoiAlign.
        pasted: masks at the input's size.
        size: (height, width) in pixels of a graph for one size, for a detector that takes any; None leaves them free
            where the detector's graph can.
        check: pictures to compare on, besides the demo's.
        overwrite: an earlier graph in `out` is replaced.

    Raises:
        UserError: `out` holds something, or another process holds it; the extra `onnx` is missing; a
            detector or head that cannot become a graph.
        OnnxDiffersError: the graph gives other results than torch.
    """
    need_onnx()
    from frozen_cache.export.onnx_check import OnnxDiffersError
    from frozen_cache.export.onnx_checked import export_checked

    with hold_out(out, GRAPH_NAMES, overwrite=overwrite) as owner:
        pictures = [as_picture(path) for path in check]
        model = load_model(run, detector=detector, weights=weights)
        owner.check()
        remove_names(out, GRAPH_NAMES)
        try:
            record = export_checked(model=model, folder=out, gather=gather, pasted=pasted, size=size, pictures=pictures)
        except OnnxDiffersError:
            raise
        except BaseException:
            remove_names(out, GRAPH_NAMES)
            raise
    return OnnxExportResult(out=out, record=record)
