"""COCO metrics of a head or a baseline on a cache, its report, and comparisons."""

from __future__ import annotations

import json
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from frozen_cache.cache.reader import CacheReader
from frozen_cache.device import pick_device
from frozen_cache.durable import write_durably
from frozen_cache.errors import UserError
from frozen_cache.evaluation.coco import METRICS
from frozen_cache.evaluation.compare import Compared, check_results, compare, read_results
from frozen_cache.evaluation.evaluate import EvaluatedViews, evaluate_cache
from frozen_cache.evaluation.fused import FusedViews
from frozen_cache.evaluation.prompted import PromptedSegmenter
from frozen_cache.evaluation.scorers import CocoApi
from frozen_cache.evaluation.segmenters import Segmenter
from frozen_cache.evaluation.summary import summary
from frozen_cache.evaluation.truth import refuse_without_masks
from frozen_cache.finite_json import finite_json
from frozen_cache.inference.any_head import head_record
from frozen_cache.ownership import Ownership, content_names
from frozen_cache.remote import CachePath
from frozen_cache.report.data_section import head_facts
from frozen_cache.report.evaluation_page import evaluation_page
from frozen_cache.report.gallery import Gallery
from frozen_cache.report.page import Block, Facts, write_page
from frozen_cache.report.photographs import Photographs, photographs
from frozen_cache.stages.baselines import check_choice
from frozen_cache.stages.segmenter import all_heads, cache_for, make_segmenter

OUTPUTS = ("metrics.json", "segm_results.json", "bbox_results.json", "report.html", "compare.json")


def ap_text(value: float) -> str:
    """AP or AR in 0..1 with three digits; a dash for the -1 of COCO, where there is no object."""
    return "–" if value < 0 else f"{value:.3f}"


@dataclass(frozen=True)
class EvaluateResult:
    """What `metrics.json` holds, AP in 0..1."""

    what: str
    metrics: dict[str, dict[str, float]]
    """AP and AR by kind (`segm`, `bbox`, `boundary`)."""
    summary: dict[str, Any]
    """All of `metrics.json`."""
    compared: list[Compared]
    """With `compare`: this evaluation, then the others."""

    def table(self) -> str:
        """The metrics as text, with mask AP / box AP, and what was measured besides."""
        lines = [f"{self.what}", *self._note(), f"{'':8}" + "".join(f"{name:>8}" for name in METRICS)]
        for kind in ("segm", "bbox", "boundary"):
            lines.append(f"{kind:8}" + "".join(f"{ap_text(self.metrics[kind][name]):>8}" for name in METRICS))
        if any(self.metrics["segm"][name] < 0 for name in METRICS):
            lines.append("–: there is no object of that size")
        box, mask = self.metrics["bbox"]["AP"], self.metrics["segm"]["AP"]
        lines.append(f"mask AP / box AP: {mask / box:.3f}" if box > 0 else "mask AP / box AP: no box AP")
        iou, mistakes = self.summary["mean_iou"]["all"], self.summary["mistakes"]
        lines.append(
            "mean mask IoU: no matched object" if iou is None else f"mean mask IoU in matched boxes: {iou:.3f}"
        )
        edge = {name: values["all"] for name, values in self.summary["edge_iou"].items() if name != "band"}
        if edge["near_edge"] is not None and edge["off_edge"] is not None:
            band = self.summary["edge_iou"]["band"]
            lines.append(
                f"within {100 * band:g} % of the box's diagonal of the edge: {edge['near_edge']:.3f}; "
                f"elsewhere: {edge['off_edge']:.3f}"
            )
        if cost := self.summary.get("cost"):
            lines.append("the prompted model: " + ", ".join(f"{value} {name}" for name, value in _cost_facts(cost)))
        kinds = ", ".join(f"{kind} {count}" for kind, count in mistakes["objects"].items())
        lines.append(f"at score {mistakes['threshold']}: {kinds}")
        ladder = self.summary.get("ladder", {})
        lines += ["mask AP with one thing put right:"] if ladder else []
        lines += [f"{ap_text(metrics['AP']):>8}  {rung}" for rung, metrics in ladder.items()]
        for row in self.compared:
            other = row.difference
            text = "" if other is None else f"; {other.value:+.3f} ({other.low:+.3f} to {other.high:+.3f})"
            lines.append(f"AP {row.ap.value:.3f} ({row.ap.low:.3f} to {row.ap.high:.3f}){text}  {row.name}")
        return "\n".join(lines)

    def _note(self) -> list[str]:
        models = self.summary["of"].get("masks_from", [])
        return [f"compared with masks that {', '.join(models)} made from boxes, not with drawn ones"] if models else []


def evaluate(
    *,
    cache: CachePath,
    out: Path,
    head: Path | Sequence[Path] | None = None,
    baseline: str | None = None,
    prompter: str | None = None,
    roi_sizes: Sequence[int] = (),
    views: int = 1,
    tta: bool = False,
    guided: bool = False,
    device: str = "auto",
    images: Path | None = None,
    others: Sequence[Path] = (),
    overwrite: bool = False,
    ladder: bool = False,
    coco_api: CocoApi = "pycocotools",
    workers: int | None = None,
    mixed_precision: str = "no",
    threshold: float = 0.0,
) -> EvaluateResult:
    """Evaluate on the plain views of `cache`; write metrics, COCO result files and a report into `out`.

    Args:
        head: run directory, checkpoint or exported folder, masks of several are averaged; or `baseline`.
        prompter: with the baseline `prompted`: `hf:DIR_OR_HUB_ID` of a model that makes masks of boxes.
        roi_sizes: average each head's masks at these sides of the RoI; none for its own.
        views: average over so many cached views of each image.
        tta: fuse the detections of all views of each image, of a cache that was extracted for it, and average masks.
        guided: masks take over the edges of the pictures (guided filter).
        images: folder of the pictures, for the report, `guided` and `prompted`; None for where the cache was made.
        others: folders of `evaluate` or COCO result files to compare with, on the same images.
        overwrite: replace the results of something else in `out`.
        ladder: also measure what AP would be with one thing put right at a time.
        coco_api: what computes AP: pycocotools, or hotcoco (extra `fast-eval`).
        workers: processes beside this one that paste and compare masks; None for as many as pay.
        mixed_precision: of heads: `no`, `bf16`, `fp16`, `auto`.
        threshold: detections whose boxes have a lower score are left out, in all that is measured.
    """
    given = _subject(
        cache=cache,
        head=head,
        baseline=baseline,
        prompter=prompter,
        roi_sizes=roi_sizes,
        views=views,
        tta=tta,
        guided=guided,
        device=device,
        images=images,
        mixed_precision=mixed_precision,
        threshold=threshold,
    )
    reader, of = given.reader, given.of
    refuse_without_masks(reader.attributes, cache)
    with Ownership(out) as owner:
        check_out(out, of | {"cache_fingerprint": reader.attributes.fingerprint}, overwrite=overwrite)
        named = {str(path): read_results(path) for path in others}
        started = time.perf_counter()
        evaluation = evaluate_cache(
            given.views,
            given.segmenter,
            object_ious=True,
            ladder=ladder,
            coco_api=coco_api,
            workers=workers,
            folder=out,
            threshold=threshold,
        )
        seconds = time.perf_counter() - started
        for name, results in named.items():
            check_results(name, results, evaluation.truth)
        rows = compare(evaluation.truth, {of["name"]: evaluation.results.all(), **named}) if named else []
        metrics = summary(evaluation, reader, of=of)
        if isinstance(given.segmenter, PromptedSegmenter):
            metrics["cost"] = _cost(given.segmenter, device)
        files: dict[str, Any] = {
            **({"compare.json": [asdict(row) for row in rows]} if rows else {}),
            "metrics.json": metrics,
        }
        texts = {  # all of them before the first is written
            name: finite_json(values, path=out / name, indent=2) for name, values in files.items()
        }
        owner.check()
        gallery = Gallery(evaluation, given.pictures)
        head_blocks: list[Block] = [Facts(_cost_facts(metrics["cost"]))] if "cost" in metrics else []
        if len(given.heads) == 1:
            head_blocks = head_facts(
                head_record(given.heads[0]),
                image_size=reader.resized_size(0),
                boxes=reader.attributes.top_k,
                seconds_a_view=seconds / len(evaluation.verdicts),
            )
        page = evaluation_page(metrics, gallery, reader.attributes, compared=rows, head=head_blocks)
        write_page(out / "report.html", page)
        for kind in ("bbox", "segm"):
            evaluation.results.write(kind, out / f"{kind}_results.json")
        for name, text in texts.items():
            write_durably(out / name, (text + "\n").encode())
    return EvaluateResult(what=of["name"], metrics=evaluation.metrics, summary=metrics, compared=rows)


def write_submission(
    *,
    cache: CachePath,
    out: Path,
    name: str,
    head: Path | Sequence[Path] | None = None,
    baseline: str | None = None,
    prompter: str | None = None,
    roi_sizes: Sequence[int] = (),
    views: int = 1,
    tta: bool = False,
    guided: bool = False,
    device: str = "auto",
    workers: int | None = None,
    images: Path | None = None,
    mixed_precision: str = "no",
    threshold: float = 0.0,
) -> Path:
    """The masks of all images in the form of COCO's evaluation server for test-dev; ground truth plays no part.

    Returns:
        `detections_test-dev2017_NAME_results.zip` in `out`, which holds the JSON file of that name.
    """
    if not name or not all(letter.isalnum() or letter in "-." for letter in name):
        raise UserError(f"--test-dev {name}: the name goes into COCO's file name; use letters, digits, - and .")
    given = _subject(
        cache=cache,
        head=head,
        baseline=baseline,
        prompter=prompter,
        roi_sizes=roi_sizes,
        views=views,
        tta=tta,
        guided=guided,
        device=device,
        images=images,
        mixed_precision=mixed_precision,
        threshold=threshold,
    )
    stem = f"detections_test-dev2017_{name}_results"
    archive = out / f"{stem}.zip"
    if archive.exists():
        raise UserError(f"{archive} exists already: choose another name")
    with Ownership(out) as owner:
        results = evaluate_cache(given.views, given.segmenter, workers=workers, threshold=threshold).results
        owner.check()
        with tempfile.TemporaryDirectory() as folder:
            results.write("segm", Path(folder) / f"{stem}.json")
            with zipfile.ZipFile(archive, "w", compression=zipfile.ZIP_DEFLATED) as file:
                file.write(Path(folder) / f"{stem}.json", f"{stem}.json")
    return archive


@dataclass(frozen=True)
class _Subject:
    """What is evaluated, and on what."""

    heads: list[Path]
    reader: CacheReader
    segmenter: Segmenter
    views: EvaluatedViews
    """What the segmenter segments."""
    of: dict[str, Any]
    """What to call it (`make_segmenter`)."""
    pictures: Photographs


def _subject(
    *,
    cache: CachePath,
    head: Path | Sequence[Path] | None,
    baseline: str | None,
    prompter: str | None,
    roi_sizes: Sequence[int],
    views: int,
    tta: bool,
    guided: bool,
    device: str,
    images: Path | None,
    mixed_precision: str,
    threshold: float,
) -> _Subject:
    if not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold}: give a number from 0 to 1")
    heads = all_heads(head)
    check_choice(heads, baseline, prompter)
    reader = cache_for(heads, cache)
    pictures = photographs(cache, images, reader=reader)
    segmenter, of = make_segmenter(
        reader,
        cache=cache,
        heads=heads,
        baseline=baseline,
        device=device,
        roi_sizes=roi_sizes,
        views=views,
        tta=tta,
        guide=pictures if guided else None,
        prompter=prompter,
        pictures=pictures,
        mixed_precision=mixed_precision,
    )
    if threshold:
        of["name"] += f", scores from {threshold:g}"
    return _Subject(
        heads=heads,
        reader=reader,
        segmenter=segmenter,
        views=FusedViews(reader) if tta else reader,
        of=of,
        pictures=pictures,
    )


def _cost(segmenter: PromptedSegmenter, device: str) -> dict[str, Any]:
    """What the baseline costs besides the detector, by the clock of this machine."""
    return {
        "parameters": segmenter.prompter.parameters,
        "seconds_an_image": segmenter.seconds_an_image,
        "device": str(pick_device(device)),
        "threads": torch.get_num_threads(),
    }


def _cost_facts(cost: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [("parameters", f"{cost['parameters']:,}")]
    if cost["seconds_an_image"] is not None:
        where = f"{cost['device']}, {cost['threads']} threads" if cost["device"] == "cpu" else cost["device"]
        facts.append((f"seconds an image ({where})", f"{cost['seconds_an_image']:.3f}"))
    return facts


def check_out(out: Path, of: dict[str, Any], *, overwrite: bool) -> None:
    """UserError where `out` holds other things, or the results of something else."""
    # A kill can leave behind what was being written aside: `.metrics.json.1234`.
    aside = tuple(f".{name}." for name in OUTPUTS)
    names = content_names(out)
    foreign = [name for name in names if name not in OUTPUTS and not name.startswith(aside)]
    if foreign:
        raise UserError(f"--out {out} exists and holds other things ({foreign[0]}): choose another path")
    there = _made_from(out / "metrics.json")
    if any(name in names for name in OUTPUTS) and not overwrite and not _same(there, of):
        named = "" if there is None else f" ({there.get('name')} on {there.get('cache')})"
        raise UserError(
            f"--out {out} holds the results of something else{named}: choose another path, or add --overwrite"
        )


def _same(there: dict[str, Any] | None, of: dict[str, Any]) -> bool:
    keys = ("name", "sha256", "cache_fingerprint")
    return there is not None and all(there.get(key) == of.get(key) for key in keys)


def _made_from(file: Path) -> dict[str, Any] | None:
    try:
        of = json.loads(file.read_bytes())["of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return of if isinstance(of, dict) else None
