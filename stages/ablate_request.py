"""What is asked of ablate, checked before anything is computed: the variants, and where their results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozen_cache.errors import UserError
from frozen_cache.ownership import content_names
from frozen_cache.training.config import TrainConfig, load_config
from frozen_cache.training.grid import Grid, Row, load_grid

MARKER = "grid.json"


@dataclass(frozen=True)
class AblationRequest:
    """A grid over its preset, and what each of its variants comes to."""

    grid: Grid
    variants: list[Row]
    """With the overrides for all of them."""
    configs: list[TrainConfig]


def check_request(*, grid: str, preset: str | None, overrides: dict[str, Any]) -> AblationRequest:
    """The variants of a grid. A mistake in the last one should not wait for the first ones to train.

    Raises:
        UserError: no such grid or preset, a key or value that is none.
    """
    parsed = load_grid(grid)
    if preset is not None:
        parsed = parsed.model_copy(update={"preset": preset})
    variants = [Row(name=row.name, set={**row.set, **overrides}) for row in parsed.variants()]
    configs = [load_config(preset=parsed.preset, overrides=variant.set) for variant in variants]
    return AblationRequest(parsed, variants, configs)


def check_out(out: Path, grid: Grid) -> None:
    """UserError where `out` is not this ablation's to write into."""
    if out.is_file():
        raise UserError(f"--out {out} exists and is a file: choose another path")
    marker = out / MARKER
    if content_names(out) and not marker.is_file():
        raise UserError(f"--out {out} exists and holds no ablation: choose another path")
    if marker.is_file() and marker.read_text(encoding="utf-8") != marker_text(grid):
        raise UserError(f"--out {out} holds an ablation of another grid: choose another path")


def marker_text(grid: Grid) -> str:
    """The content of `grid.json`, which says whose a folder is."""
    return grid.model_dump_json(indent=2) + "\n"
