"""Mask AP over the bytes of a cache: heads trained and evaluated on caches of coco_mini in float16, int8 and coded.

    python benchmarks/cache_size.py --work FOLDER --bits-only [--views 16]
    python benchmarks/cache_size.py --work FOLDER [--only NAME ...] [--epochs 2] [--seeds 0] [--keep]
    python benchmarks/cache_size.py --work FOLDER --read-through [--only NAME ...]

FOLDER is that of real_coco.py: its float16 caches `train-2x.zarr` and `val-2x.zarr` are written again in each other
precision (reencode.py; no detector runs), the `small-data` preset is trained on the one and evaluated on the other.
In these C1 is stored, so all maps are coded; the row with C1 recomputed is extracted from the images.
NAME is a row of `ROWS` ("float16", "int8", "coded 1" ...); a training takes 12 minutes of a core at 2 epochs. The
caches of a row (int8: 9 GB, coded: 1 to 3 GB) are removed when its seeds are done, unless --keep. All that is done
stays done: the same command goes on where it stopped; other rows, seeds and epochs are added. The float16 row at 2
epochs is the `small-data` run of real_coco.py.

--bits-only takes a minute and `val-2x.zarr` alone, finished or not: bits a value, errors, and the projection.
--read-through trains nothing: the head of the float16 row, seed 0, measured on the val cache of each row, two minutes
each.
Results, after each step: benchmarks/cache_size.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from conditions import conditions
from numcodecs import Zstd
from real_coco import BACKBONE_SCALE, REAL, VIEWS, extract, mean_iou, run_folder, trained
from reencode import reencoded

from frozen_cache.cache.attributes import C1Choice, Precision, best_packing
from frozen_cache.cache.layout import CHUNK_BYTES, ROW_COLUMNS, ZSTD_LEVEL
from frozen_cache.cache.nibbles import packed
from frozen_cache.cache.quantise import coded
from frozen_cache.cache.reader import CacheReader
from frozen_cache.detectors.official.catalogue import catalogue
from frozen_cache.detectors.official.detector import INPUT
from frozen_cache.stages.cache_tools import cache_info
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.training.config import exact_epochs, load_config

RESULT = Path(__file__).with_suffix(".json")
STEPS = (0.2, 0.4, 0.7, 1.0, 1.5, 2.2, 3.0)


class Row(NamedTuple):
    """How the caches of a row of the curve are stored."""

    precision: Precision
    step: float | None = None
    c1: C1Choice = "stored"


RECOMPUTED = "coded 1, C1 recomputed"
ROWS: dict[str, Row] = {
    "float16": Row("float16"),
    "int8": Row("int8"),
    **{f"coded {step:g}": Row("coded", step) for step in STEPS},
    RECOMPUTED: Row("coded", 1.0, "recomputed"),
}
PROJECTED = ("hdetr-r50", "hdetr-swin-l", "dino-focalnet-l")
TRAIN2017 = 118_287
"""Images of COCO train2017."""


def bits(work: Path, name: str, *, views: int) -> dict[str, Any]:
    """Bits a value, MB a view, and the squared error of the maps as a part of each channel's variance."""
    form = ROWS[name]
    source = work / "val-2x.zarr"
    cache = work / "cache_size" / f"bits-{slug(name)}-{views}.zarr"
    reencoded(source, cache, precision=form.precision, step=form.step, views=views)
    sizes = cache_info(cache).as_json()
    row = {
        "name": name,
        "views": sizes["views"],
        "mb_per_view": round(sizes["bytes"] / sizes["views"] / 1e6, 4),
        "bits": bits_of(sizes),
        "error": _errors(CacheReader(source, allow_incomplete=True), CacheReader(cache)),
    }
    shutil.rmtree(cache)
    return row


def _errors(exact: CacheReader, found: CacheReader) -> dict[str, float]:
    """Of C1 and of the encoder's levels, over the first views."""
    errors: dict[str, list[float]] = {"c1": [], "encoder": []}
    for at in range(min(4, len(found))):
        pairs = [(exact.read(at), found.read(at))]
        for one, other in pairs:
            assert one.c1 is not None and other.c1 is not None
            errors["c1"].append(_error(one.c1, other.c1))
            for layer, levels in one.encoder.items():
                errors["encoder"] += [_error(*maps) for maps in zip(levels, other.encoder[layer], strict=True)]
    return {name: round(statistics.mean(values), 5) for name, values in errors.items()}


def _error(exact: torch.Tensor, found: torch.Tensor) -> float:
    varies = exact.var((1, 2), correction=0)
    part = (found - exact).square().mean((1, 2)) / varies
    return float(part[varies > 0].mean())


def normal_bits(step: float) -> float:
    """Bits a value of coded maps whose channels are normal and have no structure, as zstd packs them."""
    integers, _, _ = coded(torch.randn(64, 160, 160, generator=torch.Generator().manual_seed(0)), step=step)
    flat = integers.numpy().reshape(-1)
    content = (packed(flat) if best_packing(step) == "nibbles" else flat).tobytes()
    packer = Zstd(level=ZSTD_LEVEL)
    parts = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
    return 8 * sum(len(packer.encode(part)) for part in parts) / len(content)


def projection(val: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """MB a view and GB of train2017, by arithmetic: the sizes of the maps at 800 / 1333 for images of the sizes of
    coco_mini, bits of normal noise for the encoder's levels (which end in a LayerNorm), bits of DEIMv2's C1 as measured
    for a stored C1, the files' own bytes for one that is recomputed."""
    reader = CacheReader(val, allow_incomplete=True)
    sizes = [reader.read(at, encoder_layers=(), c1=False).transform.original_size for at in range(len(reader))]
    resized = [INPUT.resized_size(height=height, width=width) for height, width in sizes]
    files = [file.stat().st_size for file in (REAL / "coco_mini" / "val2017").iterdir()]
    found = []
    for detector in catalogue():
        if detector.name not in PROJECTED:
            continue
        levels = statistics.mean(sum(_cells(size, s) for s in detector.strides) for size in resized) * detector.channels
        c1 = statistics.mean(_cells(size, 4) for size in resized) * (detector.c1_channels or 0)
        exact = detector.top_k * (len(ROW_COLUMNS) + detector.channels) * 4
        for row in rows:
            form = ROWS[row["name"]]
            plain = {"float16": 16.0, "int8": 8.0}.get(form.precision)
            level_bits = plain or normal_bits(form.step or 0)
            stored = (levels * level_bits + c1 * (plain or row["bits"]["c1"])) / 8 + exact
            recomputed = levels * level_bits / 8 + exact + (statistics.mean(files) if c1 else 0)
            found.append(
                {
                    "detector": detector.name,
                    "name": row["name"],
                    "level_bits": round(level_bits, 2),
                    "mb_c1_stored": round(stored / 1e6, 2),
                    "mb_c1_recomputed": round(recomputed / 1e6, 2),
                    "gb_train2017_c1_stored": round(stored * TRAIN2017 / 1e9),
                    "gb_train2017_c1_recomputed": round(recomputed * TRAIN2017 / 1e9),
                }
            )
    return found


def _cells(size: tuple[int, int], stride: int) -> int:
    return -(-size[0] // stride) * -(-size[1] // stride)


def run(work: Path, name: str, *, epochs: float, seed: int) -> dict[str, Any]:
    """One training and its evaluation, both on caches of this precision."""
    own = load_config(preset="small-data").optim.epochs
    whole = name == "float16" and epochs == own
    label = "small-data" if whole else f"cache-size {name} {epochs:g}"
    folder = run_folder(work, label, seed)
    if (folder / "cache_size.json").is_file():
        return json.loads((folder / "cache_size.json").read_text())
    train, val = caches_for(work, name)
    overrides: dict[str, Any] = {} if epochs == own else exact_epochs(epochs)
    if ROWS[name].c1 == "recomputed":
        overrides["head.c1_scale"] = BACKBONE_SCALE
    found = trained(work, train, val, label, overrides, seed)
    sizes = cache_info(val).as_json()
    train_sizes = cache_info(train).as_json()
    row = {
        "name": name,
        "epochs": epochs,
        "seed": seed,
        "mask_ap": found["segm"]["AP"],
        "mean_iou": found["mean_iou"],
        "train_minutes": found["train_minutes"],
        "mb_per_view": round(sizes["bytes"] / sizes["views"] / 1e6, 4),
        "mb_per_train_view": round(train_sizes["bytes"] / train_sizes["views"] / 1e6, 4),
        "bits": bits_of(sizes),
    }
    (folder / "cache_size.json").write_text(json.dumps(row))
    return row


def read_through(work: Path, name: str) -> dict[str, Any]:
    """The head that was trained on float16, seed 0, measured on the val cache of this row: what the coding alone costs
    a head that has never seen it."""
    run, out = run_folder(work, "small-data", 0) / "run", work / "cache_size" / f"read-{slug(name)}"
    if (out / "read.json").is_file():
        return json.loads((out / "read.json").read_text())
    form, val = ROWS[name], work / "val-2x.zarr"
    if name != "float16":
        val = reencoded(val, caches_of(work, name) / "val.zarr", precision=form.precision, step=form.step)
    metrics = evaluate(cache=val, head=run, out=out).metrics
    sizes = cache_info(val).as_json()
    row = {
        "name": name,
        "mask_ap": metrics["segm"]["AP"],
        "mean_iou": round(mean_iou(run, val), 4),
        "mb_per_view": round(sizes["bytes"] / sizes["views"] / 1e6, 4),
        "bits": bits_of(sizes),
    }
    (out / "read.json").write_text(json.dumps(row))
    return row


def bits_of(sizes: dict[str, Any]) -> dict[str, float]:
    """Bits a value of the maps, of `cache_info`."""
    return {key: each["bits_a_value"] for key, each in sizes["arrays"].items() if "bits_a_value" in each}


def caches_for(work: Path, name: str) -> tuple[Path, Path]:
    """The caches of a row to train and to measure with: written again, or (C1 recomputed) extracted."""
    form = ROWS[name]
    if name == "float16":
        return work / "train-2x.zarr", work / "val-2x.zarr"
    made = []
    for split, views in (("train", VIEWS), ("val", 1)):
        made.append(caches_of(work, name) / f"{split}.zarr")
        if form.c1 == "recomputed":
            extract(
                made[-1],
                split,
                views=views,
                backbone_scale=1,
                precision=form.precision,
                step=form.step,
                c1=form.c1,
            )
        else:
            reencoded(work / f"{split}-2x.zarr", made[-1], precision=form.precision, step=form.step)
    return made[0], made[1]


def caches_of(work: Path, name: str) -> Path:
    """Where a row's caches lie."""
    return work / "cache_size" / slug(name)


def slug(name: str) -> str:
    """A row's name as part of a file's name."""
    return name.replace(", ", "-").replace(" ", "-")


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and range over the seeds of each row and length."""
    rows = []
    for name, epochs in dict.fromkeys((run["name"], run["epochs"]) for run in runs):
        mine = [run for run in runs if (run["name"], run["epochs"]) == (name, epochs)]
        aps = [run["mask_ap"] for run in mine]
        rows.append(
            {
                "name": name,
                "epochs": epochs,
                "seeds": len(mine),
                "mb_per_view": mine[0]["mb_per_view"],
                "mb_per_train_view": mine[0]["mb_per_train_view"],
                "bits": mine[0]["bits"],
                "mask_ap": round(statistics.mean(aps), 4),
                "mask_ap_range": [min(aps), max(aps)],
                "mean_iou": round(statistics.mean(run["mean_iou"] for run in mine), 4),
            }
        )
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bits-only", action="store_true")
    parser.add_argument("--read-through", action="store_true")
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--only", nargs="*", choices=list(ROWS))
    parser.add_argument("--epochs", type=float, default=load_config(preset="small-data").optim.epochs)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    names = given.only or list(ROWS)
    if given.bits_only or given.read_through:
        names = [name for name in names if ROWS[name].c1 == "stored"]
    if given.bits_only:
        measure_bits(given.work, names, views=given.views)
    elif given.read_through:
        for name in names:
            keep("read_through", read_through(given.work, name))
    else:
        for name in names:
            for seed in map(int, given.seeds.split(",")):
                keep("runs", run(given.work, name, epochs=given.epochs, seed=seed))
            if not given.keep:
                shutil.rmtree(caches_of(given.work, name), ignore_errors=True)
    print(f"written to {RESULT}")


def measure_bits(work: Path, names: list[str], *, views: int) -> None:
    """Bits and errors of rows, and the projection from them."""
    for name in names:
        keep("bits", bits(work, name, views=views))
    report = load()
    report["projection"] = projection(work / "val-2x.zarr", report["bits"])
    write(report)
    for line in report["projection"]:
        print(line)


def keep(part: str, row: dict[str, Any]) -> None:
    """Print a row, and keep it in a part of the results, in the order of `ROWS`, in place of one of the same name."""
    print(f"{part}: {row}", flush=True)
    report = load()

    def key(each: dict[str, Any]) -> tuple[int, float, int]:
        return list(ROWS).index(each["name"]), each.get("epochs", 0), each.get("seed", 0)

    report[part] = sorted([*(old for old in report.get(part, []) if key(old) != key(row)), row], key=key)
    report["summary"] = summary(report["runs"])
    write(report)


def load() -> dict[str, Any]:
    """What has been measured so far."""
    return json.loads(RESULT.read_text()) if RESULT.is_file() else {"runs": []}


def write(report: dict[str, Any]) -> None:
    """Keep it."""
    report["conditions"] = {
        "detector": "DEIMv2-Atto, backbone maps of stride 8 and 16 and C1 from the image at twice the input size",
        "measured": "bits, error, mask AP and mean IoU, on coco_mini val; bits of normal noise in the projection",
        "arithmetic": "the projection's sizes of maps, from 800 / 1333 and the image sizes of coco_mini val",
        "numpy": np.__version__,
    } | conditions()
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
