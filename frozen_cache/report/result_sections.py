"""What the pages of an evaluation and of a training both show of a validation: classes, precision, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frozen_cache.evaluation.coco import METRICS
from frozen_cache.evaluation.compare import Compared
from frozen_cache.report.cells import percent, ratio, short_names
from frozen_cache.report.data_section import MANY
from frozen_cache.report.figures import line_plot
from frozen_cache.report.gallery import Gallery, as_picture
from frozen_cache.report.page import Block, Figure, Section, Table
from frozen_cache.report.page import Gallery as Pictures
from frozen_cache.report.published import PublishedRow

KINDS = (("masks", "segm"), ("boxes", "bbox"))
SHOWN = 3
"""Best and worst images: a row of each."""


def class_section(metrics: dict[str, Any], compared: Sequence[Compared] = ()) -> Section:
    """AP of each class that has objects, and by size; behind it that of what it is compared with.

    Args:
        metrics: of `metrics.json`.
        compared: this evaluation, then the others.
    """
    others = compared[1:]
    rows, shades = [], {}
    known = [entry for entry in metrics["classes"] if entry["objects"]]
    for line, entry in enumerate(sorted(known, key=lambda entry: (-entry["objects"], entry["id"]))):
        values = [percent(entry["segm"][name]) for name in METRICS]
        box = entry["bbox"]["AP"]
        row = [entry["name"], f"{entry['objects']:,}", *values, percent(box), ratio(entry["segm"]["AP"], box)]
        rows.append(row + [percent(other.classes[entry["id"]]) for other in others])
        shades[line, 2] = round(100 * max(0.0, entry["segm"]["AP"]))
    head = ["class", "objects", *(f"mask {name}" if name == "AP" else name for name in METRICS), "box AP", "mask / box"]
    head += [f"AP, {name}" for name in short_names([other.name for other in others])]
    table = Table(head, rows, caption=f"{len(rows)} classes", shades=shades, folded=len(rows) > MANY)
    return Section("classes", "Classes", [table], "AP of each class, the most frequent first.")


def precision_section(metrics: dict[str, Any]) -> Section:
    """Precision over recall, of masks and boxes."""
    series: dict[str, Sequence[tuple[float, float]]] = {}
    for kind, key in KINDS:
        for name, label in (("mean", f"{kind}, mean"), ("0.50", f"{kind}, IoU 0.50")):
            values = metrics["precision"][key].get(name, [])
            series[label] = [(at / 100, value) for at, value in enumerate(values)]
    plot = line_plot(series, title="Precision over recall", x_label="recall", y_label="precision", y_limits=(0, 1))
    figure = Figure(plot, "Mean over classes, at IoU 0.5 and as the mean over IoU 0.5 to 0.95.")
    return Section("precision", "Precision and recall", [figure], "How precision falls as more is found.")


def picture_section(gallery: Gallery) -> Section:
    """The best images and the worst, prediction beside ground truth."""
    ranked = gallery.ranked()
    blocks: list[Block] = []
    for caption, verdicts in (
        ("Best images", list(reversed(ranked[-SHOWN:]))),
        ("Worst images", ranked[: min(SHOWN, max(0, len(ranked) - SHOWN))]),
    ):
        pictures = [
            as_picture(
                gallery.beside_truth(verdict.image_id),
                alt=f"Image {verdict.image_id}: prediction and ground truth",
                caption=f"image {verdict.image_id}, mean IoU {verdict.mean_iou:.2f}",
            )
            for verdict in verdicts
        ]
        if pictures:
            blocks.append(Pictures(pictures, caption=f"{caption}: prediction left, ground truth right."))
    text = "By the mean IoU of an image's objects with their detections; what is missed counts as 0."
    return Section("pictures", "Pictures", blocks, f"{text} {gallery.photographs.note}".strip())


def comparison_table(rows: Sequence[Compared], published: Sequence[PublishedRow] = ()) -> Table:
    """What was compared, with intervals; the published rows below, which have none."""
    head = ["", *METRICS, "95 % of AP", "difference", "95 % of it"]
    lines = []
    for name, row in zip(short_names([row.name for row in rows]), rows, strict=True):
        other = row.difference
        differs = ["", ""] if other is None else [f"{100 * other.value:+.1f}", _range(other.low, other.high, "+.1f")]
        values = [percent(row.metrics[name]) for name in METRICS]
        lines.append([name, *values, _range(row.ap.low, row.ap.high, ".1f"), *differs])
    for paper in published:
        values = [percent(paper.metrics[name]) for name in METRICS]
        lines.append([f"{paper.name} ({paper.split})", *values, "", "", ""])
    caption = "Compared on the same images; intervals by paired bootstrap over images"
    if published:
        caption += "; below, published results on COCO"
    return Table(head, lines, caption=caption, strong=0)


def _range(low: float, high: float, form: str) -> str:
    return f"{100 * low:{form}} to {100 * high:{form}}"
