"""Ablations from one cache: each combination trained and evaluated, one table and one plot in the paper's columns."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from frozen_cache.device import pick_device
from frozen_cache.errors import UserError
from frozen_cache.evaluation.coco import METRICS
from frozen_cache.finite_json import finite_json
from frozen_cache.head.describe import describe_head
from frozen_cache.ownership import Ownership
from frozen_cache.processes import process_share
from frozen_cache.progress import say
from frozen_cache.remote import CachePath
from frozen_cache.report.ablation_page import Variant, ablation_page
from frozen_cache.report.page import write_page
from frozen_cache.stages.ablate_measure import Measured
from frozen_cache.stages.ablate_request import MARKER, check_out, check_request, marker_text
from frozen_cache.stages.evaluate import ap_text, evaluate
from frozen_cache.stages.live import LiveData
from frozen_cache.stages.train import TrainResult, train_head
from frozen_cache.stages.train_source import check_live
from frozen_cache.terminal import table_lines
from frozen_cache.training.effect import without_effect
from frozen_cache.training.grid import Row
from frozen_cache.training.run_directory import RunDirectory, load_record
from frozen_cache.training.trained_head import checkpoint_of

COLUMNS = ("variant", "GMACs", "parameters", *METRICS, "minutes")
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class AblationResult:
    """The finished table."""

    title: str
    rows: list[dict[str, Any]]
    out: Path

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(_text(column, row[column]) for column in COLUMNS) + " |" for row in self.rows]
        return "\n".join(lines)

    def text(self, *, width: int | None) -> str:
        """The table for a terminal of `width` columns; as Markdown where that is None."""
        if width is None:
            return self.markdown()
        cells = [COLUMNS, *([_text(column, row[column]) for column in COLUMNS] for row in self.rows)]
        return "\n".join(table_lines(cells, width=width))


def ablate(
    *,
    cache: CachePath | None = None,
    live: LiveData | None = None,
    val_cache: CachePath | None = None,
    grid: str,
    out: Path,
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
    device: str = "auto",
    memory_bytes: int = 4 * 2**30,
) -> AblationResult:
    """Train and evaluate every variant of `grid`; what an earlier, stopped call finished is kept.

    Under torchrun all processes train each variant together. The first one holds `out`, evaluates, and writes the
    table, while the others wait for the next variant or, after the last one, are done: their result has no rows.

    Args:
        live: in place of `cache`: train with the detector in the loop.
        val_cache: to evaluate on; None for the validation images of `live`, of which a cache is made: one by the
            detector as it is, and one for a moment by each that trained along.
        preset: the recipe under the variants; None for the grid's own.
        overrides: by dotted key, over every variant (fewer epochs for a quick look).
    """
    if cache is not None and val_cache is None:
        raise UserError("ablate evaluates every variant: give --val-cache")
    rank, processes = process_share()
    asked = check_request(grid=grid, preset=preset, overrides=overrides or {})
    pick_device(device)
    parsed, variants = asked.grid, asked.variants
    for variant, config in zip(variants, asked.configs, strict=True):
        check_live(config, live=live is not None, val_cache=val_cache)
        for line in without_effect(config, list(variant.set)) if rank == 0 else ():
            say(f"warning: {variant.name}: {line}")
    finished: list[Variant] = []
    with Ownership(out) if rank == 0 else nullcontext() as owner:
        if owner is not None:
            check_out(out, parsed)
            (out / MARKER).write_text(marker_text(parsed), encoding="utf-8")
        measured = Measured(live, val_cache, out=out, device=device)
        for at, variant in enumerate(variants):
            folder = out / "variants" / f"{at:02d}-{_slug(variant.name)}"
            if owner is not None:
                say(f"[{at + 1}/{len(variants)}] {variant.name}")
            trained = train_head(
                cache=cache,
                live=None if live is None else replace(live, val_images=None, val_annotations=None),
                out=folder / "run",
                preset=parsed.preset,
                overrides=variant.set,
                resume=True,
                device=device,
                memory_bytes=memory_bytes,
            )
            if owner is None:
                continue
            finished.append(_finished(variant, folder, trained, measured, out=out, device=device))
            owner.check()
            _write(out, parsed.title, finished)
    if owner is None:
        say(f"process {rank} of {processes} is done; process 0 evaluates the last variant and writes {out}")
    return AblationResult(title=parsed.title, rows=[variant.row for variant in finished], out=out)


def _finished(
    variant: Row,
    folder: Path,
    trained: TrainResult,
    measured: Measured,
    *,
    out: Path,
    device: str,
) -> Variant:
    """What one trained variant comes to; it is evaluated unless an earlier call did, of these weights on this data."""
    metrics = _measured_before(folder, measured)
    if metrics is None:
        with measured.cache_for(folder) as val_cache:
            evaluate(cache=val_cache, head=folder / "run", out=folder / "results", device=device, overwrite=True)
        metrics = json.loads((folder / "results" / METRICS_FILE).read_bytes())
    record = load_record(folder / "run")
    described = describe_head(
        config=record.config.head,
        inputs=record.inputs,
        image_size=measured.reader.resized_size(0),
        boxes=measured.reader.attributes.top_k,
    )
    row = {"variant": variant.name, "GMACs": described.macs / 1e9, "parameters": described.parameters}
    row |= {name: metrics["segm"][name] for name in METRICS} | {"minutes": trained.seconds / 60}
    lines = RunDirectory(folder / "run").metrics()
    return Variant(
        row=row,
        settings=variant.set,
        losses=[(line["step"], line["loss"]) for line in lines if "loss" in line],
        classes=metrics["classes"],
        folder=folder.relative_to(out).as_posix(),
    )


def _measured_before(folder: Path, measured: Measured) -> dict[str, Any] | None:
    """The metrics of an earlier evaluation; None where there are none, or they are of other weights or other data."""
    try:
        metrics: dict[str, Any] = json.loads((folder / "results" / METRICS_FILE).read_bytes())
        weights_then, data_then = metrics["of"]["sha256"], metrics["of"]["cache_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    weights = hashlib.sha256(checkpoint_of(folder / "run").read_bytes()).hexdigest()
    return metrics if weights_then == weights and measured.fingerprint in (None, data_then) else None


def _write(out: Path, title: str, variants: list[Variant]) -> None:
    rows = [variant.row for variant in variants]
    finite_json(rows, path=out / "table.csv")
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    result = AblationResult(title=title, rows=rows, out=out)
    (out / "table.md").write_text(f"# {title}\n\n{result.markdown()}\n", encoding="utf-8")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        axes.scatter(row["GMACs"], row["AP"], s=20 + row["parameters"] / 4e4)
        axes.annotate(
            row["variant"],
            (row["GMACs"], row["AP"]),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8,
            parse_math=False,
        )
    axes.set(xlabel="GMACs an image", ylabel="mask AP")
    axes.set_title(f"{title} (area: parameters)", parse_math=False)
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    figure.savefig(out / "plot.png", dpi=110)
    write_page(out / "report.html", ablation_page(title, COLUMNS, variants))


def _text(column: str, value: Any) -> str:
    if column in METRICS:
        return ap_text(value)
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
