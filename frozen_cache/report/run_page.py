"""The report of a training: validation, curves, classes, pictures, data, settings and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.evaluation.coco import METRICS
from frozen_cache.report.cells import percent, ratio
from frozen_cache.report.data_section import data_section, head_facts
from frozen_cache.report.figures import line_plot
from frozen_cache.report.page import Facts, Figure, Page, Section, Table
from frozen_cache.report.published import published_table
from frozen_cache.training.run_directory import RunDirectory, load_record

LOSSES = ("loss", "bce", "dice", "scoring")


def run_page(
    run: RunDirectory,
    attributes: CacheAttributes,
    *,
    seconds: float,
    image_size: tuple[int, int],
    validated: Sequence[Section] = (),
) -> Page:
    """The page of a run.

    Args:
        attributes: of the cache that it is trained on.
        seconds: that its steps and validations took.
        image_size: (height, width) of the detector's input, for which the cost is stated.
        validated: what there is to see of its validation.
    """
    record, lines = load_record(run.path), run.metrics()
    training = [line for line in lines if "loss" in line]
    validation = [line for line in lines if "val" in line]
    steps = lines[-1]["step"] if lines else 0
    cards = [("Steps", f"{steps:,}", ""), ("Minutes", f"{seconds / 60:.1f}", "")]
    sections = [_curves(training)]
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
        sections.insert(0, _validation(run.path.name, validation, best, attributes))
    views = steps * record.config.optim.batch_size
    facts = [
        ("detector", record.detector),
        ("encoder layer", str(record.encoder_layer)),
        ("cache", record.cache_fingerprint),
        ("classes", ", ".join(category["name"] for category in record.categories)),
    ]
    cost = head_facts(
        record, image_size=image_size, boxes=attributes.top_k, seconds_a_view=seconds / views if views else None
    )
    sections += [*validated, data_section(attributes), Section("made-from", "Made from", [Facts(facts), *cost])]
    return Page(f"Training {run.path.name}", f"A mask head for {record.detector}.", cards, sections)


def _validation(
    name: str, validation: list[dict[str, Any]], best: dict[str, Any], attributes: CacheAttributes
) -> Section:
    """AP by size at the best step, beside published rows where there are any, and AP over steps."""
    masks, boxes = best["val"]["segm"], best["val"]["bbox"]
    rows = [["masks", *(percent(masks[n]) for n in METRICS)], ["boxes", *(percent(boxes[n]) for n in METRICS)]]
    rows.append(["mask / box", *(ratio(masks[n], boxes[n]) for n in METRICS)])
    table = Table(["", *METRICS], rows, caption=f"At step {best['step']:,}, in percent", strong=0)
    curves = {
        label: [(line["step"], line["val"][kind]["AP"]) for line in validation]
        for label, kind in (("masks", "segm"), ("boxes", "bbox"))
    }
    plot = line_plot(curves, title="Validation AP over steps", x_label="step", y_label="AP", marked=True)
    published = published_table(name, best["val"], list(attributes.categories))
    return Section("validation", "Validation", [table, Figure(plot), *([] if published is None else [published])])


def _curves(training: list[dict[str, Any]]) -> Section:
    losses = {name: [(line["step"], line[name]) for line in training if name in line] for name in LOSSES}
    rates = {"rate": [(line["step"], line["lr"]) for line in training]}
    figures = [
        Figure(line_plot(losses, title="Training loss over steps", x_label="step", y_label="loss")),
        Figure(line_plot(rates, title="Learning rate over steps", x_label="step", y_label="rate")),
    ]
    return Section("curves", "Curves", [*figures])
