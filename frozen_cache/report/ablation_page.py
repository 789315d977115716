"""The report of an ablation: its table, AP over cost, training curves and classes of the variants beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frozen_cache.evaluation.coco import METRICS
from frozen_cache.report.cells import percent
from frozen_cache.report.data_section import MANY
from frozen_cache.report.figures import line_plot, scatter_plot
from frozen_cache.report.page import Facts, Figure, Page, Section, Table


@dataclass(frozen=True)
class Variant:
    """One trained and evaluated variant."""

    row: dict[str, Any]
    """Its values by column of the table."""
    settings: dict[str, Any]
    """What it sets, by dotted key."""
    losses: list[tuple[float, float]]
    """(step, training loss)."""
    classes: list[dict[str, Any]]
    """`classes` of its `metrics.json`."""
    folder: str
    """Of its run and results, from the page's own place."""


def ablation_page(title: str, columns: tuple[str, ...], variants: list[Variant]) -> Page:
    """The page of the variants that are finished."""
    rows = [variant.row for variant in variants]
    best = max(range(len(rows)), key=lambda at: rows[at]["AP"])
    lines = [[_cell(name, row[name]) for name in columns] for row in rows]
    table = Table(list(columns), lines, caption="AP in percent; the best row is bold", strong=best)
    points = {row["variant"]: (row["GMACs"], 100 * row["AP"]) for row in rows}
    cost = scatter_plot(points, title="Mask AP over GMACs", x_label="GMACs an image", y_label="mask AP")
    losses = {variant.row["variant"]: variant.losses for variant in variants}
    curves = line_plot(losses, title="Training loss over steps", x_label="step", y_label="loss")
    made = [(each.row["variant"], f"{_settings(each.settings)} ({each.folder})") for each in variants]
    cards = [("Variants", str(len(rows)), ""), ("Best mask AP", percent(rows[best]["AP"]), rows[best]["variant"])]
    sections = [
        Section("table", "Table", [table]),
        Section("cost", "AP over cost", [Figure(cost)]),
        Section("curves", "Curves", [Figure(curves)]),
        Section("classes", "Classes", [_classes(variants)], "Mask AP of each class, the most frequent first."),
        Section(
            "made-from", "Made from", [Facts(made)],
            "What each variant sets, and its folder, where run/report.html and results/report.html show it alone.",
        ),
    ]  # fmt: skip
    return Page(title, "Each variant trained and evaluated from the same cache.", cards, sections)


def _classes(variants: list[Variant]) -> Table:
    known = sorted(
        (entry for entry in variants[0].classes if entry["objects"]), key=lambda entry: (-entry["objects"], entry["id"])
    )
    found = [{entry["id"]: entry["segm"]["AP"] for entry in variant.classes} for variant in variants]
    rows: list[list[str]] = []
    shades: dict[tuple[int, int], int] = {}
    for line, entry in enumerate(known):
        values = [of[entry["id"]] for of in found]
        rows.append([entry["name"], f"{entry['objects']:,}", *map(percent, values)])
        shades |= {(line, at): round(100 * max(0.0, value)) for at, value in enumerate(values, start=2)}
    head = ["class", "objects", *(variant.row["variant"] for variant in variants)]
    return Table(head, rows, caption=f"{len(rows)} classes", shades=shades, folded=len(rows) > MANY)


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in settings.items()) or "the preset as it is"


def _cell(column: str, value: Any) -> str:
    if column in METRICS:
        return percent(value)
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
