"""docs/cache-size.svg: mask AP over MB a view, from the results of `cache_size.py`.

python benchmarks/cache_size_plot.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

HERE = Path(__file__).parent
PLOT = HERE.parent / "docs" / "cache-size.svg"
GOAL = 0.002
"""What coding may cost."""
TICKS = (0.2, 0.5, 1, 2, 4, 8)
"""MB a view."""


def drawn(size: dict[str, Any], seeds: dict[str, Any]) -> Figure:
    """The curve; `size` of cache_size.json, `seeds` the row of the recipe as it is, in float16, of masks.json."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    aps = [run["segm"]["AP"] for run in seeds["runs"]]
    low, high = min(aps), max(aps)
    axes.axhspan(low, high, color="0.9", label=f"heads trained on float16, {seeds['seeds']} seeds")
    read = sorted(size["read_through"], key=lambda row: row["mb_per_view"])
    axes.plot(
        [row["mb_per_view"] for row in read],
        [row["mask_ap"] for row in read],
        "o-",
        color="tab:blue",
        markerfacecolor="white",
        label="one head, trained on float16, read through the coding",
    )
    axes.plot(
        [row["mb_per_view"] for row in size["runs"]],
        [row["mask_ap"] for row in size["runs"]],
        "D",
        color="tab:orange",
        markersize=4,
        label="heads trained on what they read, one each",
    )
    exact = next(row["mask_ap"] for row in read if row["name"] == "float16")
    axes.axhline(exact - GOAL, color="0.4", linestyle="--", linewidth=1, label="0.2 points less")
    names = {row["name"] for row in read}
    for row in [*read, *(row for row in size["summary"] if row["name"] not in names)]:
        recomputed = "C1" in row["name"]
        axes.annotate(
            row["name"].replace("coded ", ""),
            (row["mb_per_view"], row["mask_ap"]),
            xytext=(-4, 7) if recomputed else (0, 7),
            textcoords="offset points",
            ha="left" if recomputed else "center",
            fontsize="small",
        )
    axes.set_xscale("log")
    axes.set_xticks(TICKS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)
    axes.set_ylim(exact - 5 * GOAL, exact + GOAL)
    axes.set_xlabel("MB a view (DEIMv2-Atto, coco_mini val); at the points: --step of coded maps")
    axes.set_ylabel("mask AP")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    return figure


def main() -> None:
    """Draw."""
    size = json.loads((HERE / "cache_size.json").read_text())
    rows = json.loads((HERE / "masks.json").read_text())["rows"]
    seeds = next(row for row in rows if row["what"] == "as it is")
    with matplotlib.rc_context({"svg.hashsalt": "frozen-cache", "svg.fonttype": "none"}):  # equal results, equal bytes
        drawn(size, seeds).savefig(PLOT, metadata={"Date": None})
    print(f"written to {PLOT}")


if __name__ == "__main__":
    main()
