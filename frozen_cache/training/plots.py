"""Plots of a run as PNG: losses and validation AP over the steps."""

from __future__ import annotations

from matplotlib.figure import Figure

from frozen_cache.training.run_directory import RunDirectory


def plot_run(run: RunDirectory) -> None:
    """Write `plots.png` from `metrics.jsonl`."""
    lines = run.metrics()
    training = [line for line in lines if "loss" in line]
    validation = [line for line in lines if "val" in line]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("loss", "bce", "dice", "scoring"):
        points = [(line["step"], line[name]) for line in training if name in line]
        if points:
            left.plot(*zip(*points, strict=True), label=name)
    left.set(xlabel="step", title="training loss")
    for kind in ("segm", "bbox"):
        points = [(line["step"], line["val"][kind]["AP"]) for line in validation]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", label=f"{kind} AP")
    right.set(xlabel="step", title="validation AP")
    for axes in (left, right):
        if axes.lines:
            axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(run.path / "plots.png", dpi=110)
