"""Put the results into README and docs, between their markers: `python benchmarks/fill_pages.py [--check]`."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGES = [HERE.parent / "README.md", *sorted((HERE.parent / "docs").rglob("*.md"))]

PAPER_HOURS = {"hdetr-r50": 49, "hdetr-swin-l": 172, "dino-focalnet-l": 136}
"""Mask Frozen-DETR's own training times, in hours of a V100."""
PAPER_EPOCHS = 6
TRAIN2017 = 118_287
"""Images."""
BANDWIDTH = {"V100": 900, "RTX 4090": 1008, "H100": 3350}
"""Memory bandwidth by the makers' data sheets (SXM2, desktop, SXM5), GB/s."""
NVME = 3000
"""MB/s that one NVMe drive reads."""


def load(name: str) -> Any:
    """A benchmark's result."""
    return json.loads((HERE / f"{name}.json").read_text())


def demo_table() -> str:
    """What `make demo` ends with, but for its times, which are the machine's."""
    demo = load("demo")
    return table(
        ("on 60 unseen scenes of the demo", "AP"),
        [
            ("box AP of the frozen detector", f"{demo['box_ap']:.3f}"),
            ("mask AP of the trained head", f"{demo['mask_ap']:.3f}"),
            ("mask AP, training-free baseline", f"{demo['training_free_ap']:.3f}"),
            ("mask AP, filled boxes", f"{demo['box_baseline_ap']:.3f}"),
        ],
    )


def real_table() -> str:
    """Mask AP on real images."""
    real = load("real_coco")
    conditions = real["conditions"]
    rows = [
        (
            row["recipe"],
            f"{row['mask_ap_mean']:.3f}",
            f"{row['mask_ap_min']:.3f} to {row['mask_ap_max']:.3f}",
            f"{row['mean_iou']:.3f}",
            row["seeds"],
        )
        for row in real["summary"]
    ]
    masks = {row["what"]: row for row in load("masks")["rows"]}
    for name, what in (
        ("small-data, copy-paste views", "copy-paste views, coded maps"),
        (
            "small-data, copy-paste views; mean of three views, guided filter",
            "copy-paste views, coded maps, mean of three views and guided filter",
        ),
        (
            "best: 30 copy-paste views, three times the steps; mean of three views, guided filter",
            "30 copy-paste views, coded maps, three times the steps, mean of three views and guided filter",
        ),
        (
            "best: 30 copy-paste views, three times the steps; mean of three RoI sizes and three views, guided filter",
            "30 copy-paste views, coded maps, three times the steps, mean of three RoI sizes and three views, and "
            "guided filter",
        ),
        (
            "small-data, copy-paste views; test-time augmentation, guided filter",
            "copy-paste views, coded maps, test-time augmentation and guided filter",
        ),
        (
            "best: 30 copy-paste views, three times the steps; test-time augmentation, guided filter",
            "30 copy-paste views, coded maps, three times the steps, test-time augmentation and guided filter",
        ),
    ):
        if (row := masks.get(what)) is None:
            continue
        aps = [run["segm"]["AP"] for run in row["runs"]]
        spread = f"{min(aps):.3f} to {max(aps):.3f}"
        name += f" (box AP {row['box_ap']:.3f})" if "box_ap" in row else ""
        rows.insert(0, (name + of_grey(row), f"{row['mask_ap']:.3f}", spread, f"{row['mean_iou']:.3f}", row["seeds"]))
    for name, baseline in (("filled boxes", "box"), ("training-free", "training-free")):
        rows.append((name, f"{real['baselines'][baseline]['segm']['AP']:.3f}", "", "", ""))
    minutes = max(run["train_minutes"] for run in real["runs"])
    return (
        f"With DEIMv2-Atto (0.49 M parameters, box AP {real['baselines']['box']['bbox']['AP']:.3f} there), "
        f"{conditions['views']} views of {conditions['train_images']} COCO images for training and "
        f"{conditions['val_images']} others to measure, at most {minutes:.0f} minutes of training on one CPU core "
        "(`best`: 30 views and three times the steps):\n\n"
        + table(("recipe", "mask AP", "range", "mean IoU", "seeds"), rows)
    )


def choices_table() -> str:
    """What each choice of the small-data preset gives."""
    found = load("small_data")["rows"]
    whole = {row["epochs"]: row["mean_iou"] for row in found if not row["set"] and row["change"].endswith("preset")}
    rows = [
        (
            row["change"],
            f"{row['epochs']:g}",
            f"{row['mean_iou']:.3f}",
            f"{row['mean_iou'] - whole[row['epochs']]:+.3f}",
        )
        for row in found
    ]
    return (
        "The preset with one choice changed at a time, one seed; the gauge is the mean IoU of the masks in matched "
        "boxes, which is steadier than AP. What holds off overfitting shows only at the full length, 2 epochs:\n\n"
        + table(("change", "epochs", "mean IoU", "difference"), rows)
    )


def of_grey(row: dict[str, Any]) -> str:
    """What to say of a row of masks.json that was measured before the guided filter was one over colours."""
    return " over grey values" if row.get("filter") == "grey values" else ""


def masks_table() -> str:
    """What the guided filter, averages, pasted objects and the boundary stage give."""
    rows = []
    measured = load("masks")
    for row in [*measured["rows"], *measured.get("not_kept", [])]:
        cells: list[Any] = [row["what"] + of_grey(row), row["seeds"]]
        for key in ("mask_ap", "ap75", "boundary_ap", "mean_iou"):
            steps = row.get(f"{key}_change", [])
            change = f" ({sum(steps) / len(steps):+.4f})" if steps else ""
            cells.append(f"{row[key]:.4f}{change}" if key in row else "")
        rows.append(tuple(cells))
    return (
        "A `small-data` head on the same 206 images, nothing chosen on them; in brackets the change from the row that "
        "it is compared with, the weights being the same where nothing is trained anew. From one seed to the next mask "
        "AP moves by up to 0.003:\n\n" + table(("what", "seeds", "mask AP", "AP75", "boundary AP", "mean IoU"), rows)
    )


WITH_TTA = "`--tta --guided`"
IN_SIZES = "`--views 3 --roi-sizes 24,32,48 --guided`"
BEST_ROWS = {
    "copy-paste views, coded maps": ("`small-data`, 10 copy-paste views", 1, ""),
    "copy-paste views, coded maps, mean of three views and guided filter": (
        "`small-data`, 10 copy-paste views",
        1,
        "`--views 3 --guided`",
    ),
    "copy-paste views, coded maps, test-time augmentation and guided filter": (
        "`small-data`, 10 copy-paste views",
        1,
        WITH_TTA,
    ),
    "30 copy-paste views, coded maps, three times the steps": ("`best`, 30 copy-paste views", 1, ""),
    "30 copy-paste views, coded maps, three times the steps, mean of three views and guided filter": (
        "`best`, 30 copy-paste views",
        1,
        "`--views 3 --guided`",
    ),
    "30 copy-paste views, coded maps, three times the steps, mean of the heads of two seeds and of three views, "
    "and guided filter": ("`best`, 30 copy-paste views", 2, "`--views 3 --guided`"),
    "30 copy-paste views, coded maps, three times the steps, mean of the heads of three seeds and of three views, "
    "and guided filter": ("`best`, 30 copy-paste views", 3, "`--views 3 --guided`"),
    "30 copy-paste views, coded maps, three times the steps, mean of three RoI sizes and three views, and guided "
    "filter": ("`best`, 30 copy-paste views", 1, IN_SIZES),
    "30 copy-paste views, coded maps, three times the steps, mean of the heads of two seeds, of three RoI sizes and "
    "three views, and guided filter": ("`best`, 30 copy-paste views", 2, IN_SIZES),
    "30 copy-paste views, coded maps, three times the steps, mean of the heads of three seeds, of three RoI sizes and "
    "three views, and guided filter": ("`best`, 30 copy-paste views", 3, IN_SIZES),
    "30 copy-paste views, coded maps, three times the steps, test-time augmentation and guided filter": (
        "`best`, 30 copy-paste views",
        1,
        WITH_TTA,
    ),
    "30 copy-paste views, coded maps, three times the steps, mean of three RoI sizes, test-time augmentation and "
    "guided filter": ("`best`, 30 copy-paste views", 1, "`--tta --roi-sizes 24,32,48 --guided`"),
    "30 copy-paste views, coded maps, three times the steps, mean of the heads of two seeds, test-time augmentation "
    "and guided filter": ("`best`, 30 copy-paste views", 2, WITH_TTA),
    "30 copy-paste views, coded maps, three times the steps, mean of the heads of three seeds, test-time augmentation "
    "and guided filter": ("`best`, 30 copy-paste views", 3, WITH_TTA),
}
"""Row of masks.json -> how it was trained, the heads whose masks are averaged, how it was measured."""


def best_table() -> str:
    """What the best masks from few images take and give."""
    measured = {row["what"]: row for row in load("masks")["rows"]}
    rows = []
    for what, (trained, heads, how) in BEST_ROWS.items():
        if what in measured:
            row = measured[what]
            boxes = row.get("box_ap", load("real_coco")["baselines"]["box"]["bbox"]["AP"])
            figures = (f"{row[key]:.4f}" for key in ("mask_ap", "ap75", "boundary_ap", "mean_iou"))
            seeds = row["seeds"] if heads == 1 else ""
            rows.append((trained, heads, how + of_grey(row), seeds, f"{boxes:.3f}", *figures))
    head = ("trained with", "heads", "measured with", "seeds", "box AP", "mask AP", "AP75", "boundary AP", "mean IoU")
    return (
        "209 training images of COCO, DEIMv2-Atto, measured on 206 others; of several seeds the mean, one head at a "
        "time:\n\n" + table(head, rows)
    )


def tta_table() -> str:
    """What views and overlaps of test-time augmentation were compared."""
    choice, keys = load("tta")["choice"], ("AP", "AP75", "APs", "APm", "APl")

    def line(row: dict[str, Any]) -> list[str]:
        return [f"{row['box'][key]:.3f}" for key in keys]

    views = [(row["views"], row["passes"], *line(row)) for row in choice["views"]]
    overlaps = [(f"{row['same_iou']:g}", *line(row)) for row in choice["overlaps"]]
    return (
        f"{choice['images']} training images, box AP of DEIMv2-Atto:\n\n"
        + table(("views beside the plain one", "passes", *keys), views)
        + "\n\nMirrored and five tiles of 0.6, by the overlap from which boxes are fused:\n\n"
        + table(("IoU", *keys), overlaps)
    )


def tta_demo() -> str:
    """What it gives on the demo."""
    demo = load("tta")["demo"]
    rows = [
        (what, *(f"{demo[key][f'{kind}_ap']:.3f}" for kind in ("bbox", "segm", "boundary")))
        for what, key in (("", "plain"), ("`--tta`", "tta"))
    ]
    return f"The demo's head on {demo['scenes']} unseen scenes (D-FINE):\n\n" + table(
        ("", "box AP", "mask AP", "boundary AP"), rows
    )


def tta_cost() -> str:
    """What it costs to predict with it."""
    cost = load("tta")["cost"]
    over = cost["over_plain"]
    return (
        f"`predict` on {cost['pictures']} pictures from a score of {cost['threshold']:g}, by CPU time: `--views 3` "
        f"takes {over['views']:.1f} times, `--tta` {over['tta']:.1f} times what it takes without."
    )


TRIALS = {
    "maps of the input's own scale": ("none: maps of the input's own scale", ""),
    "another seed": ("none, another seed", "what is noise"),
    "C1 and added maps of twice the side": ("C1 and added maps of twice the side (`head.c1_scale=2`)", "was there"),
    "zoom": (
        "C1 and added maps of a crop of each box from the original image (`head.zoom=128`)",
        "kept, off unless asked for",
    ),
    "zoom of colours: three learned convolutions in place of the stem": (
        "such a crop's colours, three learned convolutions in place of the stem",
        "noise; not built",
    ),
    "not kept: zoom of C1 alone": ("C1 alone of such crops", "gave way to that with the added maps"),
    "not kept: cells at edges weigh three times as much in the loss": (
        "cells at edges weigh three times as much in the loss",
        "noise, near the edge little above it; deleted",
    ),
    "not kept: the classes of a view's places as a side task": (
        "the classes of a view's places as a side task",
        "deleted",
    ),
    "not kept: RoIs of 24, 32 and 48 cells in training": ("RoIs of 24, 32 and 48 cells in training", "deleted"),
    "dice weighs twice as much": (
        "dice weighs twice as much as BCE (`loss.dice=10`)",
        "noise, near the edge little above it; the default stays",
    ),
    "dice weighs half as much": ("dice weighs half as much as BCE (`loss.dice=2.5`)", "noise"),
    "256 points, 3 of 4 the most uncertain": (
        "the loss at 256 points, three of four the least certain (`loss.supervision=points`)",
        "noise; the preset keeps all cells",
    ),
    "colours of four of five training views drawn anew": (
        "colours of four of five training views drawn anew before the detector runs (times 0.6 to 1.4; hue 18 degrees)",
        "noise; not built",
    ),
    "256 points, all at random": ("the same, all points at random (`loss.importance=0`)", ""),
}
"""Row of zoom.json -> what was changed, what became of it."""


def trials_table() -> str:
    """What changes to a short training give."""
    measured = {row["what"]: row for row in load("zoom")["rows"]}
    plain = measured["maps of the input's own scale"]
    rows = []
    for what, (change, verdict) in TRIALS.items():
        if what in measured:
            found = [(measured[what][part], plain[part]) for part in ("dev", "val")]
            pairs = [(mine["mean_iou"]["all"], base["mean_iou"]["all"]) for mine, base in found]
            pairs += [(mine["near_edge"], base["near_edge"]) for mine, base in found]
            cells = (f"{mine:.3f}" if what == plain["what"] else f"{mine - base:+.3f}" for mine, base in pairs)
            rows.append((change, *cells, verdict))
    head = ("change", "mean IoU, `dev`", "val", "near the edge, `dev`", "val", "")
    steps = plain["steps"]
    return f"{steps} steps, one seed; below the first row, differences from it:\n\n" + table(head, rows)


def cost_table() -> str:
    """Bytes, speed, memory, size of the head."""
    rows = [
        (
            f"cache in {row['precision']}, DEIMv2-Atto at 320 x 320, backbone maps at 640 x 640",
            f"{row['bytes_per_view'] / 1e6:.1f} MB a view; mask AP {row['mask_ap']:.3f}",
        )
        for row in load("precision")["rows"]
    ]
    paper = load("paper_tables")
    final = next(row for row in paper["rows"] if row["row"] == "+ mask scoring")
    size = " x ".join(map(str, final["image_size"]))
    rows.append(
        (
            "mask head for H-DETR R50, the paper's final form",
            f"{final['parameters']:,} parameters, {final['gmacs']:.1f} GMACs at {size}",
        )
    )
    for name, render in (("extract", extract_rows), ("memory", memory_rows)):
        if (HERE / f"{name}.json").is_file():
            rows += render(load(name))
    return table(("what", "cost"), rows)


def extract_rows(result: Any) -> list[tuple[str, str]]:
    """Overhead of the cache over the bare detector."""
    detector = result["conditions"]["detector"]
    return [
        (
            f"extraction, {detector}, on {result['conditions']['device']}",
            f"{100 * result['overhead']:+.0f} % time against the bare detector (limit +{100 * result['limit']:.0f} %)",
        )
    ]


def memory_rows(result: Any) -> list[tuple[str, str]]:
    """Peak memory of extraction."""
    return [
        (f"memory to extract a 1333 x 800 image, {case['detector']}, on the CPU", f"{case['peak_gb']:.1f} GB")
        for case in result["cases"]
    ]


def size_table() -> str:
    """What each precision costs in bytes and mask AP, on real maps."""
    found = load("cache_size")
    bits = {row["name"]: row for part in ("bits", "read_through", "runs") for row in found[part]}
    read = {row["name"]: row["mask_ap"] for row in found["read_through"]}
    trained = {row["name"]: row for row in found["summary"]}
    trained["float16"] = next(row for row in load("masks")["rows"] if row["what"] == "as it is")
    rows = []
    for name, row in bits.items():
        levels = row["bits"].get("encoder/1")
        ap = trained.get(name)
        rows.append(
            (
                coding(name),
                f"{row['bits']['c1']:.1f}" if "c1" in row["bits"] else "recomputed",
                f"{levels:.1f}",
                f"{row['mb_per_view']:.2f}",
                "" if name not in read else f"{read[name]:.4f}",
                "" if ap is None else f"{ap['mask_ap']:.4f} ({ap['seeds']})",
                "" if ap is None else f"{ap['mean_iou']:.4f}",
            )
        )
    head = ("precision", "bits a value: C1", "other maps", "MB a view", "mask AP, read through", "trained on it", "IoU")
    return (
        "Measured with DEIMv2-Atto and the `small-data` recipe, trained on 209 images of COCO, on 206 others. *Read "
        "through*: one head, trained on float16, that sees other precisions only then. *Trained on it*: heads of its "
        "own, the mean of as many seeds as stand in brackets, which move by up to 0.003:\n\n" + table(head, rows)
    )


def coding(name: str) -> str:
    """A row of the curve as the command line names it."""
    return re.sub(r"coded ([0-9.]+)", r"`coded`, `--step \1`", name) if "coded" in name else f"`{name}`"


SHOWN = ("float16", "int8", "coded 1", "coded 1.5")
"""Rows of the projection."""


def projection_table() -> str:
    """MB a view and GB of train2017 of three official detectors."""
    found = [row for row in load("cache_size")["projection"] if row["name"] in SHOWN]
    rows = [
        (
            row["detector"],
            coding(row["name"]),
            f"{row['mb_c1_stored']:.1f}",
            f"{row['gb_train2017_c1_stored']:,}",
            f"{row['mb_c1_recomputed']:.1f}",
            f"{row['gb_train2017_c1_recomputed']:,}",
        )
        for row in found
    ]
    head = ("detector", "precision", "MB a view, C1 stored", "GB", "MB a view, C1 recomputed", "GB")
    r50 = load("cache_size_r50")
    one = next(row for row in r50["rows"] if row["step"] == 1)
    same = sorted({row["detector"] for row in found if row["mb_c1_stored"] == row["mb_c1_recomputed"]})
    finest = (
        f"\n\n`{'`, `'.join(same)}` has a finest level of stride 4 and no C1 beside it: nothing is left to recompute."
    )
    return (
        "By arithmetic, one view of each of the 118,287 images of train2017 at 800 / 1333: sizes of maps for images as "
        "large as the 206 measured above, whose files are taken too; bits a value of the encoder's levels those of "
        "normal noise as zstd packs it (what ends in a LayerNorm is near that), of C1 those measured above:\n\n"
        + table(head, rows)
        + f"\n\nMeasured is H-DETR R50 with random weights, on {r50['views']} images, C1 recomputed, step 1: "
        f"{one['mb_per_view']:.2f} MB a view ({one['mb_per_view_levels_as_noise']:.2f} with levels like normal noise), "
        f"{one['mb_of']['images']:.2f} of it the image's file and {one['mb_of']['rows']:.2f} queries and boxes. The "
        f"bits a value of its levels ({one['bits']['encoder/4']:.1f}) are not those of trained weights."
        + (finest if same else "")
    )


def read_table() -> str:
    """What reading a view costs beside its bytes, and what two threads give."""
    found = load("cache_read")
    rows = []
    for row in found["rows"]:
        ms, threads = row["ms_a_view"], row["two_threads"]
        against = "zstd" if "zstd" in ms else "raw, aligned"
        rows.append(
            (
                f"`{row['shapes']}` at {' x '.join(map(str, row['image_size']))}, `{row['precision']}`",
                f"{row['mb_per_view']:.2f}",
                f"{ms['view']['cpu']:.2f}",
                f"{ms[against]['cpu']:.2f} ({against.partition(',')[0]})",
                f"{row['ratio']:.2f}",
                f"{row['limit']:g}",
                f"{ms['floor']['cpu']:.2f}",
                f"{row['ratios']['floor']:.2f}",
                f"{threads['view']:.2f} ({threads['raw']:.2f}, {threads['floor']:.2f})",
            )
        )
    conditions = found["conditions"]
    busy = max(conditions["load_average"])
    goal = found["rows"][0]["two_threads_at_least"]
    met = [row for row in found["rows"] if row["ratio"] <= row["limit"]]
    faster = [row for row in found["rows"] if row["two_threads"]["view"] >= goal]
    slow = [row for row in found["rows"] if row["two_threads"]["view"] < goal]
    text = (
        "Processor milliseconds a view on a warm page cache, everything checked, on "
        f"{conditions['cores']} cores with other work beside (load averages up to {busy:g}). Maps are random numbers "
        "in the detectors' shapes.\n\n"
        "- *Against*: the same bytes read into memory as they are (raw), or decoded by zstd from memory, and nothing "
        f"else. The ratio to it should be at most the goal, and is for {len(met)} of {len(rows)}.\n"
        "- *Floor* is what no reader can do without: the same chunks read, each with its CRC-32C, decoded where they "
        "are coded, and no object made of them; *of it* is the ratio to that.\n"
        "- *Two threads*: how much faster than one by the clock, which other work disturbs; in brackets raw reads and "
        f"the floor. The goal is {goal:g}, on cores that are free, met by {len(faster)} of {len(rows)}.\n\n"
    ) + table(("view", "MB", "read", "against", "ratio", "goal", "floor", "of it", "two threads"), rows)
    missed = [_why_missed(row) for row in found["rows"] if row not in met]
    notes = []
    if missed:
        notes.append(
            f"Goals that are not reached: {'; '.join(missed)}. That goes into finding the view, its queries, boxes and "
            "ground truth, and into the tensors that it is handed out as."
        )
    if slow:
        beyond = [row["case"] for row in slow if row["two_threads"]["floor"] < goal]
        notes.append(
            f"Two threads do not reach {goal:g} for {', '.join(row['case'] for row in slow)}; nor does the floor, "
            f"which makes nothing of what it reads, for {', '.join(beyond) or 'none of them'}. "
            "Threads of Python hand its lock over at each read, sum and decoding, each of which is over in "
            "microseconds for a small view."
        )
    return "\n\n".join([text, *notes])


def _why_missed(row: dict[str, Any]) -> str:
    """What the yardstick of a goal leaves out, in figures."""
    ms = row["ms_a_view"]
    against = "zstd" if "zstd" in ms else "raw, aligned"
    floor = ms["floor"]["cpu"] / ms[against]["cpu"]
    reach = " (so out of reach)" if floor > row["limit"] else ""
    return (
        f"{row['case']} views, where the floor alone takes {floor:.2f} of the yardstick{reach} and the reader "
        f"{ms['view']['cpu'] - ms['floor']['cpu']:.2f} ms more"
    )


def onnx_table() -> str:
    """Which small models become a graph that gives torch's results, and why the others do not."""
    found = load("onnx_families")
    rows: list[tuple[Any, ...]] = []
    reasons = []
    for name, row in found["rows"].items():
        plain, gather = row.get("plain", NOT_MEASURED), row.get("gather", NOT_MEASURED)
        reason = plain.get("error") or plain.get("fixed_because")
        if reason:
            reasons.append(f"- `{name}`: {shortened(reason)}")
        size = plain.get("size", "no graph") + (" (below)" if reason else "")
        gaps = [onnx_gap(plain, "differences"), onnx_gap(plain, "elsewhere"), onnx_gap(gather, "differences")]
        exchanged = sum(each.get("exchanged", 0) for each in (plain, gather))
        rows.append((f"`{name}`", size, plain.get("samplers", {}).get("GridSample", ""), *gaps, exchanged))
    opsets = ", ".join(sorted({str(row["opset"]) for row in found["rows"].values()}))
    versions = found["conditions"]
    return (
        f"Opset {opsets}, torch {versions['torch']}, onnxruntime {versions['onnxruntime']}, transformers "
        f"{versions['transformers']}; the batch is free in all of them. Differences are the largest of boxes (in parts "
        "of the image), scores and mask probabilities, each of which may be 1e-3. Ties are choices between equal "
        "scores in which torch followed the graph:\n\n"
        + table(
            ("model", "height x width", "GridSample", "differs by", "at other sizes", "with `--gather`", "ties"), rows
        )
        + "\n\nSizes that are fixed although the detector takes any, and how the reason begins (the JSON file has all "
        + "of it):\n\n"
        + "\n".join(reasons)
    )


NOT_MEASURED: dict[str, Any] = {"error": "not measured"}


def onnx_gap(measured: dict[str, Any], where: str) -> str:
    """The largest difference between onnxruntime and torch in a few letters; empty where there can be none."""
    if "error" in measured:
        return "not measured" if measured is NOT_MEASURED else "no graph"
    gaps = measured[where]
    return f"{max(gaps.values()):.0e}" if gaps else ""


def live_table() -> str:
    """What a training step costs from a cache and with the detector in the loop."""
    found = load("cached_vs_live")
    rows = [
        (
            name,
            " x ".join(map(str, row["input"])),
            f"{row['cached_seconds']:.1f}",
            f"{row['live_seconds']:.1f}",
            f"{row['ratio']:.1f}",
            f"{row['ratio_grid_sample']:.1f}" if "ratio_grid_sample" in row else "",
            "" if row["goal"] is None else f"{row['goal']:.1f}",
        )
        for name, row in found.items()
    ]
    return (
        "Processor seconds of a training step of one image, on a CPU in float32, the detector frozen; in the last "
        "ratio the live detector's deformable attention is torch's `grid_sample`, as it is without this package:\n\n"
    ) + table(
        ("detector", "input", "cached", "live", "live / cached", "live with `grid_sample` / cached", "goal"), rows
    )


def write_table() -> str:
    """What writing a cache costs beside its bytes."""
    rows = [
        (
            f"`{row['precision']}`",
            f"{row['mb'] / row['views']:.1f}",
            f"{row['seconds']['ours']['cpu'] / row['views'] * 1000:.0f}",
            f"{row['mb_a_second']['ours']:.0f}",
            f"{row['mb_a_second']['raw']:.0f}",
            f"{row['of_the_raw_rate']:.2f}",
        )
        for row in load("cache_write")["rows"]
    ]
    return (
        "Views in the shapes of H-DETR R50 at 800 x 1120, written and committed, against the same files from memory, "
        f"each flushed, in one run; the goal is {load('cache_write')['rows'][0]['goal']} of the raw rate:\n\n"
        + table(("precision", "MB a view", "CPU ms a view", "MB/s", "raw MB/s", "of the raw rate"), rows)
    )


def evaluate_table() -> str:
    """What an evaluation takes by the clock, and how far the head is from the machine's own rate."""
    found = load("evaluate")
    whole, there, machine = found["seconds"]["trained head"], found["seconds"]["conditions"], found["head_and_machine"]
    rows = [
        (way, f"{there['images'] / each['clock']:.1f}", f"{each['clock_ratio']:.2f}" if "clock_ratio" in each else "")
        for way, each in whole.items()
    ]
    before, cores = there["images"] / whole["before"]["clock"], there["cores"]
    full = machine["float32"]["images_a_second_at_the_matmul_rate"] * cores
    shares, rates = (
        [machine[kind][fact] for kind in ("float32", "bfloat16")] for fact in ("matmul_share", "matmul_gflop_a_second")
    )
    return (
        f"All metrics of a `small-data` head on {there['images']} images of COCO, on {cores} cores, against the "
        f"code before these changes ({there['before'][:7]}):\n\n"
        + table(("way", "images a second", "times as fast"), rows)
        + f"\n\nThe goal, 5 times as fast ({5 * before:.0f} images a second), is out of reach here in float32: the "
        f"head computes {machine['float32']['gflop_an_image']:.0f} GFLOP an image, and if {cores} cores did nothing "
        f"but multiply matrices, they would do {full:.0f} images a second. It runs at {shares[0]:.2f} of that rate, in "
        f"bf16 at {shares[1]:.2f} of a rate that is {rates[1] / rates[0]:.1f} times as high." + _papers_head(found)
    )


def _papers_head(found: dict[str, Any]) -> str:
    """The same of the paper's head, where it was measured."""
    if "papers_head" not in found:
        return ""
    there, ways = found["papers_head"]["conditions"], found["papers_head"]["the paper's head"]
    rows = [
        (way, f"{there['images'] / each['clock']:.2f}", f"{each['clock_ratio']:.2f}" if "clock_ratio" in each else "")
        for way, each in ways.items()
    ]
    return (
        f"\n\nThe paper's final head on {there['images']} images of random maps of H-DETR R50 at 800 x 1120, "
        f"100 detections each, on {there['cores']} cores:\n\n"
        + table(("way", "images a second", "times as fast"), rows)
    )


def weak_table() -> str:
    """What is left of mask AP without masks."""
    full = {run["seed"]: run for run in next(row for row in load("masks")["rows"] if row["what"] == "as it is")["runs"]}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in load("weak_supervision")["rows"]:
        groups.setdefault((row["supervision"], row.get("guess", "")), []).append(row)
    seeds = sorted({row["seed"] for rows in groups.values() for row in rows})
    whole = [full[seed] for seed in seeds]
    iou = statistics.mean(run["mean_iou"]["all"] for run in whole)
    rows: list[tuple[Any, ...]] = [("masks", len(whole), f"{_mean_ap(whole):.4f}", f"{iou:.3f}", "")]
    for (supervision, guess), runs in groups.items():
        share = statistics.mean(run["segm"]["AP"] / full[run["seed"]]["segm"]["AP"] for run in runs)
        name = supervision + (", earlier guess" if guess else "")
        iou = statistics.mean(run["mean_iou"] for run in runs)
        rows.append((name, len(runs), f"{_mean_ap(runs):.4f}", f"{iou:.3f}", f"{share:.2f}"))
    filled_boxes = load("real_coco")["baselines"]["box"]["segm"]["AP"]
    rows.append(("none: filled boxes", "", f"{filled_boxes:.4f}", "", f"{filled_boxes / _mean_ap(whole):.2f}"))
    return (
        "The `small-data` recipe on 209 images of COCO, DEIMv2-Atto, measured on 206 others; of several seeds the "
        "mean, the share that of the same seed with masks:\n\n"
        + table(("trained on", "seeds", "mask AP", "mean IoU", "of full supervision"), rows)
    )


def _mean_ap(runs: list[dict[str, Any]]) -> float:
    return statistics.mean(run["segm"]["AP"] for run in runs)


def scaling_table() -> str:
    """What all of COCO takes on cards that nobody here has: the paper's hours, and what was measured on a CPU."""
    live, projection = load("cached_vs_live"), load("cache_size")["projection"]
    read = next(row for row in load("cache_read")["rows"] if row["case"] == "large coded")
    milliseconds_a_mb = read["ms_a_view"]["view"]["cpu"] / read["mb_per_view"]
    rows = []
    for detector, hours in PAPER_HOURS.items():
        share = live[detector]["cached_seconds"] / live[detector]["live_seconds"]
        size = next(row for row in projection if row["detector"] == detector and row["name"] == "coded 1")
        mb, gb = size["mb_c1_stored"], size["gb_train2017_c1_stored"]
        for card, bandwidth in BANDWIDTH.items():
            faster = bandwidth / BANDWIDTH["V100"]
            extraction, training = hours * (1 - share) / PAPER_EPOCHS / faster, hours * share / faster
            for cards in (1, 8):
                views_a_second = TRAIN2017 * PAPER_EPOCHS / (training / cards * 3600)
                rate, cores = views_a_second * mb, views_a_second * mb * milliseconds_a_mb / 1000
                limit = "the disk" if rate > NVME else "decoding" if cores > 8 * cards else "the cards"
                rows.append(
                    (
                        f"`{detector}`",
                        card if cards == 1 else f"{cards} x {card}",
                        f"{extraction / cards:.1f}",
                        f"{gb:,}",
                        f"{training / cards:.1f}",
                        f"{hours / faster / cards:.1f}",
                        f"{views_a_second:.0f}",
                        f"{rate:,.0f}",
                        f"{cores:.1f}",
                        limit,
                    )
                )
    names = "detector", "cards", "extraction, h", "cache, GB", f"{PAPER_EPOCHS} epochs, h", "live, h"
    return "All of it is arithmetic, from these figures:\n\n" + "\n".join(
        (
            f"- the paper's hours on a V100, detector in the loop, {PAPER_EPOCHS} epochs: "
            + ", ".join(f"{name} {hours}" for name, hours in PAPER_HOURS.items())
            + ";",
            "- how much of such a step is left with a cache: `benchmarks/cached_vs_live.json`, measured on a CPU;",
            "- bytes a view, one an image, `coded`, C1 stored: `benchmarks/cache_size.json`, itself arithmetic;",
            f"- {milliseconds_a_mb:.1f} ms of a core to read and decode a MB: `benchmarks/cache_read.json`, measured;",
            "- cards as fast as their memory (data sheets, GB/s): "
            + ", ".join(f"{card} {rate:,}" for card, rate in BANDWIDTH.items())
            + ". A step that computes more than it moves gains more.",
            "",
            table((*names, "views a second", "MB/s", "cores to read", "limit"), rows),
            "",
            f"The disk limits beyond {NVME:,} MB/s (one NVMe drive), decoding where a card would need over 8 cores.",
        )
    )


def peers_table() -> str:
    """What a training step costs beside those of other trainers."""
    found = load("peers")
    rows = [
        (
            name,
            row["batch_size"],
            f"{row['cpu_seconds_an_image']:.1f}",
            f"{row['times_ours_cached']:.1f}",
            "" if row["goal"] is None else f"{row['goal']:g}",
            f"{row['peak_gb']:.1f}",
        )
        for name, row in found["trainers"].items()
    ]
    size = " x ".join(map(str, found["conditions"]["image_size"]))
    return (
        f"One training step on images of {size} with {found['conditions']['objects']} objects each, one by one "
        f"on one core of {found['conditions']['device']}; random weights, the paper's head on H-DETR R50:\n\n"
        + table(("trainer", "batch", "CPU seconds an image", "times ours cached", "goal", "peak memory, GB"), rows)
    )


def predict_table() -> str:
    """What masks on pictures cost beside the detector."""
    parts = ("read", "detector", "head", "paste", "write", "plain detector")
    rows = []
    for name, measured in load("predict").items():
        for kind in ("every pair", "score from 0.3"):
            if kind in measured:
                of_kind, size = measured[kind], " x ".join(map(str, measured["conditions"]["input_size"]))
                times = [f"{of_kind['milliseconds'][part]:.0f}" for part in parts]
                label = name.partition(": ")[2].removesuffix("/load.py:detector, cpu").removesuffix(", cpu")
                rows.append(
                    (
                        f"`{label}`, {kind}" if kind != "every pair" else f"`{label}`",
                        size,
                        f"{of_kind['instances_per_image']:g}",
                        *times,
                        f"{of_kind['masks_by_detector']:.2f}",
                    )
                )
    conditions = [measured["conditions"] for measured in load("predict").values()]
    busy = max(each["load_average"] for each in conditions)
    return (
        f"`benchmarks/predict.py` on {conditions[0]['cores']} cores of {conditions[0]['device']}, in milliseconds a "
        "picture, one part after the other; `predict` reads, segments and writes side by side. The plain detector is "
        "without any of our taps. The ratio is head and paste over the faster of the two measurements of the detector: "
        "below 1, masks cost less than it does. The paper's detectors have random weights here, which change no speed, "
        "and a mask for every pair that they select. Other work ran beside (load averages up to "
        f"{busy:g}), which slows any part by chance:\n\n"
    ) + table(("detector", "input", "masks", *parts, "ratio"), rows)


def shortened(reason: str, most: int = 120) -> str:
    """The beginning of an exporter's reason, fit for a table's cell; the JSON has the whole."""
    plain = " ".join(reason.split()).replace("|", "\\|")
    return plain if len(plain) <= most else f"{plain[:most].rstrip()} ..."


def table(head: tuple[Any, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(map(str, head)) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


MAKERS = {
    "demo-table": demo_table,
    "real-table": real_table,
    "choices-table": choices_table,
    "masks-table": masks_table,
    "best-table": best_table,
    "trials-table": trials_table,
    "tta-table": tta_table,
    "tta-demo": tta_demo,
    "tta-cost": tta_cost,
    "cost-table": cost_table,
    "onnx-table": onnx_table,
    "size-table": size_table,
    "projection-table": projection_table,
    "read-table": read_table,
    "predict-table": predict_table,
    "evaluate-table": evaluate_table,
    "live-table": live_table,
    "peers-table": peers_table,
    "scaling-table": scaling_table,
    "weak-table": weak_table,
    "write-table": write_table,
}
"""Section -> what makes it from the results."""


def filled(text: str) -> str:
    """A page with every section between `<!-- NAME -->` and `<!-- end -->` made anew."""
    for name, make in MAKERS.items():
        section = re.search(rf"<!-- {name} -->.*?<!-- end -->", text, flags=re.DOTALL)
        if section is not None:
            text = f"{text[: section.start()]}<!-- {name} -->\n{make()}\n<!-- end -->{text[section.end() :]}"
    return text


def main() -> None:
    """Fill, or with --check exit with 1 where a page differs from the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    for page in PAGES:
        old = page.read_text()
        new = filled(old)
        if given.check and old != new:
            sys.exit(f"{page.name} differs from the benchmarks' results: python benchmarks/fill_pages.py")
        if old != new:
            page.write_text(new)


if __name__ == "__main__":
    main()
