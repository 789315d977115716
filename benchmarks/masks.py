"""What finer edges and averages give on real images: one head, measured as it is and with one thing changed at a time.

    python benchmarks/masks.py --val VAL.zarr [--run RUN ...] [--wider RUN] [--refined RUN]
        [--pasted RUN ...] [--longer RUN ...] [--views-val VAL3.zarr] [--tta-val VAL7.zarr] [--only NAME ...]

RUN are `small-data` heads of different seeds and VAL.zarr the val images, as real_coco.py makes both: nothing is
trained here. `--wider` is a run of the same recipe with `--set head.width=96 --set optim.epochs=3`. `--refined` is a
run with head.refine, measured with its boundary stage and without, the weights being the same. `--pasted` is a run of
real_coco.py's recipe on views with pasted objects (`--only "small-data, copy-paste"`), `--longer` one on 30 such views
of each image, with `--preset best`, which is three times the steps. `--views-val` is a cache of the val images with
three views each, `--tta-val` one made with `extract-features --tta`. The rows of the heads of three seeds want three
runs, that of two the first two of these. No setting was chosen on the val images: radius, epsilon and RoI sizes were
given before. Results: benchmarks/masks.json; rows and seeds that are not measured now stay, and so does "not_kept":
trials whose code went with them (decision 008). Rows that say "filter": "grey values" were measured when the guided
filter was one over these.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conditions import conditions
from torch import Tensor

from frozen_cache.cache.reader import CacheReader
from frozen_cache.cache.view import CachedView
from frozen_cache.evaluation.averaging import MeanSegmenter, ViewsSegmenter
from frozen_cache.evaluation.evaluate import EvaluatedViews, evaluate_cache
from frozen_cache.evaluation.fused import FusedSegmenter, FusedViews
from frozen_cache.evaluation.guided import GuidedSegmenter
from frozen_cache.evaluation.matched_iou import view_object_ious
from frozen_cache.evaluation.object_iou import edge_iou_by_size, mean_iou_by_size
from frozen_cache.evaluation.segmenters import FeatureSegmenter, Segmentation, Segmenter
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.report.photographs import photographs
from frozen_cache.training.checkpoint import load_checkpoint
from frozen_cache.training.run_directory import load_record

RESULT = Path(__file__).with_suffix(".json")
CPU = torch.device("cpu")
SIZES = (24, 32, 48)
AS_IT_IS = "as it is"
GUIDED = "guided filter"
ROI_SIZES = "RoI sizes 24, 32, 48"
BOTH = "RoI sizes 24, 32, 48 and guided filter"
RAW = "weights without their moving average"
VIEWS = "mean of three views"
HEADS, HEADS_GUIDED = "mean of the heads of three seeds", "mean of the heads of three seeds and guided filter"
ALL = "mean of the heads of three seeds and of three views, and guided filter"
VIEWS_EACH, HEADS_EACH = 3, 3
WIDER = "96 channels, half as many steps again"
PASTED, PASTED_GUIDED = "copy-paste views, coded maps", "copy-paste views, coded maps, and guided filter"
PASTED_HEADS = "copy-paste views, coded maps, mean of the heads of three seeds and guided filter"
PASTED_VIEWS = "copy-paste views, coded maps, mean of three views and guided filter"
PASTED_ALL = "copy-paste views, coded maps, mean of the heads of three seeds and of three views, and guided filter"
LONGER = "30 copy-paste views, coded maps, three times the steps"
LONGER_VIEWS = f"{LONGER}, mean of three views and guided filter"
LONGER_HEADS = {
    heads: f"{LONGER}, mean of the heads of {number} seeds and of three views, and guided filter"
    for heads, number in ((2, "two"), (3, "three"))
}
LONGER_SIZES = {
    1: f"{LONGER}, mean of three RoI sizes and three views, and guided filter",
    2: f"{LONGER}, mean of the heads of two seeds, of three RoI sizes and three views, and guided filter",
    3: f"{LONGER}, mean of the heads of three seeds, of three RoI sizes and three views, and guided filter",
}
TTA = "test-time augmentation and guided filter"
PASTED_TTA, LONGER_TTA = f"{PASTED}, {TTA}", f"{LONGER}, {TTA}"
LONGER_TTA_HEADS = {
    heads: f"{LONGER}, mean of the heads of {number} seeds, {TTA}" for heads, number in ((2, "two"), (3, "three"))
}
LONGER_TTA_SIZES = f"{LONGER}, mean of three RoI sizes, {TTA}"
ON_TTA = (PASTED_TTA, LONGER_TTA, *LONGER_TTA_HEADS.values(), LONGER_TTA_SIZES)
COPY_PASTE = (PASTED, PASTED_GUIDED, PASTED_VIEWS, PASTED_HEADS, PASTED_ALL)
ON_VIEWS = (VIEWS, ALL, PASTED_VIEWS, PASTED_ALL, LONGER_VIEWS, *LONGER_HEADS.values(), *LONGER_SIZES.values())
STAGE, NO_STAGE = "boundary stage", "the same weights without the boundary stage"
NAMES = (
    AS_IT_IS,
    GUIDED,
    ROI_SIZES,
    BOTH,
    RAW,
    VIEWS,
    HEADS,
    HEADS_GUIDED,
    ALL,
    WIDER,
    *COPY_PASTE,
    LONGER,
    LONGER_VIEWS,
    *LONGER_HEADS.values(),
    *LONGER_SIZES.values(),
    *ON_TTA,
    NO_STAGE,
    STAGE,
)
OBJECTS_ONLY = (RAW, NO_STAGE, STAGE)
"""Rows gauged by the masks of the objects' matched queries alone, which takes a tenth of the time; no AP."""
BASE = dict.fromkeys((GUIDED, ROI_SIZES, BOTH, RAW, VIEWS, HEADS, HEADS_GUIDED, ALL, WIDER, *COPY_PASTE), AS_IT_IS)
BASE |= {STAGE: NO_STAGE, LONGER: PASTED, LONGER_VIEWS: PASTED_VIEWS}
BASE |= dict.fromkeys(LONGER_HEADS.values(), LONGER_VIEWS)
BASE |= {LONGER_SIZES[1]: LONGER_VIEWS} | {LONGER_SIZES[heads]: name for heads, name in LONGER_HEADS.items()}
BASE |= {PASTED_TTA: PASTED_VIEWS, LONGER_TTA: LONGER_VIEWS, LONGER_TTA_SIZES: LONGER_TTA}
BASE |= dict.fromkeys(LONGER_TTA_HEADS.values(), LONGER_TTA)
"""What a row is compared with, seed by seed; the mean of heads with its first."""
FIGURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "mask_ap": lambda run: run["segm"]["AP"],
    "ap75": lambda run: run["segm"]["AP75"],
    "boundary_ap": lambda run: run["boundary"]["AP"],
    "mean_iou": lambda run: run["mean_iou"]["all"],
    "near_edge": lambda run: run["near_edge"],
}


class Remembering(FeatureSegmenter):
    """It segments the same rows of the same image once."""

    def __init__(self, model: MaskHead, *, encoder_layer: int) -> None:
        super().__init__(model, encoder_layer=encoder_layer, device=CPU)
        self._known: dict[tuple[int, int, bytes], Segmentation] = {}

    def __call__(self, view: CachedView) -> Segmentation:
        """Segment the view's selected pairs."""
        key = view.image_id, view.view, view.boxes[: view.selected].numpy().tobytes()
        if key not in self._known:
            self._known[key] = super().__call__(view)
        return self._known[key]


class Run:
    """The heads that one training gives."""

    def __init__(self, path: Path) -> None:
        self.record = load_record(path)
        self.file = path / "last.safetensors"
        self.seed = self.record.config.seed
        self.sized = {size: self._with(self.head().at_roi_size(size)) for size in SIZES}
        self.own = self.sized[self.record.config.head.roi_size]

    def head(self, *, prefix: str = "head.", stage: bool = True) -> MaskHead:
        """With other weights of the checkpoint, or without the boundary stage."""
        tensors: dict[str, Tensor] = load_checkpoint(self.file, prefix=prefix)[0]
        config = self.record.config.head
        if not stage:
            config = config.model_copy(update={"refine": None})
            tensors = {name: value for name, value in tensors.items() if not name.startswith("boundary.")}
        head = MaskHead(config=config, inputs=self.record.inputs)
        head.load_state_dict(tensors)
        return head

    def changed(self, **options: Any) -> Segmenter:
        """A segmenter of `head(**options)`."""
        return self._with(self.head(**options))

    def _with(self, head: MaskHead) -> Remembering:
        return Remembering(head, encoder_layer=self.record.encoder_layer)


def measured(reader: EvaluatedViews, segmenter: Segmenter, *, seed: int) -> dict[str, Any]:
    """The figures of one evaluation."""
    started = time.process_time()
    found = evaluate_cache(reader, segmenter, object_ious=True, workers=0)
    return {
        "seed": seed,
        "segm": found.metrics["segm"],
        "boundary": found.metrics["boundary"],
        "box_ap": found.metrics["bbox"]["AP"],
        "mean_iou": mean_iou_by_size(found.objects),
        "near_edge": edge_iou_by_size(found.objects)["near_edge"]["all"],
        "off_edge": edge_iou_by_size(found.objects)["off_edge"]["all"],
        "cpu_seconds": round(time.process_time() - started),
    }


def gauged(reader: CacheReader, segmenter: Segmenter, *, seed: int) -> dict[str, Any]:
    """The figures that need the masks of the matched queries alone."""
    started, objects = time.process_time(), []
    layers = () if segmenter.encoder_layer is None else (segmenter.encoder_layer,)
    for at, (_, number) in enumerate(reader.views):
        if number == 0:
            objects += view_object_ious(reader.read(at, encoder_layers=layers, device=segmenter.device), segmenter)
    return {
        "seed": seed,
        "mean_iou": mean_iou_by_size(objects),
        "near_edge": edge_iou_by_size(objects)["near_edge"]["all"],
        "off_edge": edge_iou_by_size(objects)["off_edge"]["all"],
        "cpu_seconds": round(time.process_time() - started),
    }


def row(name: str, runs: list[dict[str, Any]], base: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A line of the result: means over seeds, and what changed from the same seeds without it, where they are known."""
    line: dict[str, Any] = {"what": name, "seeds": len(runs)}
    if all("box_ap" in run for run in runs):
        line["box_ap"] = round(statistics.mean(run["box_ap"] for run in runs), 4)
    figures = {key: value for key, value in FIGURES.items() if name not in OBJECTS_ONLY or "ap" not in key}
    for key, value in figures.items():
        line[key] = round(statistics.mean(map(value, runs)), 4)
    others = {other["seed"]: other for other in base or []}
    pairs = [(run, others[run["seed"]]) for run in runs if run["seed"] in others]
    if pairs:
        line["compared_with"] = BASE[name]
        for key, value in figures.items():
            line[f"{key}_change"] = [round(value(run) - value(other), 4) for run, other in pairs]
    return line | {"runs": runs}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--val", type=Path, required=True)
    for kind in ("run", "wider", "pasted", "longer", "refined"):
        parser.add_argument(f"--{kind}", type=Path, action="extend", nargs="+", default=[])
    parser.add_argument("--views-val", type=Path)
    parser.add_argument("--tta-val", type=Path)
    parser.add_argument("--only", nargs="*", choices=NAMES)
    given = parser.parse_args()
    reader = CacheReader(given.val)
    pictures = photographs(given.val, reader=reader)
    paths = (given.run, given.wider, given.pasted, given.longer, given.refined)
    runs, wider, pasted, longer, refined = ([Run(path) for path in each] for each in paths)

    def guided(segmenter: Segmenter) -> Segmenter:
        return GuidedSegmenter(segmenter, pictures.find)

    segmenters: dict[str, tuple[list[Run], Callable[[Run], Segmenter]]] = {
        AS_IT_IS: (runs, lambda run: run.own),
        GUIDED: (runs, lambda run: guided(run.own)),
        ROI_SIZES: (runs, lambda run: MeanSegmenter(list(run.sized.values()))),
        BOTH: (runs, lambda run: guided(MeanSegmenter(list(run.sized.values())))),
        RAW: (runs, lambda run: run.changed(prefix="raw.")),
        WIDER: (wider, lambda run: run.own),
        PASTED: (pasted, lambda run: run.own),
        PASTED_GUIDED: (pasted, lambda run: guided(run.own)),
        LONGER: (longer, lambda run: run.own),
        NO_STAGE: (refined, lambda run: run.changed(stage=False)),
        STAGE: (refined, lambda run: run.own),
    }
    views = None if given.views_val is None else CacheReader(given.views_val)

    def over_views(segmenter: Segmenter) -> Segmenter:
        return ViewsSegmenter(segmenter, views, views=VIEWS_EACH) if views is not None else segmenter

    def together(heads: list[Run]) -> Segmenter:
        return MeanSegmenter([run.own for run in heads])

    def in_sizes(heads: list[Run]) -> Segmenter:
        return MeanSegmenter([sized for run in heads for sized in run.sized.values()])

    def of_all(mean: Segmenter) -> Callable[[Run], Segmenter]:
        return lambda _: guided(over_views(mean))

    def of_fused(mean: Segmenter) -> Callable[[Run], Segmenter]:
        return lambda _: guided(FusedSegmenter(mean))

    if views is not None:
        segmenters[VIEWS] = (runs, lambda run: over_views(run.own))
        segmenters[PASTED_VIEWS] = (pasted, lambda run: guided(over_views(run.own)))
        segmenters[LONGER_VIEWS] = (longer, lambda run: guided(over_views(run.own)))
        for heads, name in LONGER_HEADS.items():
            if len(longer) >= heads:
                segmenters[name] = (longer[:1], of_all(together(longer[:heads])))
                segmenters[LONGER_SIZES[heads]] = (longer[:1], of_all(in_sizes(longer[:heads])))
        segmenters[LONGER_SIZES[1]] = (longer, lambda run: guided(over_views(in_sizes([run]))))
    fused = None if given.tta_val is None else FusedViews(CacheReader(given.tta_val))
    if fused is not None:
        segmenters[PASTED_TTA] = (pasted, lambda run: guided(FusedSegmenter(run.own)))
        segmenters[LONGER_TTA] = (longer, lambda run: guided(FusedSegmenter(run.own)))
        segmenters[LONGER_TTA_SIZES] = (longer, lambda run: guided(FusedSegmenter(in_sizes([run]))))
        for heads, name in LONGER_TTA_HEADS.items():
            if len(longer) >= heads:
                segmenters[name] = (longer[:1], of_fused(together(longer[:heads])))
    if len(runs) == HEADS_EACH:
        segmenters[HEADS] = (runs[:1], lambda _: together(runs))
        segmenters[HEADS_GUIDED] = (runs[:1], lambda _: guided(together(runs)))
        if views is not None:
            segmenters[ALL] = (runs[:1], of_all(together(runs)))
    if len(pasted) == HEADS_EACH:
        segmenters[PASTED_HEADS] = (pasted[:1], lambda _: guided(together(pasted)))
        if views is not None:
            segmenters[PASTED_ALL] = (pasted[:1], of_all(together(pasted)))
    report: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {"rows": []}
    report["conditions"] = {"recipe": "small-data", "train_images": 209, "val_images": 206} | conditions()
    rows = {line["what"]: line for line in report["rows"]}
    for name in given.only or NAMES:
        mine, make = segmenters.get(name, ([], None))
        if make is None or not mine:
            continue
        source: EvaluatedViews = views if name in ON_VIEWS and views is not None else reader
        source = fused if name in ON_TTA and fused is not None else source
        known = {run["seed"]: run for run in rows.get(name, {}).get("runs", [])}
        for run in mine:
            segmenter = make(run)
            known[run.seed] = (
                gauged(reader, segmenter, seed=run.seed)
                if name in OBJECTS_ONLY
                else measured(source, segmenter, seed=run.seed)
            )
            if mine is not runs:
                config = run.record.config
                head = config.head.model_dump(mode="json", exclude_defaults=True)
                known[run.seed]["training"] = {"epochs": config.optim.epochs, "head": head}
        base = rows.get(BASE.get(name, ""), {}).get("runs")
        rows[name] = row(name, [known[seed] for seed in sorted(known)], base)
        print({key: value for key, value in rows[name].items() if key != "runs"}, flush=True)
        report["rows"] = [rows[each] for each in NAMES if each in rows]
        RESULT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
