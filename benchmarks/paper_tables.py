"""The paper's 16 tables beside ours: parameters, FLOPs, and the command that trains each row.

    python benchmarks/paper_tables.py [--tables ../shared/paper_tables.toml]

Parameters and multiply-adds are counted on the modules as they run (no memory, no weights), on one image with as many
tokens as the paper's average over val. To these the two things are added that only the paper counts
(`PaperRow.uncounted_gmacs`): 4 for each element of the upsampling to stride 4, and a term without explanation. With
`--tables`, the tables as printed, every row is printed with its AP and its command;
kept is what is counted.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from frozen_cache.head.describe import describe_head
from frozen_cache.head.paper_rows import PAPER_ROWS
from frozen_cache.training.grid import load_grid

RESULT = Path(__file__).with_suffix(".json")
TABLES = Path(__file__).parents[2] / "shared" / "paper_tables.toml"
NEAR = 0.1
"""G, or a thousandth, whatever is more."""

EVALUATE = "frozen-cache evaluate --cache val.zarr --out OUT --baseline {}"
ABLATE = "frozen-cache ablate --cache train.zarr --val-cache val.zarr --out OUT --grid {}"
TRAINING_FREE = ("training-free-whole-image-no-c1", "training-free-no-c1", "training-free-whole-image", "training-free")
BESIDE_GRIDS = {
    "table1": [EVALUATE.format(name) for name in TRAINING_FREE],
    "table2": [EVALUATE.format("training-free")],
}
"""Rows that nothing is trained for; the others of a table are its grid's."""
RECIPE = (
    "frozen-cache extract-features --detector {detector} --weights FILE ...; "
    "frozen-cache train-head --preset paper --cache train.zarr --val-cache val.zarr --out run"
)
DETECTORS = {"R50": "hdetr-r50", "Swin-L": "hdetr-swin-l", "FocalNet-L": "dino-focalnet-l"}
COCO_TABLES = ("table7", "table8")
LIVE = (
    "frozen-cache ablate --live --detector {} --weights FILE --images train2017 --annotations FILE "
    "--val-images val2017 --val-annotations FILE --out OUT --grid {}"
)
LIVE_GRIDS = {
    "table11": [("table11", "hdetr-r50", "")],
    "table16": [
        ("table16", "hdetr-r50", ""),
        ("table16-large", "hdetr-swin-l", ""),
        ("table16-large", "dino-focalnet-l", " --set head.image_layers=3"),
    ],
}
"""Grids of a table that needs the detector in the loop, one after the other: name, detector, further options."""


def counted() -> list[dict[str, Any]]:
    """Each row that fixes a head's size."""
    found = []
    for row in PAPER_ROWS:
        described = describe_head(config=row.config, inputs=row.inputs, image_size=row.image_size, boxes=row.boxes)
        gmacs = described.macs / 1e9
        off = gmacs + row.uncounted_gmacs - row.gmacs
        found.append(
            {
                "table": row.table,
                "row": row.name,
                "detector": row.detector,
                "image_size": list(row.image_size),
                "paper_millions": row.millions,
                "expected_parameters": row.parameters,
                "parameters": described.parameters,
                "equal": described.parameters == row.parameters,
                "expected_is_a_guess": not row.exact,
                "paper_gmacs": row.gmacs,
                "gmacs": round(gmacs, 3),
                "only_the_paper_counts": round(row.uncounted_gmacs, 3),
                "off_gmacs": round(off, 3),
                "near": abs(off) <= max(NEAR, 0.001 * row.gmacs),
            }
        )
    return found


def commands(tables: dict[str, Any]) -> list[dict[str, Any]]:
    """Each row of each table as printed, and what gives ours."""
    found = []
    for name, table in tables.items():
        rows, columns = table["rows"], table["columns"]
        for row, command in zip(rows, _commands(name, rows, columns), strict=True):
            found.append(
                {"table": name.removeprefix("table"), "row": dict(zip(columns, row, strict=True)), "command": command}
            )
    return found


def _commands(name: str, rows: list[list[Any]], columns: list[str]) -> list[str]:
    if name in COCO_TABLES:
        backbone, method = columns.index("backbone"), columns.index("method")
        return [
            RECIPE.format(detector=DETECTORS[row[backbone]])
            if row[method].startswith("Mask Frozen")
            else "another method"
            for row in rows
        ]
    if name in LIVE_GRIDS:
        found = [
            f"{LIVE.format(detector, grid)}{more}    # row `{variant.name}`"
            for grid, detector, more in LIVE_GRIDS[name]
            for variant in load_grid(grid).variants()
        ]
        if len(found) != len(rows):
            raise ValueError(f"{name} has {len(rows)} rows, its grids {len(found)}")
        return found
    beside = BESIDE_GRIDS.get(name, [])
    left = len(rows) - len(beside)
    if not left:
        return beside
    variants = load_grid(name).variants()
    if len(variants) != left:
        raise ValueError(f"{name} has {left} rows to train, its grid {len(variants)}")
    return [*beside, *(f"{ABLATE.format(name)}    # row `{variant.name}`" for variant in variants)]


def main() -> None:
    """Print the tables and write them beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=TABLES)
    tables = parser.parse_args().tables
    rows = counted()
    print(f"{'table':6}{'row':30}{'params (M)':>11}{'ours':>12}{'':4}{'paper G':>9}{'ours':>9}{'+':>7}{'off':>8}")
    for row in rows:
        print(
            f"{row['table']:6}{row['row']:30}{row['paper_millions']:11.2f}{row['parameters']:12,}"
            f"{'=' if row['equal'] else '!':>4}{row['paper_gmacs']:9.2f}{row['gmacs']:9.2f}"
            f"{row['only_the_paper_counts']:7.3f}{row['off_gmacs']:8.3f}"
        )
    print(f"parameters equal in {sum(row['equal'] for row in rows)} of {len(rows)} rows")
    near = sum(row["near"] for row in rows)
    print(f"GMACs, with what only the paper counts, within 0.1 G or a thousandth in {near} of {len(rows)} rows")
    if tables.is_file():
        for entry in commands(tomllib.loads(tables.read_text())):
            print(
                f"{entry['table']:4}{' '.join(str(value) for value in entry['row'].values())}\n      {entry['command']}"
            )
    RESULT.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    print(f"written to {RESULT.name}")


if __name__ == "__main__":
    main()
