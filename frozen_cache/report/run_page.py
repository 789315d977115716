"""The report of a training, and of an ablation."""

from __future__ import annotations

from typing import Any

from frozen_cache.evaluation.coco import METRICS
from frozen_cache.report.evaluation_page import percent, ratio
from frozen_cache.report.figures import line_plot, scatter_plot
from frozen_cache.report.page import Block, Facts, Figure, Page, Section, Table
from frozen_cache.training.run_directory import RunDirectory, load_record

LOSSES = ("loss", "bce", "dice", "scoring")


def run_page(run: RunDirectory, *, seconds: float) -> Page:
    """Curves, validation, configuration and cost of a run. `seconds` is the time that its steps took."""
    record, lines = load_record(run.path), run.metrics()
    training = [line for line in lines if "loss" in line]
    validation = [line for line in lines if "val" in line]
    losses = {name: [(line["step"], line[name]) for line in training if name in line] for name in LOSSES}
    blocks: list[Block] = [
        Figure(line_plot(losses, title="Training loss over steps", x_label="step", y_label="loss")),
        Figure(
            line_plot(
                {"rate": [(line["step"], line["lr"]) for line in training]},
                title="Learning rate over steps",
                x_label="step",
                y_label="rate",
            )
        ),
    ]
    sections = [Section("curves", "Curves", blocks)]
    cards = [("Steps", f"{lines[-1]['step']:,}" if lines else "0", ""), ("Minutes", f"{seconds / 60:.1f}", "")]
    if training:
        cards.append(("Last loss", f"{training[-1]['loss']:.3f}", ""))
    if validation:
        best = max(validation, key=lambda line: line["val"]["segm"]["AP"])
        masks, boxes = best["val"]["segm"], best["val"]["bbox"]
        cards += [
            ("Mask AP", percent(masks["AP"]), f"best, at step {best['step']:,}"),
            ("Box AP", percent(boxes["AP"]), "of the frozen detector"),
            ("Mask / box", ratio(masks["AP"], boxes["AP"]), ""),
        ]
        curves = {
            label: [(line["step"], line["val"][kind]["AP"]) for line in validation]
            for label, kind in (("masks", "segm"), ("boxes", "bbox"))
        }
        plot = line_plot(curves, title="Validation AP over steps", x_label="step", y_label="AP", marked=True)
        rows = [["masks", *(percent(masks[n]) for n in METRICS)], ["boxes", *(percent(boxes[n]) for n in METRICS)]]
        rows.append(["mask / box", *(ratio(masks[n], boxes[n]) for n in METRICS)])
        table = Table(["", *METRICS], rows, caption=f"At step {best['step']:,}, in percent", strong=0)
        sections.insert(0, Section("validation", "Validation", [table, Figure(plot)]))
    facts = [
        ("detector", record.detector),
        ("encoder layer", str(record.encoder_layer)),
        ("cache", record.cache_fingerprint),
        ("classes", ", ".join(category["name"] for category in record.categories)),
    ]
    config = [(key, str(value)) for key, value in _flat(record.config.model_dump(mode="json"))]
    sections.append(Section("made-from", "Made from", [Facts(facts), Facts(config, folded="Every setting")]))
    return Page(f"Training {run.path.name}", f"A mask head for {record.detector}.", cards, sections)


def ablation_page(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> Page:
    """The table of an ablation and its AP over cost."""
    best = max(range(len(rows)), key=lambda at: rows[at]["AP"])
    lines = [[_cell(name, row[name]) for name in columns] for row in rows]
    points = {row["variant"]: (row["GMACs"], 100 * row["AP"]) for row in rows}
    plot = scatter_plot(points, title="Mask AP over GMACs", x_label="GMACs an image", y_label="mask AP")
    table = Table(list(columns), lines, caption="AP in percent; the best row is bold", strong=best)
    cards = [("Variants", str(len(rows)), ""), ("Best mask AP", percent(rows[best]["AP"]), rows[best]["variant"])]
    return Page(
        title, "Each variant trained and evaluated from the same cache.", cards,
        [Section("table", "Table", [table]), Section("cost", "AP over cost", [Figure(plot)])],
    )  # fmt: skip


def _cell(column: str, value: Any) -> str:
    if column in METRICS:
        return percent(value)
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        flat += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return flat
