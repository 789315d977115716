"""The README.md of a run directory: which file to hand on, and what made it."""

from __future__ import annotations

import shlex
from pathlib import Path

from frozen_cache.durable import write_durably
from frozen_cache.training.config import TrainConfig, non_defaults
from frozen_cache.training.progress import Progress
from frozen_cache.training.run_directory import NOT_FINISHED, RunDirectory, RunRecord, Start

TO_HAND_ON = "with `run.json` the head to hand on"
BEST = f"| `best.safetensors` | the weights with the best mask AP on the validation cache; {TO_HAND_ON} |"
LAST = "| `last.safetensors` | the weights of the last step and the optimizer's state: what a run goes on from"
FILES = """\
| `run.json` | the configuration, the detector, the caches and the code that made the run |
| `metrics.jsonl`, `tensorboard/`, `plots.png` | losses and validation metrics over the steps |
| `report.html` | the same in one page, with the validation's pictures, to be opened in a browser |
| `starts.jsonl` | each start of the run: when, where, with which code, from which step |"""


def write_run_readme(
    run: RunDirectory, record: RunRecord, start: Start, progress: Progress, *, total: int, whole: bool
) -> None:
    """Write `README.md`, at the start of a run and, the last of its files, at its end.

    Args:
        total: steps of the whole run.
        whole: all its files are written.
    """
    ending = "finished" if whole else NOT_FINISHED
    lines = [
        f"# Mask head for {record.detector}",
        "",
        f"{progress.step:,} of {total:,} steps: {ending}.",
        "",
        *_results(progress),
        "| file | what it is |",
        "|---|---|",
        *([f"{LAST}; {TO_HAND_ON} |"] if record.val_fingerprint is None else [BEST, f"{LAST} |"]),
        FILES,
        "",
        "## What made it",
        "",
        f"- recipe: {record.preset or 'see run.json'}; different from the defaults: {_settings(record.config)}",
        f"- {_origin(record)} (fingerprint {record.cache_fingerprint[:12]}); validation: {_validation(record)}",
        *_masks(record),
        *([f"- first weights: `{record.init_from}` (sha256 {record.init[:12]})"] if record.init else []),
        f"- detector: {record.detector} (fingerprint {record.detector_fingerprint[:12]}), encoder layer "
        f"{record.encoder_layer}, {len(record.categories)} categories",
        f"- code: frozen-cache {start.code}, torch {start.torch}, on {start.device}",
        "",
        "## What next",
        "",
        *(["On a cache made by the tuned detector, `detector` here:", ""] if record.config.live.unfreeze else []),
        "```sh",
        next_command(run, record),
        "```",
        "",
    ]
    write_durably(run.readme, "\n".join(lines).encode())


def _origin(record: RunRecord) -> str:
    if record.cache is None and record.source is not None:
        return f"no cache: the detector in the loop on {record.source.images:,} images of `{record.source.annotations}`"
    return f"cache: `{record.cache}`"


def _validation(record: RunRecord) -> str:
    if record.val_cache is not None:
        return f"`{record.val_cache}`"
    return "none" if record.val_fingerprint is None else "the detector in the loop"


def _masks(record: RunRecord) -> list[str]:
    models = () if record.source is None else record.source.masks_from
    return [f"- masks of objects that were annotated by boxes: made by {', '.join(map(str, models))}"] if models else []


def next_command(run: RunDirectory, record: RunRecord) -> str:
    """The command that measures the head; of a detector that trained along, on the cache of `tuned_cache`."""
    cache = "val.zarr" if record.val_cache is None else str(record.val_cache)
    if record.config.live.unfreeze:
        cache = str(tuned_cache(run.path))
    head = str(run.path)
    return shlex.join(["frozen-cache", "evaluate", "--cache", cache, "--head", head, "--out", f"{head}-results"])


def tuned_cache(run: Path) -> Path:
    """What the cache that measures a tuned detector's head is called: none from before fits it."""
    return run.parent / f"{run.name}-val.zarr"


def _results(progress: Progress) -> list[str]:
    lines = []
    if progress.loss is not None:
        lines.append(f"- training loss {progress.loss:.4f}, {progress.seconds / 60:.1f} minutes")
    if progress.best_ap is not None:
        boxes = "" if progress.box_ap is None else f" (box AP {progress.box_ap:.4f})"
        lines.append(f"- best mask AP {progress.best_ap:.4f}{boxes} at step {progress.best_step:,}")
    return [*lines, ""] if lines else []


def _settings(config: TrainConfig) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in non_defaults(config).items()) or "nothing"
