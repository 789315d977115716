"""Grids of variants for an ablation: the paper's tables, and TOML files."""

from __future__ import annotations

import itertools
import re
import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from frozen_cache.errors import UserError
from frozen_cache.near_names import perhaps_meant

PAPER_TABLES = ("2", "3", "4", "5", "6", "9", "12", "15")
"""Those of `head.paper_rows`; the names alone need no torch."""
GRIDS_FOLDER = resources.files("frozen_cache") / "presets" / "grids"


class Row(BaseModel):
    """One variant of a grid: overrides by dotted key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    set: dict[str, Any] = {}


class Grid(BaseModel):
    """A grid file: named rows, or the product of value lists, over a preset with common overrides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    preset: str = "paper"
    base: dict[str, Any] = {}
    """Overrides of all variants, by dotted key."""
    rows: tuple[Row, ...] = ()
    product: dict[str, list[Any]] = {}
    """Dotted key -> values; each combination is a variant."""

    def variants(self) -> list[Row]:
        """All variants, with `base` put under each."""
        combinations = [
            Row(
                name=", ".join(
                    f"{key.split('.')[-1]} {value}" for key, value in zip(self.product, values, strict=True)
                ),
                set=dict(zip(self.product, values, strict=True)),
            )
            for values in itertools.product(*self.product.values())
            if self.product
        ]
        return [Row(name=row.name, set={**self.base, **row.set}) for row in (*self.rows, *combinations)]


def grid_names() -> list[str]:
    """Names of the grids that ship with the package, tables by their numbers."""
    files = {entry.name.removesuffix(".toml") for entry in GRIDS_FOLDER.iterdir() if entry.name.endswith(".toml")}
    names = files | {f"table{table}" for table in PAPER_TABLES}
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def load_grid(grid: str) -> Grid:
    """A shipped grid (`table3`) or a TOML file.

    Raises:
        UserError: there is none of that name, or the file does not hold a grid; one line.
    """
    shipped = GRIDS_FOLDER / f"{grid}.toml"
    if shipped.is_file():
        return _parsed(grid, shipped)
    if grid in grid_names():
        return _paper_table(grid.removeprefix("table"))
    if Path(grid).is_file():
        return _parsed(grid, Path(grid))
    names = grid_names()
    raise UserError(
        f"no grid `{grid}`{perhaps_meant(grid, names)}: known are {', '.join(names)}, or give the path of a .toml file"
    )


def _paper_table(table: str) -> Grid:
    """The rows whose parameters the paper prints, trained by the paper's recipe."""
    from frozen_cache.head.paper_rows import PAPER_ROWS

    rows = [row for row in PAPER_ROWS if row.table == table]
    return Grid(
        title=f"Table {table}",
        rows=tuple(
            Row(name=row.name, set={f"head.{key}": value for key, value in row.options.items()}) for row in rows
        ),
    )


def _parsed(grid: str, file: Path | Traversable) -> Grid:
    try:
        parsed = Grid.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"grid {grid}: `{where}`: {first['msg']}") from error
    except ValueError as error:  # of TOML, or of bytes that are no text
        raise UserError(f"grid {grid} is not valid TOML: {error}") from error
    names = [variant.name for variant in parsed.variants()]
    if not names or len(set(names)) < len(names):
        raise UserError(f"grid {grid} has no variants, or two of the same name")
    return parsed
