"""The report of an evaluation: figures, sizes, classes, curves, mistakes, pictures, data, what it was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.evaluation.coco import METRICS, RECALLS
from frozen_cache.evaluation.compare import Compared
from frozen_cache.evaluation.mistakes import THRESHOLD, ImageVerdict
from frozen_cache.report.cells import percent, ratio, short_names
from frozen_cache.report.data_section import data_section
from frozen_cache.report.figures import gain_plot
from frozen_cache.report.gallery import MISTAKES, Gallery, as_picture
from frozen_cache.report.page import Block, Facts, Figure, Page, Section, Table
from frozen_cache.report.page import Gallery as Pictures
from frozen_cache.report.published import COCO_IMAGES, published_rows, published_table
from frozen_cache.report.result_sections import (
    KINDS,
    class_section,
    comparison_table,
    picture_section,
    precision_section,
)

EXAMPLES, CONFUSED = 3, 12


def evaluation_page(
    metrics: dict[str, Any],
    gallery: Gallery,
    attributes: CacheAttributes,
    *,
    compared: Sequence[Compared] = (),
    head: Sequence[Block] = (),
) -> Page:
    """The page of one `metrics.json` and its pictures.

    Args:
        compared: this evaluation, then the others; or nothing.
        head: what there is to say of the head's size, cost and settings.
    """
    of = metrics["of"]
    fused = ", views fused" if of.get("tta") else ""
    mistakes = metrics["mistakes"]["objects"]
    objects = sum(mistakes.values())
    sections = [
        Section("results", "Results", _results(metrics, attributes, compared), _comparison_text(attributes, of)),
        class_section(metrics, compared),
        precision_section(metrics),
        Section("mistakes", "Mistakes", _mistakes(metrics, gallery), _mistake_text()),
        picture_section(gallery),
        data_section(attributes),
        Section("made-from", "Made from", [Facts(_facts(of, attributes)), *head]),
    ]
    return Page(
        title=f"Evaluation of {short_names([of['name']], least=2)[0]}",
        lead=f"{of['images']:,} images and {objects:,} objects of {of['annotations']}, detector {of['detector']}.",
        cards=[
            ("Mask AP", percent(metrics["segm"]["AP"]), "mean over IoU 0.5 to 0.95"),
            ("Box AP", percent(metrics["bbox"]["AP"]), f"of the frozen detector{fused}"),
            ("Mask / box", ratio(metrics["segm"]["AP"], metrics["bbox"]["AP"]), "1 would lose nothing"),
            ("Mean IoU", percent(metrics["mean_iou"]["all"]), "of masks in matched boxes"),
            ("Missed", f"{mistakes['missed']:,}", f"of {objects:,} objects, at score {THRESHOLD}"),
        ],
        sections=sections,
    )


def _results(metrics: dict[str, Any], attributes: CacheAttributes, compared: Sequence[Compared]) -> list[Block]:
    mask, box = metrics["segm"], metrics["bbox"]
    sizes = {"AP": "all", "APs": "s", "APm": "m", "APl": "l"}
    iou = [percent(metrics["mean_iou"][sizes[name]]) if name in sizes else "" for name in METRICS]
    rows = [
        ["masks", *(percent(mask[name]) for name in METRICS)],
        ["boxes", *(percent(box[name]) for name in METRICS)],
        ["boundaries", *(percent(metrics["boundary"][name]) for name in METRICS)],
        ["mask / box", *(ratio(mask[name], box[name]) for name in METRICS)],
        ["mean mask IoU", *iou],
        *(
            [label, *(percent(metrics["edge_iou"][key][sizes[name]]) if name in sizes else "" for name in METRICS)]
            for label, key in (("near the edge", "near_edge"), ("off the edge", "off_edge"))
        ),
    ]
    recalls = [[kind, *(percent(metrics[key][name]) for name in RECALLS)] for kind, key in KINDS]
    blocks: list[Block] = [
        Table(["", *METRICS], rows, caption="Average precision, by IoU and by size of object", strong=0),
        Table(["", *RECALLS], recalls, caption="Average recall, by detections an image and by size of object"),
    ]
    if "ladder" in metrics:
        blocks += _ladder(metrics["ladder"])
    if compared:
        return [*blocks, comparison_table(compared, published_rows(list(attributes.categories)))]
    published = published_table(metrics["of"]["name"], metrics, list(attributes.categories))
    return blocks if published is None else [*blocks, published]


def _ladder(ladder: dict[str, dict[str, float]]) -> list[Block]:
    own = next(iter(ladder.values()))["AP"]
    rows = [
        [rung, *(percent(values[name]) for name in METRICS), f"{100 * (values['AP'] - own):+.1f}"]
        for rung, values in ladder.items()
    ]
    caption = "What mask AP would be with one thing put right at a time"
    blocks: list[Block] = [Table(["", *METRICS, "gain"], rows, caption=caption, strong=0)]
    if own >= 0:  # COCO's -1: there is no object
        values = {rung: 100 * values["AP"] for rung, values in ladder.items()}
        blocks.append(Figure(gain_plot(values, title="Mask AP with one thing put right at a time, in percent")))
    return blocks


def _comparison_text(attributes: CacheAttributes, of: dict[str, Any]) -> str:
    text = (
        "All values in percent, as pycocotools gives them; s, m and l are COCO's sizes (32² and 96² pixels). "
        "Boundaries: boundary AP (arXiv 2103.16562). Near the edge: mean IoU within 2 % of the box's diagonal of it."
    )
    if published_rows(list(attributes.categories)) and of["images"] != COCO_IMAGES:
        all_of_it = f"all {COCO_IMAGES:,} images of val2017 or of test-dev"
        text += f" The published rows are of {all_of_it}; these are {of['images']:,}."
    return text


def _mistakes(metrics: dict[str, Any], gallery: Gallery) -> list[Block]:
    blocks: list[Block] = []
    for label, key in (("objects", "objects"), ("detections", "detections")):
        counts = metrics["mistakes"][key]
        total = sum(counts.values())
        rows = [[kind, f"{count:,}", percent(count / total if total else None)] for kind, count in counts.items()]
        shades = {(line, 2): round(float(row[2])) for line, row in enumerate(rows) if total}
        blocks.append(Table([label, "number", "%"], rows, caption=f"What became of {total:,} {label}", shades=shades))
    blocks.append(confusion_table(gallery.evaluation.verdicts, gallery.names))
    for kind in MISTAKES:
        pictures = [
            as_picture(gallery.mistake(verdict, judged, kind), alt=gallery.describe(verdict, judged, kind))
            for verdict, judged in gallery.mistakes_of(kind)[:EXAMPLES]
        ]
        if pictures:
            blocks.append(Pictures(pictures, caption=f"{kind.capitalize()}:"))
    return blocks


def confusion_table(verdicts: list[ImageVerdict], names: dict[int, str]) -> Table:
    """Objects (rows) against what they were taken for (columns): of many classes those with the most mistakes."""
    pairs = Counter(pair for verdict in verdicts for pair in verdict.confusion)
    wrong: Counter[int] = Counter()
    for (true, taken), count in pairs.items():
        if true != taken:
            for category in {true, taken} - {None}:
                wrong[category] += count  # type: ignore[index]
    seen = {category for pair in pairs for category in pair if category is not None}
    shown: list[int | None] = [*sorted(sorted(seen), key=lambda category: -wrong[category])[:CONFUSED], None]
    rows: list[list[str]] = []
    shades: dict[tuple[int, int], int] = {}
    for line, true in enumerate(shown):
        total = sum(count for (category, _), count in pairs.items() if category == true)
        values = [pairs[true, taken] for taken in shown]
        rows.append(["nothing" if true is None else names[true], *(f"{value:,}" if value else "" for value in values)])
        shades |= {(line, at + 1): round(100 * value / max(total, 1)) for at, value in enumerate(values)}
    head = ["is \\ taken for", *("missed" if category is None else names[category] for category in shown)]
    some = f"the {CONFUSED} classes with most mistakes" if len(seen) > CONFUSED else "every class"
    return Table(head, rows, caption=f"Confusion, {some}: objects at mask IoU 0.5", shades=shades)


def _mistake_text() -> str:
    return (
        f"Detections with a score of at least {THRESHOLD}. Found: the right class and a mask IoU of 0.5. Bad mask: the "
        "box is right (IoU 0.5), the mask is not. Bad box: the class is right, the box is off (IoU 0.1 to 0.5). "
        "Double: of an object that is found already. Missed: nothing came near."
    )


def _facts(of: dict[str, Any], attributes: CacheAttributes) -> list[tuple[str, str]]:
    named = {
        "name": "what", "file": "head", "sha256": "sha256 of the head", "cache": "cache", "detector": "detector",
        "annotations": "annotations", "images": "images", "objects": "objects", "version": "frozen-cache",
    }  # fmt: skip
    facts = [(label, str(of[key])) for key, label in named.items() if key in of]
    return [
        *facts,
        ("detections an image", str(attributes.top_k)),
        ("precision of the cache", attributes.precision),
        ("encoder layers kept", ", ".join(map(str, attributes.detector.encoder_layers))),
    ]
