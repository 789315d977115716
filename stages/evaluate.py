"""COCO metrics of a head or a baseline on a cache."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frozen_cache.cache.reader import CacheReader
from frozen_cache.device import pick_device
from frozen_cache.durable import write_durably
from frozen_cache.errors import UserError
from frozen_cache.evaluation.coco import METRICS
from frozen_cache.evaluation.evaluate import evaluate_cache
from frozen_cache.evaluation.segmenters import BoxSegmenter, FeatureSegmenter, Segmenter
from frozen_cache.head.config import HeadConfig, resolve_encoder_layer
from frozen_cache.head.training_free import TrainingFree
from frozen_cache.training.trained_head import check_fits, load_head

BASELINES: dict[str, dict[str, bool] | None] = {
    "training-free": {"roi_align": True, "c1": True},
    "training-free-no-c1": {"roi_align": True, "c1": False},
    "training-free-whole-image": {"roi_align": False, "c1": True},
    "training-free-whole-image-no-c1": {"roi_align": False, "c1": False},
    "box": None,
}
"""The rows of Table 1, as `TrainingFree` takes them, and the filled box."""
OUTPUTS = ("metrics.json", "segm_results.json", "bbox_results.json")


@dataclass(frozen=True)
class EvaluateResult:
    """COCO metrics by kind, in 0..1."""

    what: str
    metrics: dict[str, dict[str, float]]

    def table(self) -> str:
        """The metrics as text, with mask AP / box AP."""
        lines = [f"{self.what}", f"{'':6}" + "".join(f"{name:>8}" for name in METRICS)]
        for kind in ("segm", "bbox"):
            lines.append(f"{kind:6}" + "".join(f"{self.metrics[kind][name]:8.3f}" for name in METRICS))
        box, mask = self.metrics["bbox"]["AP"], self.metrics["segm"]["AP"]
        lines.append(f"mask AP / box AP: {mask / box:.3f}" if box > 0 else "mask AP / box AP: no box AP")
        return "\n".join(lines)


def evaluate(
    *, cache: Path, out: Path, head: Path | None = None, baseline: str | None = None, device: str = "auto"
) -> EvaluateResult:
    """Evaluate on the plain views of `cache` and write `metrics.json` and COCO result files into `out`."""
    if (head is None) == (baseline is None):
        raise UserError(f"give either --head RUN or --baseline NAME ({', '.join(BASELINES)})")
    if baseline is not None and baseline not in BASELINES:
        raise UserError(f"no baseline `{baseline}`: known are {', '.join(BASELINES)}")
    _check_out(out)
    reader = CacheReader(cache)
    segmenter, what = _segmenter(reader, cache, head, baseline, pick_device(device))
    evaluation = evaluate_cache(reader, segmenter)
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / "metrics.json", evaluation.metrics, indent=2)
    _write_json(out / "bbox_results.json", evaluation.results["bbox"])
    _write_json(out / "segm_results.json", evaluation.results["segm"])
    return EvaluateResult(what=what, metrics=evaluation.metrics)


def _segmenter(
    reader: CacheReader, cache: Path, head: Path | None, baseline: str | None, device: torch.device
) -> tuple[Segmenter, str]:
    if head is not None:
        model, record, file = load_head(head)
        check_fits(record, reader, head=head, cache=cache)
        return FeatureSegmenter(model, encoder_layer=record.encoder_layer, device=device), f"head {file}"
    options = BASELINES[baseline or "box"]
    if options is None:
        return BoxSegmenter(), "baseline: filled boxes"
    layer = resolve_encoder_layer(HeadConfig(), reader.attributes.detector.encoder_layers)
    free = TrainingFree(inputs=reader.head_inputs(layer), **options)
    note = "" if free.note is None else f"; {free.note}"
    return FeatureSegmenter(free, encoder_layer=layer, device=device), f"baseline: {baseline} (Eq. 1 to 4){note}"


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} exists and is a file: choose another path")
    if out.is_dir():
        # A kill can leave behind what was being written aside: `.metrics.json.1234`.
        aside = tuple(f".{name}." for name in OUTPUTS)
        names = sorted(entry.name for entry in out.iterdir())
        foreign = [name for name in names if name not in OUTPUTS and not name.startswith(aside)]
        if foreign:
            raise UserError(f"--out {out} exists and holds other things ({foreign[0]}): choose another path")


def _write_json(path: Path, values: Any, *, indent: int | None = None) -> None:
    write_durably(path, (json.dumps(values, indent=indent) + "\n").encode())
