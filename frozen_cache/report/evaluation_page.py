"""The report of an evaluation: figures, sizes, classes, curves, mistakes, pictures, and what it was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from frozen_cache.cache.attributes import CacheAttributes
from frozen_cache.evaluation.coco import METRICS, RECALLS
from frozen_cache.evaluation.mistakes import THRESHOLD, ImageVerdict
from frozen_cache.report.figures import line_plot
from frozen_cache.report.gallery import MISTAKES, Gallery, as_picture
from frozen_cache.report.page import Block, Facts, Figure, Page, Section, Table
from frozen_cache.report.page import Gallery as Pictures
from frozen_cache.report.published import published_rows

SHOWN, EXAMPLES, CONFUSED = 4, 3, 12


def evaluation_page(
    metrics: dict[str, Any], gallery: Gallery, attributes: CacheAttributes, *, compared: Table | None = None
) -> Page:
    """The page of one `metrics.json` and its pictures."""
    of = metrics["of"]
    mistakes = metrics["mistakes"]["objects"]
    objects = sum(mistakes.values())
    sections = [
        Section("results", "Results", _results(metrics, attributes, compared), _comparison_text(attributes, of)),
        Section("classes", "Classes", [class_table(metrics)], "AP of each class, the most frequent first."),
        Section("precision", "Precision and recall", _curves(metrics), "How precision falls as more is found."),
        Section("mistakes", "Mistakes", _mistakes(metrics, gallery), _mistake_text()),
        Section("pictures", "Pictures", _pictures(gallery), _picture_text(gallery)),
        Section("made-from", "Made from", [Facts(_facts(of, attributes))]),
    ]
    return Page(
        title=f"Evaluation of {of['name']}",
        lead=f"{of['images']:,} images and {objects:,} objects of {of['annotations']}, detector {of['detector']}.",
        cards=[
            ("Mask AP", percent(metrics["segm"]["AP"]), "mean over IoU 0.5 to 0.95"),
            ("Box AP", percent(metrics["bbox"]["AP"]), "of the frozen detector"),
            ("Mask / box", ratio(metrics["segm"]["AP"], metrics["bbox"]["AP"]), "1 would lose nothing"),
            ("Mean IoU", percent(metrics["mean_iou"]["all"]), "of masks in matched boxes"),
            ("Missed", f"{mistakes['missed']:,}", f"of {objects:,} objects, at score {THRESHOLD}"),
        ],
        sections=sections,
    )


def percent(value: float | None) -> str:
    """0.1234 as `12.3`; a dash where there is nothing to measure."""
    return "–" if value is None or value < 0 else f"{100 * value:.1f}"


def ratio(mask: float, box: float) -> str:
    """mask / box with two digits."""
    return f"{mask / box:.2f}" if mask >= 0 and box > 0 else "–"


def class_table(metrics: dict[str, Any]) -> Table:
    """AP of each class that has objects."""
    rows, shades = [], {}
    known = [entry for entry in metrics["classes"] if entry["objects"]]
    for line, entry in enumerate(sorted(known, key=lambda entry: (-entry["objects"], entry["id"]))):
        values = [percent(entry["segm"][name]) for name in METRICS]
        box = entry["bbox"]["AP"]
        rows.append([entry["name"], f"{entry['objects']:,}", *values, percent(box), ratio(entry["segm"]["AP"], box)])
        shades[line, 2] = round(100 * max(0.0, entry["segm"]["AP"]))
    head = ["class", "objects", *(f"mask {name}" if name == "AP" else name for name in METRICS), "box AP", "mask / box"]
    return Table(head, rows, caption=f"{len(rows)} classes", shades=shades, folded=len(rows) > 15)


def _results(metrics: dict[str, Any], attributes: CacheAttributes, compared: Table | None) -> list[Block]:
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
    recalls = [[kind, *(percent(metrics[key][name]) for name in RECALLS)] for kind, key in _KINDS]
    blocks: list[Block] = [
        Table(["", *METRICS], rows, caption="Average precision, by IoU and by size of object", strong=0),
        Table(["", *RECALLS], recalls, caption="Average recall, by detections an image and by size of object"),
    ]
    if "ladder" in metrics:
        blocks.append(_ladder(metrics["ladder"]))
    if compared is not None:
        blocks.append(compared)
    published = published_rows(list(attributes.categories))
    if published:
        own = [metrics["of"]["name"], "this data", percent(box["AP"]), *(percent(mask[name]) for name in METRICS)]
        others = [
            [row.name, row.split, percent(row.box_ap), *(percent(row.metrics[name]) for name in METRICS)]
            for row in published
        ]
        blocks.append(
            Table(["", "on", "box AP", *METRICS], [own, *others], caption="Beside published results", strong=0)
        )
    return blocks


def _ladder(ladder: dict[str, dict[str, float]]) -> Table:
    own = next(iter(ladder.values()))["AP"]
    rows = [
        [rung, *(percent(values[name]) for name in METRICS), f"{100 * (values['AP'] - own):+.1f}"]
        for rung, values in ladder.items()
    ]
    caption = "What mask AP would be with one thing put right at a time"
    return Table(["", *METRICS, "gain"], rows, caption=caption, strong=0)


_KINDS = (("masks", "segm"), ("boxes", "bbox"))


def _comparison_text(attributes: CacheAttributes, of: dict[str, Any]) -> str:
    text = (
        "All values in percent, as pycocotools gives them; s, m and l are COCO's sizes (32² and 96² pixels). "
        "Boundaries: boundary AP (arXiv 2103.16562). Near the edge: mean IoU within 2 % of the box's diagonal of it."
    )
    if published_rows(list(attributes.categories)) and of["images"] != 5000:
        text += f" The published rows are of all 5,000 images of val2017 or of test-dev; these are {of['images']:,}."
    return text


def _curves(metrics: dict[str, Any]) -> list[Block]:
    series: dict[str, Sequence[tuple[float, float]]] = {}
    for kind, key in _KINDS:
        for name, label in (("mean", f"{kind}, mean"), ("0.50", f"{kind}, IoU 0.50")):
            values = metrics["precision"][key].get(name, [])
            series[label] = [(at / 100, value) for at, value in enumerate(values)]
    plot = line_plot(series, title="Precision over recall", x_label="recall", y_label="precision", y_limits=(0, 1))
    return [Figure(plot, "Mean over classes, at IoU 0.5 and as the mean over IoU 0.5 to 0.95.")]


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


def _pictures(gallery: Gallery) -> list[Block]:
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
    return blocks


def _picture_text(gallery: Gallery) -> str:
    text = "By the mean IoU of an image's objects with their detections; what is missed counts as 0."
    return f"{text} {gallery.photographs.note}".strip()


def _facts(of: dict[str, Any], attributes: CacheAttributes) -> list[tuple[str, str]]:
    named = {
        "name": "what", "file": "head", "sha256": "sha256 of the head", "cache": "cache", "detector": "detector",
        "annotations": "annotations", "images": "images", "objects": "objects", "version": "frozen-cache",
    }  # fmt: skip
    facts = [(label, str(of[key])) for key, label in named.items() if key in of]
    data = attributes.data
    return [
        *facts,
        ("detections an image", str(attributes.top_k)),
        ("precision of the cache", attributes.precision),
        ("encoder layers kept", ", ".join(map(str, attributes.detector.encoder_layers))),
        ("annotated images without a file", str(len(data.missing))),
    ]
